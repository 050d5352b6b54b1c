"""The progress bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
import types

import pytest

from common import progress as progress_module
from common.progress import Progress


def train(stream):
    progress = Progress("step 4, GNet", 50, stream=stream)
    for iteration in range(1, 51):
        progress.step(iteration, 0.7)
    progress.test(50, 0.5, 0.875)
    progress.say("a word")
    progress.close()


def read_all(terminal: int) -> str:
    """What a terminal was given by a program that has closed it: a read gives at most 4 KB."""
    parts = []
    with contextlib.suppress(OSError):  # Linux's end of a terminal
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("rows, columns", [(24, 110), (0, 0)])
def test_bar_on_a_terminal_that_tells_its_size_or_does_not(rows, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with open(theirs, "w") as stream:
        train(stream)
    shown = read_all(ours)
    os.close(ours)
    last = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("step 4, GNet 100% |") and "50/50" in last
    assert "loss 0.7000, accuracy 87.50 %" in last and "a word" in shown


def test_few_lines_where_nobody_watches():
    stream = io.StringIO()
    train(stream)
    assert stream.getvalue().splitlines() == [
        "step 4, GNet: 50 of 50, validation loss 0.5000, accuracy 87.50 %", "a word"]


def test_a_line_at_times_tells_speed_and_time_left(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress("step 2", 1000, first=200, stream=stream)
    for iteration in range(210, 1001, 10):
        now[0] += 40
        progress.step(iteration, 0.7, speed=30)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 2: 220 of 1000, loss 0.7000, 30.0 images/s, 52 min 00 s left"
    assert lines[1].startswith("step 2: 370 of 1000") and len(lines) == 1 + 52 * 60 // 600


def test_a_line_of_progress_a_minute_where_no_terminal_is(monkeypatch, capsys):
    seconds = iter(range(0, 10_000, 25))
    monkeypatch.setattr(progress_module, "time", types.SimpleNamespace(monotonic=lambda: next(seconds)))
    assert list(progress_module.shown(range(10), 10, "fotw faces")) == list(range(10))
    assert capsys.readouterr().err.splitlines() == [
        "fotw faces: 2 of 10 images, 0.0 a second, 5 min 00 s left", "fotw faces: 5 of 10 images, 0.0 a second, 2 min 30 s left",
        "fotw faces: 8 of 10 images, 0.0 a second, 56 s left",
    ]
