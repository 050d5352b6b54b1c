"""Caffe's log lines: glog's prefix on stderr, so that parsers of Caffe's logs read ours."""

from __future__ import annotations

import os
import sys
import threading
import time

INFO, WARNING, ERROR = 0, 1, 2
_LETTERS = "IWE"


def write(message: str, level: int = INFO, depth: int = 1):
    """One glog line, such as `I1123 19:07:00.008105 16676 solver.py:239] Iteration 0, lr = 0.01`.

    GLOG_minloglevel=1 (2) in the environment silences INFO (and WARNING), as for Caffe.
    """
    if level < int(os.environ.get("GLOG_minloglevel") or 0):
        return
    frame = sys._getframe(depth)
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    source = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
    prefix = f"{_LETTERS[level]}{stamp}.{int(now % 1 * 1e6):06d} {threading.get_native_id()} {source}]"
    sys.stderr.write(f"{prefix} {message}\n")
    sys.stderr.flush()


def info(message: str):
    write(message, INFO, 2)


def warning(message: str):
    write(message, WARNING, 2)


def error(message: str):
    write(message, ERROR, 2)


def number(value: float) -> str:
    """A number as C++ streams print it: six significant digits (2.45121, 1e-05, nan, inf)."""
    return f"{value:g}"
