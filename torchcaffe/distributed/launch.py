"""Start the processes that train one net on this machine: torchrun, called from here instead of from the shell."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import signal
import sys
import tempfile


# What usually sends a signal that a training dies of.
_CAUSES = {
    "SIGKILL": "by somebody, or by the system for lack of memory",
    "SIGBUS": "most often a file that it had mapped, such as an LMDB, was truncated or replaced in mid-run, or a disk or "
              "/dev/shm is full",
    "SIGSEGV": "a fault in a library in C or in a driver; lack of memory or a damaged installation can cause it, too",
    "SIGABRT": "a library has given up, most often after a message that is in its log",
    "SIGILL": "a library was built for another processor",
    "SIGFPE": "a fault in a library in C",
    "SIGXCPU": "its limit of processor time is used up (ulimit -t)",
    "SIGXFSZ": "a file has reached the limit of its size (ulimit -f)",
    "SIGTERM": "by somebody, or by the system that runs jobs here",
    "SIGHUP": "its terminal has gone away",
}  # fmt: skip


def signal_in_words(number: int) -> str:
    """A signal's name and, where one is known, what usually sends it."""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"{name}: {_CAUSES[name]}" if name in _CAUSES else name


def launch(arguments, count: int, signals=(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1), environment=None) -> int:
    """Run `python ARGUMENTS...` `count` times as the ranks of one training; 0, or the exit status of the first to fail.

    When a rank fails, the others are ended (SIGTERM). A rank that a signal has killed is named on stderr; others have
    said themselves what was wrong.

    Args:
        arguments: of Python: a script or "-m", "module", and what follows it.
        signals: handed on to all ranks, which decide what they mean.
        environment: variables for the ranks, added to ours.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.update(environment or {})
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else each lost connection is a page of C++ frames
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    logging.disable(logging.CRITICAL)  # torchrun's account of a failure is a page; ours is a line
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _handed_on(signals):
        options = ["--standalone", f"--nproc-per-node={count}", "--signals-to-handle=SIGQUIT", f"--log-dir={folder}"]
        try:
            torchrun.run(torchrun.parse_args([*options, "--no-python", sys.executable, *arguments]))
        except ChildFailedError as error:
            for rank, failure in sorted(error.failures.items()):
                if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which is what the others get
                    print(f"rank {rank} (process {failure.pid}) was killed ({signal_in_words(-failure.exitcode)})", file=sys.stderr)
            status = error.get_first_failure()[1].exitcode
            return status if status > 0 else 1
    return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _handed_on(signals):
    """For a while, these signals go to all our children: torchrun itself would end them after 30 seconds."""

    def hand_on(number, frame):
        for path in glob.glob("/proc/self/task/*/children"):
            with contextlib.suppress(OSError), open(path) as file:
                for child in file.read().split():
                    os.kill(int(child), number)

    before = {number: signal.signal(number, hand_on) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
