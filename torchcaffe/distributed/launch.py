"""Start the ranks that train one net on this machine, with torchrun called in process."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import signal
import sys
import tempfile


# The usual cause of each signal that ends a training.
_CAUSES = {
    "SIGKILL": "sent by a user, or by the system because memory ran out",
    "SIGBUS": "usually a memory-mapped file, such as an LMDB, was truncated or replaced during the run, or a disk or "
              "/dev/shm is full",
    "SIGSEGV": "a bug in a C library or a driver, lack of memory, or a damaged installation",
    "SIGABRT": "a library aborted, usually after an error message in the log",
    "SIGILL": "a library was built for another processor",
    "SIGFPE": "a bug in a C library",
    "SIGXCPU": "the limit of CPU time is reached (ulimit -t)",
    "SIGXFSZ": "a file has reached the size limit (ulimit -f)",
    "SIGTERM": "sent by a user or by the job scheduler",
    "SIGHUP": "the terminal was closed",
}  # fmt: skip


def signal_in_words(number: int) -> str:
    """A signal's name and its usual cause, where one is known."""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"{name}: {_CAUSES[name]}" if name in _CAUSES else name


def launch(arguments, count: int, signals=(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1), environment=None) -> int:
    """Run `python ARGUMENTS...` `count` times as the ranks of one training; 0, or the exit status of the first to fail.

    When a rank fails, the others are terminated (SIGTERM). A rank that was killed by a signal is reported on stderr;
    other failures are reported by the rank itself.

    Args:
        arguments: of Python: a script or "-m", "module", and what follows it.
        signals: forwarded to all ranks, which handle them.
        environment: variables of the ranks, in addition to this process's.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.update(environment or {})
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # otherwise each lost connection prints a page of C++ frames
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    logging.disable(logging.CRITICAL)  # torchrun reports a failure in a page; this function in a line
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _forwarded(signals):
        options = ["--standalone", f"--nproc-per-node={count}", "--signals-to-handle=SIGQUIT", f"--log-dir={folder}"]
        try:
            torchrun.run(torchrun.parse_args([*options, "--no-python", sys.executable, *arguments]))
        except ChildFailedError as error:
            for rank, failure in sorted(error.failures.items()):
                if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # sent to the other ranks
                    cause = signal_in_words(-failure.exitcode)
                    print(f"rank {rank} (process {failure.pid}) was killed ({cause})", file=sys.stderr)
            status = error.get_first_failure()[1].exitcode
            return status if status > 0 else 1
    return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _forwarded(signals):
    """Forward these signals to all child processes: torchrun itself would end them after 30 seconds."""

    def forward(number, frame):
        for path in glob.glob("/proc/self/task/*/children"):
            with contextlib.suppress(OSError), open(path) as file:
                for child in file.read().split():
                    os.kill(int(child), number)

    before = {number: signal.signal(number, forward) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
