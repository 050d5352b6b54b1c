"""How commands begin and end: targets tried first, signals, and one line about what the user can mend, with a status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

INTERRUPTED = 130  # exit status after a stop, as shells have it: 128 + SIGINT
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is what clusters send before the time is up


def run(name: str, work: Callable[[], int], *mistakes: Type[Exception], status: int = 2, stopped: str = "",
        writes: Optional[Sequence[str]] = None) -> int:
    """The exit status of a command's work: what `work` returns, or

    `status` after a line "<name>: ..." on stderr for one of `mistakes` or an OSError (a full disk, no permission),
    130 after Ctrl-C, with the line `stopped` if there is one, 1 where the reader of stdout went away, as with "| head".
    Other exceptions are bugs and propagate. Closed standard streams (">&-") swallow what is printed, and
    stdout escapes what its encoding lacks, as stderr does.

    writes: given where the command's product is files, not what it prints. Those whose names are known are tried before
    the work begins. Such a command continues when its terminal or its reader goes away, as if it printed to a file, and
    SIGTERM and SIGUSR1 (what clusters send) stop it as Ctrl-C does.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with contextlib.ExitStack() as stack:
        try:
            if writes is not None:
                stack.enter_context(_outliving_its_terminal())
                _try(writes)
            result = work()
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            return 1
        except mistakes as error:
            _say(f"{name}: {error}")
            return status
        except OSError as error:
            _say(f"{name}: {what_failed(error)}")
            return status
        except KeyboardInterrupt:
            if stopped:
                _say(f"\n{name}: {stopped}")
            return INTERRUPTED
        finally:
            _flush_or_drop()


def what_failed(error: OSError) -> str:
    """Like "file: No space left on device"; of standard streams the reason alone."""
    return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)


def _try(paths: Sequence[str]) -> None:
    """Raise the OSError now that writing would raise after the work."""
    from common import files

    for path in paths:
        files.check_writable(path)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that has gone away: nobody is left to be told
        print(line, file=sys.stderr, flush=True)


def _flush_or_drop() -> None:
    """Leave nothing in stdout's buffer that Python would fail to write when it ends, with a message and a status of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _outliving_its_terminal() -> Iterator[None]:
    """For a while: signals and standard streams as in a command whose product is files (see run)."""
    streams: Dict[str, io.TextIOWrapper] = {}
    signals: Dict[int, Any] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            streams[name] = stream
            setattr(sys, name, _enduring(stream))
    if threading.current_thread() is threading.main_thread():
        signals = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signals[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup; children get it too
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        for name, stream in streams.items():
            with contextlib.suppress(OSError):
                getattr(sys, name).flush()
            setattr(sys, name, stream)


def _stop(number, frame) -> None:
    raise KeyboardInterrupt


def _enduring(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Another stream on the same file descriptor, which nobody needs to read."""
    stream.flush()
    lines = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False)), stream.encoding, stream.errors,
                            line_buffering=lines)


class _Outlet(io.FileIO):
    """A standard stream's end that leads nowhere once its terminal or its reader has gone away."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


@contextlib.contextmanager
def forward_signals(start: Callable[[], subprocess.Popen], on_stop: Callable[[], Any] = lambda: None,
                    at_once: Callable[[subprocess.Popen], Any] = subprocess.Popen.kill,
                    ) -> Iterator[Tuple[subprocess.Popen, List[int]]]:
    """Start a process and forward our signals to it; yields (process, list of the STOP_SIGNALS received so far).

    The first stop signal sends it SIGTERM and calls `on_stop`, the second calls `at_once` on it, later ones kill it.
    SIGHUP is forwarded as it is.
    """
    process: Optional[subprocess.Popen] = None
    received: List[int] = []

    def forward(number, frame) -> None:
        if number == signal.SIGHUP:
            if process is not None:
                process.send_signal(number)
            return
        received.append(number)
        if len(received) == 1:
            on_stop()
        if process is not None:
            if len(received) == 1:
                process.terminate()
            elif len(received) == 2:
                at_once(process)
            else:
                process.kill()

    before = {number: signal.signal(number, forward) for number in (*STOP_SIGNALS, signal.SIGHUP)}
    try:
        process = start()
        if received:  # while it was started
            process.terminate()
        yield process, received
    finally:
        for number, old in before.items():
            signal.signal(number, old)
