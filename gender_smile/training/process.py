"""The process that trains: started with a log, its events handed on, its signals passed through, its end explained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Callable, List, Optional, Sequence

from common import command, files
from gender_smile.training import chain


class Stopped(Exception):
    """The user stopped the training; the message says how to resume it."""


def run(row: chain.Row, job: str, interpreter, header: Sequence[str], on_event: Callable, say: Callable,
        lock: Optional[int] = None):
    """Run solve.py on the file `job` and give each of its events (a dict) to `on_event`.

    The log goes to train.log in the row's run folder, after the lines of `header`. SIGINT, SIGTERM and SIGUSR1 are
    forwarded: the first stops the process with a snapshot, a second one ends it at once. SIGHUP makes it take a
    snapshot. The process inherits the file descriptor `lock`, and so holds the lock too. Raises chain.ChainError with
    the reason when it fails, and Stopped when it was stopped.
    """
    log = row.path(os.path.join(row.folder, "train.log"))
    try:
        files.check_writable(row.path(row.weights_out))  # where the result goes when hours have passed
    except OSError as error:
        raise chain.ChainError(f"{row.title}: {row.weights_out}: {error.strerror}") from error
    end = None
    told = "stopping after this iteration, with a snapshot (once more: at once, without one)"
    with command.forward_signals(lambda: _start(row, job, interpreter, header, log, lock), lambda: say(told)) as (process, stops):
        assert process.stdout is not None  # _start pipes it
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
    if end is not None and end["status"] == "stopped" or stops and end is None:  # perhaps another rank was told to stop
        snapshot = chain.newest_snapshot(row, None)
        place = f"from iteration {snapshot['iteration']} (without FORCE)" if snapshot else "from the start"
        raise Stopped(f"{row.title}: stopped; the same command resumes {place}")
    raise chain.ChainError(f"{row.title}: {reason(row, end, status)}")


def _start(row: chain.Row, job: str, interpreter, header: Sequence[str], path: str, lock: Optional[int]):
    with open(path, "a", encoding="utf-8") as log:
        log.writelines(f"# {line}\n" for line in header)
        log.flush()
        # In a new session: a Ctrl-C at the terminal reaches it through us only, once.
        environment = {**interpreter.environ(), "GLOG_minloglevel": "0"}  # the log is whole, whatever the caller wants
        return subprocess.Popen([*interpreter.command, "-m", "gender_smile.training.solve", job], cwd=row.root, text=True,
                                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                pass_fds=() if lock is None else (lock,), start_new_session=True)


def reason(row: chain.Row, end: Optional[dict], status: int) -> str:
    """One line on why the process failed: its own message, or the last fatal line of its log (Caffe aborts)."""
    from torchcaffe.distributed.launch import signal_in_words

    log = os.path.join(row.folder, "train.log")
    if end and end.get("message"):
        message = end["message"].strip().splitlines()[0]
    else:
        lines = _last_lines(row.path(log))
        fatal = [line.split("] ", 1)[1] for line in lines if line.startswith("F") and "] " in line]
        if status < 0 and not (fatal and status == -signal.SIGABRT):
            who = f"rank {os.environ['RANK']}" if "RANK" in os.environ else "the process that trains"
            message = f"{who} was killed ({signal_in_words(-status)})"
        else:
            message = (fatal or lines or ["no message"])[-1] + f" (exit status {status})"
            if "CPU-only Caffe" in message:
                message = ("this Caffe was built without CUDA: leave out GPU= (--gpu) to compute on the CPU, or name the Python "
                           f"of one that was built with it (CAFFE_PYTHON=path); Caffe says: {message}")
    return f"{message}{kept(row)} (log: {log})"


def _last_lines(log: str) -> List[str]:
    """The last lines of a run's log that this start of it has written."""
    with open(log, encoding="utf-8", errors="replace") as stream:
        lines = [line.strip() for line in stream.readlines()[-200:] if line.strip()]
    heads = [number for number, line in enumerate(lines) if line.startswith("# ")]
    return lines[heads[-1] + 1:] if heads else lines


def kept(row: chain.Row) -> str:
    """What to add to the message of a failure: the newest whole snapshot, from which the same command resumes."""
    snapshot = chain.newest_snapshot(row, None)
    return f"; the snapshot of iteration {snapshot['iteration']} is kept ({snapshot['state']})" if snapshot else ""
