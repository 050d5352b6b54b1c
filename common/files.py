"""Small files, written atomically: text, JSON, CSV, aligned tables; and the SHA-256 of files of any size."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import tempfile
from typing import Any, Iterable, Iterator, Optional, Sequence

CHUNK = 1 << 20  # bytes read at a time


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Yield a temporary path that becomes `path` when the block ends without an error; makes the folder. Raises OSError.

    torchcaffe's atomic_write, with OSError as commands expect it: what was at `path` stays until the new file is on disk.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if os.path.exists(path) and not os.path.isfile(path):
        raise _not_a_file(path)
    from torchcaffe.formats.storage import atomic_write  # here, as it loads numpy, which --help does not need

    with _oserror(path), atomic_write(path) as temporary:
        yield temporary


def check_writable(path: str) -> None:
    """Try now what whole_file(path) will do after long work, and leave nothing. Raises OSError, whose text names `path`."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise _not_a_file(path)
        folder = os.path.dirname(os.path.realpath(path))
        if os.path.isdir(folder):
            from torchcaffe.formats import storage

            with _oserror(path):
                storage.check_writable(path)
            return
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        os.rmdir(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", path) from error


@contextlib.contextmanager
def _oserror(path: str) -> Iterator[None]:
    """Turn torchcaffe's CaffeError for a failed system call, such as on a full disk, into an OSError on `path`."""
    from torchcaffe.core.errors import CaffeError

    try:
        yield
    except CaffeError as error:
        if isinstance(error.__cause__, OSError):
            raise OSError(error.__cause__.errno, error.__cause__.strerror, path) from error
        raise


def _not_a_file(path: str) -> OSError:
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) if os.path.isdir(path) else OSError(
        errno.EINVAL, "is a device or a pipe, not a file", path)


def write_text(path: str, text: str) -> None:
    """UTF-8; bytes of a file's name that are none stand as \\xNN."""
    with whole_file(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        stream.write(text)


def write_json(path: str, value: Any) -> None:
    with whole_file(path) as part, open(part, "w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1)
        stream.write("\n")


def safe_cell(value: Any) -> Any:
    """A cell that no spreadsheet reads as a formula: text that begins like one gets a ' in front (of one more, if it has any)."""
    return f"'{value}" if isinstance(value, str) and re.match(r"'*[=+\-@\t\r]", value) else value


def write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Text as write_text's; a row a line, which ends as RFC 4180 has it."""
    with whole_file(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(header)
        table.writerows(rows)


def read_json(path: str) -> Optional[dict]:
    """Object in a JSON file; None where the file is missing, torn, or holds something else."""
    try:
        with open(path, encoding="utf-8") as stream:
            value = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def sha256_of(path: str) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    return digest_of(path, hashlib.sha256())


def digest_of(path: str, digest) -> str:
    """Hexadecimal digits of a file by a hash of hashlib."""
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def align(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text with aligned columns."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
