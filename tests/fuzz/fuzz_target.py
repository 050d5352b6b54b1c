"""What a fuzz target is: one reader of files, what may come out of it, and the files that mutations start from."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).with_name("cases")  # inputs that once came through, a folder a target
SECONDS = 10  # that one input may take
MEGAPIXELS = 8  # of an image: more are refused, so that MEMORY holds for images too
MEMORY = 512 << 20  # bytes that one input may take beyond what the process had before


@dataclass(frozen=True)
class Target:
    """`read(data, folder)` hands `data` to a reader, by way of a file in `folder` where that is its way, and checks what
    comes back; anything that it raises but `errors` is a finding."""

    name: str
    read: Callable[[bytes, Path], None]
    seeds: Callable[[Path], Iterable[bytes]]  # given an empty folder to work in
    errors: Tuple[type, ...]
    tokens: Tuple[bytes, ...] = ()  # words of the format, for the mutations


TARGETS: Dict[str, Target] = {}


def target(seeds, errors, tokens=()):
    """Decorator: make `read` a target under its own name."""

    def register(read):
        TARGETS[read.__name__] = Target(read.__name__, read, seeds, tuple(errors), tuple(tokens))
        return read

    return register


def attempt(target: Target, data: bytes, folder: Path) -> Optional[BaseException]:
    """None where the reader took or refused the data as it should, else the exception that came through."""
    try:
        target.read(data, folder)
    except target.errors as refusal:
        if not str(refusal):
            return AssertionError("an error without a message")
    except Exception as finding:  # MemoryError and RecursionError too
        return finding
    return None


def signature(finding: BaseException) -> str:
    """Kind and place of a finding, the same for inputs that fail in the same way."""
    frames = [f for f in traceback.extract_tb(finding.__traceback__) if f.filename.startswith(str(ROOT))]
    ours = [f for f in frames if "/tests/" not in f.filename and "/.venv/" not in f.filename] or frames
    place = f"{Path(ours[-1].filename).stem}-{ours[-1].lineno}" if ours else "nowhere"
    return f"{type(finding).__name__}-{place}"


def cases(name: str) -> Iterable[Tuple[str, bytes]]:
    """(name, content) of the kept inputs of a target."""
    for path in sorted((CASES / name).glob("*")):
        yield path.name, path.read_bytes()
