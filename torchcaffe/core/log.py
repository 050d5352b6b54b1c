"""Caffe's log lines: glog's prefix on stderr, so that parsers of Caffe's logs read ours.

The environment's GLOG_minloglevel, GLOG_stderrthreshold and GLOG_log_dir, or the flags of the same names, set what is
written where. Where they set no level, a notebook gets one line a net. Calling the module itself is pycaffe's
`caffe.log("text")`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import types

from torchcaffe.core import mode
from torchcaffe.core.errors import CaffeError

INFO, WARNING, ERROR = 0, 1, 2
_LETTERS = "IWE"


class Settings:
    """What glog reads from its flags; None: the environment's GLOG_ variable, else glog's default."""

    minloglevel = None
    stderrthreshold = None
    log_dir = None
    initialized = False
    files = {}  # level -> open file in log_dir


def _level(name) -> int:
    given = getattr(Settings, name)
    return int(os.environ.get(f"GLOG_{name}") or 0) if given is None else given


def quiet(quiet: bool = True) -> None:
    """Log warnings and errors only from now on; `quiet(False)`: every line again, as Caffe, in notebooks too."""
    Settings.minloglevel = WARNING if quiet else INFO


def in_notebook() -> bool:
    """True in a Jupyter kernel (also Colab's, Kaggle's, VS Code's), False in a terminal's IPython and elsewhere."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return any(cls.__name__ == "ZMQInteractiveShell" for cls in type(shell).__mro__)


def is_short() -> bool:
    """True where `details` are left out: in a notebook, unless the log's level was set."""
    return Settings.minloglevel is None and not os.environ.get("GLOG_minloglevel") and in_notebook()


class _Details(threading.local):
    hidden = False


_details = _Details()


@contextlib.contextmanager
def details():
    """The INFO lines of this block go to log files only where the log is short."""
    before, _details.hidden = _details.hidden, _details.hidden or is_short()
    try:
        yield
    finally:
        _details.hidden = before


def write(message: str, level: int = INFO, depth: int = 1) -> None:
    """One glog line, such as `I1123 19:07:00.008105 16676 solver.py:239] Iteration 0, lr = 0.01`.

    GLOG_minloglevel=1 (2) in the environment silences INFO (and WARNING), as for Caffe.
    """
    if level < _level("minloglevel"):
        return
    frame = sys._getframe(depth)
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    source = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
    prefix = f"{_LETTERS[level]}{stamp}.{int(now % 1 * 1e6):06d} {threading.get_native_id()} {source}]"
    line = f"{prefix} {message}\n"
    if level >= _level("stderrthreshold") and not (level == INFO and _details.hidden):
        with contextlib.suppress(OSError):  # a closed terminal or pipe must not end a training; glog ignores it too
            sys.stderr.write(line)
            sys.stderr.flush()
    folder = Settings.log_dir or os.environ.get("GLOG_log_dir")
    if folder:
        _to_files(folder, line, level)


def _to_files(folder, line, level):
    """glog's files: caffe.<host>.<user>.log.<LEVEL>.<date>-<time>.<pid> for each level and what is above it."""
    for which in range(level + 1):
        if which not in Settings.files:
            Settings.files[which] = _open(folder, ("INFO", "WARNING", "ERROR")[which])
        Settings.files[which].write(line)


def _open(folder, level):
    import getpass
    import socket

    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"caffe.{socket.gethostname()}.{getpass.getuser()}.log.{level}.{stamp}.{os.getpid()}"
    try:
        file = open(os.path.join(folder, name), "a", buffering=1)
        link = os.path.join(folder, f"caffe.{level}")
        if os.path.islink(link):
            os.remove(link)
        os.symlink(name, link)
    except OSError as problem:
        raise CaffeError(f"cannot log to {folder}: {problem.strerror}; make the folder or leave out -log_dir") from None
    file.write(time.strftime("Log file created at: %Y/%m/%d %H:%M:%S\n"))
    file.write(f"Running on machine: {socket.gethostname()}\n")
    file.write("Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n")
    return file


def info(message: str) -> None:
    """An INFO line of the engine; of several solvers, only the first logs."""
    if mode.solver_rank() == 0:
        write(message, INFO, 2)


def warning(message: str) -> None:
    write(_named(message), WARNING, 2)


def error(message: str) -> None:
    write(_named(message), ERROR, 2)


def _named(message):
    rank = mode.solver_rank()
    return f"rank {rank}: {message}" if rank else message


def log(message: str) -> None:
    """pycaffe's `caffe.log`: one INFO line."""
    write(message, INFO, 2)


def init_log(level: int | None = None, stderr: bool = False) -> None:
    """pycaffe's `caffe.init_log`: lines below `level` are dropped; without `stderr`, only errors reach stderr.

    Everything else goes to files where GLOG_log_dir names a folder (Caffe: /tmp by default).
    Raises CaffeError when called twice.
    """
    if Settings.initialized:
        raise CaffeError("init_log was called before; it can be called once a process")
    Settings.initialized = True
    if level is not None:
        Settings.minloglevel = int(level)
    Settings.stderrthreshold = INFO if stderr or os.environ.get("GLOG_logtostderr") == "1" else ERROR


def number(value: float) -> str:
    """A number as C++ streams print it: six significant digits (2.45121, 1e-05, nan, inf)."""
    return f"{value:g}"


class _Callable(types.ModuleType):
    """`caffe.log` is a function in pycaffe and a module here; so the module can be called."""

    def __call__(self, message):
        write(message, INFO, 2)


sys.modules[__name__].__class__ = _Callable
