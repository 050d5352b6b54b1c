"""The process in which an engine works for a step: started, listened to, stopped, and asked why it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import Callable, List, Optional, Sequence

from common import files
from gender_smile.training import chain
from gender_smile.training.solving import STOP_SIGNALS

STOPPED = 130  # exit status of gender_smile/training/solve.py after a signal


class Stopped(Exception):
    """The user stopped the training; the message says how it goes on."""


def run(row: chain.Row, job: str, interpreter, header: Sequence[str], on_event: Callable, say: Callable,
        lock: Optional[int] = None):
    """Run gender_smile/training/solve.py on the file `job` and give each of its events (a dict) to `on_event`.

    The log goes to train.log in the row's run folder, after the lines of `header`. SIGINT, SIGTERM and SIGUSR1 are
    handed on once, which stops the process with a snapshot; a second one ends it at once. SIGHUP makes it take a snapshot. The file
    descriptor `lock` is handed to the process, so that what it holds is held as long as either of us lives. Raises
    chain.ChainError with the reason where it fails, and Stopped where it was stopped.
    """
    log = row.path(os.path.join(row.folder, "train.log"))
    try:
        files.check_writable(row.path(row.weights_out))  # where the result goes when hours have passed
    except OSError as error:
        raise chain.ChainError(f"{row.title}: {row.weights_out}: {error.strerror}") from error
    end = None
    told = "stopping after this iteration, with a snapshot (once more: at once, without one)"
    with handing_on(lambda: _start(row, job, interpreter, header, log, lock), lambda: say(told)) as (process, asked):
        try:
            for line in process.stdout:
                event = json.loads(line)
                end = event if event["event"] == "end" else end
                on_event(event)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.stdout.close()
            status = process.wait()
    if status == 0:
        return
    if end is not None and end["status"] == "stopped" or asked and end is None:  # perhaps another rank was asked
        snapshot = chain.newest_snapshot(row, None)
        place = f"from iteration {snapshot['iteration']} (without FORCE)" if snapshot else "from the start"
        raise Stopped(f"{row.title}: stopped; the same command goes on {place}")
    raise chain.ChainError(f"{row.title}: {reason(row, end, status)}")


def _start(row: chain.Row, job: str, interpreter, header: Sequence[str], path: str, lock: Optional[int]):
    with open(path, "a", encoding="utf-8") as log:
        log.writelines(f"# {line}\n" for line in header)
        log.flush()
        # A session of its own: a Ctrl-C at the terminal reaches it through us only, once.
        environment = {**interpreter.environ(), "GLOG_minloglevel": "0"}  # the log is whole, whatever the caller wants
        return subprocess.Popen([*interpreter.command, "-m", "gender_smile.training.solve", job], cwd=row.root, text=True,
                                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                pass_fds=() if lock is None else (lock,), start_new_session=True)


def reason(row: chain.Row, end: Optional[dict], status: int) -> str:
    """One line on why the process failed: its own message, or the last fatal line of its log (Caffe aborts)."""
    log = os.path.join(row.folder, "train.log")
    if end and end.get("message"):
        message = end["message"].strip().splitlines()[0]
    else:
        lines = _last_lines(row.path(log))
        fatal = [line.split("] ", 1)[1] for line in lines if line.startswith("F") and "] " in line]
        if status < 0 and not (fatal and status == -signal.SIGABRT):
            who = f"rank {os.environ['RANK']}" if "RANK" in os.environ else "the process that trains"
            message = f"{who} {killed(status)}"
        else:
            message = (fatal or lines or ["no message"])[-1] + f" (exit status {status})"
    return f"{message}{kept(row)} (log: {log})"


def _last_lines(log: str) -> List[str]:
    """The last lines of a run's log that this start of it has written."""
    with open(log, encoding="utf-8", errors="replace") as stream:
        lines = [line.strip() for line in stream.readlines()[-200:] if line.strip()]
    heads = [number for number, line in enumerate(lines) if line.startswith("# ")]
    return lines[heads[-1] + 1:] if heads else lines


def kept(row: chain.Row) -> str:
    """What to add to the message of a failure: the newest whole snapshot, from which the same command goes on."""
    snapshot = chain.newest_snapshot(row, None)
    return f"; the snapshot of iteration {snapshot['iteration']} is kept ({snapshot['state']})" if snapshot else ""


def killed(status: int) -> str:
    """What became of a process with a negative exit status."""
    from torchcaffe.distributed.launch import signal_in_words

    return f"was killed ({signal_in_words(-status)})"


@contextlib.contextmanager
def handing_on(start: Callable, on_stop: Callable = lambda: None, at_once: Callable = subprocess.Popen.kill):
    """Start a process and hand our signals on to it for a while; yields (process, list of STOP_SIGNALS so far).

    The first of these stops it with SIGTERM, and calls `on_stop`; the second calls `at_once` on it, others kill it.
    SIGHUP goes on as it is.
    """
    process, asked = None, []

    def hand_on(number, frame):
        if number == signal.SIGHUP:
            if process is not None:
                process.send_signal(number)
            return
        asked.append(number)
        if len(asked) == 1:
            on_stop()
        if process is not None:
            (process.terminate, lambda: at_once(process), process.kill)[min(len(asked), 3) - 1]()

    before = {n: signal.signal(n, hand_on) for n in (*STOP_SIGNALS, signal.SIGHUP)}
    try:
        process = start()
        if asked:  # while it was started
            process.terminate()
        yield process, asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
