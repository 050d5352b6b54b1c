"""What long work shows: a bar on a terminal; else lines with speed and time left, every ten minutes of a training, every
minute of other work."""

from __future__ import annotations

import os
import sys
import time
from typing import Iterable, Iterator, Optional

QUIET_SECONDS = 600.0  # between two lines where stderr is not a terminal; the first comes after a tenth of it
LINE_SECONDS = 60.0  # between two lines of `shown`


class Progress:
    """Progress of one step: `step` after each iteration, `test` after each test pass, `say` for anything else.

    total: iterations; first: where the run starts.
    """

    def __init__(self, title: str, total: int, first: int = 0, stream=None):
        self.title, self.total, self.first = title, total, first
        self.stream = stream or sys.stderr
        self.loss, self.accuracy, self.speed = None, None, None
        self.began = time.monotonic()
        self.next_line = self.began + QUIET_SECONDS / 10
        self.bar = None
        if self.stream.isatty():
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
            self.bar = tqdm(total=total, initial=first, desc=title, bar_format=form, file=self.stream,
                            **bar_size(self.stream))

    def step(self, iteration: int, loss: float, speed: Optional[float] = None):
        """An iteration done, with its loss and the images a second of late."""
        self.speed = speed
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss  # the bar shows a calm number
        if self.bar is not None:
            self.bar.set_postfix_str(self._numbers(), refresh=False)
            self.bar.update(iteration - self.bar.n)
        elif time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + QUIET_SECONDS
            self.say(f"{self.title}: {iteration} of {self.total}, {self._numbers()}, {self._pace(iteration)}")

    def test(self, iteration: int, loss: float, accuracy):
        """A test pass done."""
        self.accuracy = accuracy
        percent = "" if accuracy is None else f", accuracy {100 * accuracy:.2f} %"
        if self.bar is not None:
            self.bar.set_postfix_str(self._numbers())
        else:
            self.say(f"{self.title}: {iteration} of {self.total}, validation loss {loss:.4f}{percent}")

    def say(self, message: str):
        """A line of its own."""
        if self.bar is not None:
            self.bar.write(message, file=self.stream)
        else:
            print(message, file=self.stream, flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()

    def _numbers(self) -> str:
        text = "" if self.loss is None else f"loss {self.loss:.4f}"
        text = text if self.accuracy is None else f"{text}, accuracy {100 * self.accuracy:.2f} %"
        return text if self.speed is None else f"{text}, {self.speed:.1f} images/s"

    def _pace(self, iteration: int) -> str:
        done, seconds = max(1, iteration - self.first), time.monotonic() - self.began
        return f"{duration(seconds / done * (self.total - iteration))} left"


def bar_size(stream) -> dict:
    """tqdm's arguments for a bar as wide as the terminal `stream`; some terminals do not tell their size."""
    if min(os.get_terminal_size(stream.fileno())) > 0:
        return {"dynamic_ncols": True}
    return {"ncols": 100, "nrows": 20}


def duration(seconds: float) -> str:
    """Seconds as people say them: "42 s", "3 min 05 s", "2 h 07 min"."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def shown(answers: Iterable, total: int, title: str) -> Iterable:
    """The answers, one an image, with a bar on a terminal and with a line a minute elsewhere."""
    if not sys.stderr.isatty():
        return _lines(answers, total, title)
    from tqdm import tqdm

    return tqdm(answers, total=total, desc=title, unit=" images", **bar_size(sys.stderr))


def _lines(answers: Iterable, total: int, title: str) -> Iterator:
    began = last = time.monotonic()
    for done, answer in enumerate(answers):
        now = time.monotonic()
        if now - last >= LINE_SECONDS and done:
            last, rate = now, done / (now - began)
            print(f"{title}: {done} of {total} images, {rate:.1f} a second, {duration((total - done) / rate)} left",
                  file=sys.stderr, flush=True)
        yield answer
