"""What a training run shows on the terminal: a bar with the time left or, where nobody watches, a line at times."""

from __future__ import annotations

import os
import sys
import time

QUIET_SECONDS = 30.0  # between two lines where stderr is not a terminal


class Progress:
    """Progress of one step: `step` after each iteration, `test` after each test pass, `say` for anything else."""

    def __init__(self, title: str, total: int, first: int = 0, stream=None):
        self.title, self.total, self.first = title, total, first
        self.stream = stream or sys.stderr
        self.loss, self.accuracy = None, None
        self.began = self.spoke = time.monotonic()
        self.bar = None
        if self.stream.isatty():
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
            self.bar = tqdm(total=total, initial=first, desc=title, bar_format=form, file=self.stream,
                            **bar_size(self.stream))

    def step(self, iteration: int, loss: float):
        """One iteration done, with its loss."""
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss  # the bar shows a calm number
        if self.bar is not None:
            self.bar.set_postfix_str(self._numbers(), refresh=False)
            self.bar.update(iteration - self.bar.n)
        elif time.monotonic() - self.spoke >= QUIET_SECONDS:
            self.say(f"{self.title}: {iteration} of {self.total}, {self._numbers()}, {self._left(iteration)} left")

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
        self.spoke = time.monotonic()
        if self.bar is not None:
            self.bar.write(message, file=self.stream)
        else:
            print(message, file=self.stream, flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()

    def _numbers(self) -> str:
        text = "" if self.loss is None else f"loss {self.loss:.4f}"
        return text if self.accuracy is None else f"{text}, accuracy {100 * self.accuracy:.2f} %"

    def _left(self, iteration: int) -> str:
        done = iteration - self.first
        seconds = (time.monotonic() - self.began) / max(1, done) * (self.total - iteration)
        return duration(seconds)


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
