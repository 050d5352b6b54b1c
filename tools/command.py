"""How commands end: with a status, and one line about what the user can mend instead of a traceback."""

from __future__ import annotations

import io
import os
import sys
from typing import Callable, Type

INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def run(name: str, work: Callable[[], int], *mistakes: Type[Exception], status: int = 2, stopped: str = "") -> int:
    """The exit status of a command's work: what `work` returns, or

    `status` after a line "<name>: ..." on stderr for one of `mistakes` or an OSError (a full disk, no permission),
    130 after Ctrl-C, with the line `stopped` if there is one, 1 where the reader of stdout went away, as with "| head".
    Whatever else is raised is a fault of ours and goes on. Closed standard streams (">&-") swallow what is printed, and
    stdout escapes what its encoding lacks, as stderr does.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = work()
        sys.stdout.flush()
        return result
    except BrokenPipeError:
        return 1
    except mistakes as error:
        print(f"{name}: {error}", file=sys.stderr)
        return status
    except OSError as error:
        print(f"{name}: {what_failed(error)}", file=sys.stderr)
        return status
    except KeyboardInterrupt:
        if stopped:
            print(f"\n{name}: {stopped}", file=sys.stderr)
        return INTERRUPTED
    finally:
        _flush_or_drop()


def what_failed(error: OSError) -> str:
    """Like "file: No space left on device"; of standard streams the reason alone."""
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)


def _flush_or_drop() -> None:
    """Leave nothing in stdout's buffer that Python would fail to write when it ends, with a message and a status of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
