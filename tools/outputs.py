"""Files that tools leave behind, whole or not at all: what was there before stays until the new one is complete.

For what can be made again; what a training goes on from is on the disk before it has its name
(torchcaffe.storage.atomic_write).
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
import tempfile
from typing import Any, Iterable, Iterator, Sequence


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Yield a temporary path that becomes `path` when the block ends without an error; makes the folder. Raises OSError."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    part = path + ".part"
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def check_writable(path: str) -> None:
    """Try now what whole_file(path) will do after long work, and leave nothing. Raises OSError, whose text names `path`."""
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = os.path.dirname(os.path.abspath(path))
        if os.path.isdir(folder):
            with open(path + ".part", "ab"):
                pass
            os.remove(path + ".part")
        else:
            while not os.path.lexists(folder):
                folder = os.path.dirname(folder)
            os.rmdir(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", path) from error


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
