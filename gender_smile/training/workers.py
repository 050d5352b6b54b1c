"""Run trainings as commands of their own, several at a time, each as soon as the weights it starts from are there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Callable, List, Optional, Sequence

from common import environment
from common.command import STOP_SIGNALS
from gender_smile.training import chain, schemes
from common.progress import duration

POLL_SECONDS = 0.2
HANGING_SECONDS = 5.0  # after a second signal: a training that has not ended by then is killed
THREADS = "OMP_NUM_THREADS"  # PyTorch's and OpenBLAS's number of threads


class TrainingError(RuntimeError):
    """A training failed; it has said why."""


class Interrupted(Exception):
    """The trainings were asked to stop, and have."""


def train(rows: Sequence[chain.Row], jobs: int = 1, options: Sequence[str] = (), say: Callable = print,
          gpus: Sequence[int] = ()) -> None:
    """Do `rows`, at most `jobs` at a time, with `options` of tools/train.py added to each command.

    A row that is done takes its command a few seconds. `gpus`: numbers of GPUs, of which each training gets one of its
    own. With several jobs the cores are shared out between them (OMP_NUM_THREADS, unless it is set) and what they print
    is shown when they end. SIGINT, SIGTERM and SIGUSR1 are forwarded: each training takes a snapshot, from which the
    same call resumes. At SIGHUP each takes one and continues. When one fails, those that run are completed and no other
    starts. Raises TrainingError and Interrupted.
    """
    waiting, failed, stops = list(rows), [], []
    running: List[Job] = []
    free = list(gpus)

    def take_snapshots(number, frame):
        _signal(running, number)

    before = {number: signal.signal(number, lambda number, frame: stops.append(number)) for number in STOP_SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, take_snapshots)
    forwarded = 0
    hurry: Optional[float] = None  # when a stop at once was requested
    try:
        while running or (waiting and not failed and not stops):
            for _ in stops[forwarded:]:  # the first stops them with a snapshot, a second at once
                _signal(running, signal.SIGTERM)
            forwarded = len(stops)
            if len(stops) > 1:
                hurry = hurry or time.monotonic()
                if time.monotonic() - hurry > HANGING_SECONDS:
                    _signal(running, signal.SIGKILL)
            pending = {row.path(row.weights_out) for row in [*waiting, *(job.row for job in running)]}
            for row in list(waiting):
                possible = len(running) < jobs and (free or not gpus) and not failed and not stops
                if possible and row.path(row.weights_in or "") not in pending:
                    waiting.remove(row)
                    position = f"[{len(rows) - len(waiting)} of {len(rows)}]"
                    notes = ["--no-notes"] if len(rows) - len(waiting) > 1 else []  # the first has printed them
                    running.append(Job(row, jobs, [*options, *notes], say, position, free.pop(0) if gpus else None))
            ended = [job for job in running if job.process.poll() is not None]
            for job in ended:
                running.remove(job)
                free += [] if job.gpu is None else [job.gpu]
                if not job.ended(say):
                    failed.append(job)
            if not ended:
                time.sleep(POLL_SECONDS)
    except BaseException:  # a full disk, or a closed stdout: nobody would own those that run
        _signal(running, signal.SIGTERM)
        for job in running:
            job.process.wait()
        raise
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    if stops:
        raise Interrupted
    if failed:
        raise TrainingError(f"{failed[0].row.title} failed; fix the cause and type the same command again: it resumes there")


def _signal(running: Sequence[Job], number: int) -> None:
    for job in running:
        job.process.send_signal(number)


class Job:
    """The command that trains `row`, started; on GPU number `gpu` if given. `number`: such as "[5 of 17]"."""

    def __init__(self, row: chain.Row, jobs: int, options: Sequence[str], say: Callable, number: str = "",
                 gpu: Optional[int] = None):
        words = schemes.arguments(row, [*options, *(["--gpu", str(gpu)] if gpu is not None else [])])
        say(f"{number} $ {environment.as_typed(words)}")
        variables = dict(os.environ)
        self.output = tempfile.TemporaryFile("w+", errors="replace") if jobs > 1 else None
        if jobs > 1:
            variables.setdefault(THREADS, str(max(1, (os.cpu_count() or 1) // jobs)))
        self.row, self.number, self.gpu, self.began = row, number, gpu, time.monotonic()
        # In a new session: a Ctrl-C at the terminal reaches it through us only, once.
        self.process = subprocess.Popen([sys.executable, *words], cwd=row.root, env=variables, stdout=self.output,
                                        stderr=subprocess.STDOUT if jobs > 1 else None, start_new_session=True)

    def ended(self, say: Callable) -> bool:
        """True where the training succeeded; says what it has printed since its plan."""
        if self.output is not None:
            self.output.seek(0)
            lines: List[str] = [line for line in self.output.read().splitlines() if line.strip()]
            self.output.close()
            shown = lines[-1:] if self.process.returncode == 0 else lines[-5:]
            took = duration(time.monotonic() - self.began)
            say("\n".join(f"{self.number} {line}" for line in shown) + f" [{took}]")
        return self.process.returncode == 0
