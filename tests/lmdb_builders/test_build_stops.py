"""Builds and their worker processes that are stopped, killed or hang: nothing half done is left, and nobody waits."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import connection

import pytest

from lmdb_builders import pool


def start_long_build(celeba, tmp_path, root) -> subprocess.Popen:
    """The real command with two workers, in the middle of its work, in a process group of its own."""
    for table in [*celeba.glob("Anno/*"), *celeba.glob("Eval/*")]:  # many rows, so that there is a middle
        lines = table.read_text().splitlines()
        rows = [line for line in lines if line.startswith("000001.jpg")]
        table.write_text("\n".join(lines + [rows[0].replace("000001", f"9{i:05d}") for i in range(4000)]))
    for i in range(4000):
        os.link(celeba / "Img/img_celeba/000001.jpg", celeba / f"Img/img_celeba/9{i:05d}.jpg")
    command = [sys.executable, "-m", "lmdb_builders.build", "--celeba", str(celeba), "--output", str(tmp_path / "data"),
               "--workers", "2", "--crop", "scheme1"]
    process = subprocess.Popen(
        command, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        # A shell's background job ignores SIGINT and hands that on; the command is to see it as at a terminal.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("data/.building/scheme1/celeba_train/data.mdb")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def worker_of(process: subprocess.Popen) -> int:
    """Process id of one of its workers, which the first photo starts."""
    while process.poll() is None:
        children = " ".join(path.read_text() for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children"))
        for pid in children.split():
            if b"spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        time.sleep(0.02)
    raise AssertionError("the build has ended")


def assert_stopped(process: subprocess.Popen, data) -> None:
    """Exit status 130, one line, no staging folder, no worker."""
    try:
        _, error = process.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert error.strip().split("\n")[-1].startswith("build: stopped; nothing half-written is left")
    assert "Traceback" not in error
    assert {path.name for path in data.iterdir()} == {"detections", ".lock"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_stopping_leaves_nothing_half_done(celeba, tmp_path, root, number):
    process = start_long_build(celeba, tmp_path, root)
    os.killpg(process.pid, number)  # as a terminal and a cluster do: to the workers too
    assert_stopped(process, tmp_path / "data")


def test_ctrl_c_twice_while_workers_are_at_work(tmp_path, root):
    """As in the search for faces, where a task takes long: neither is waited for, and nothing hangs at the end."""
    code = """
import time
from lmdb_builders.pool import ordered_map
def work(task):
    if task:
        time.sleep(600)
    return task
if __name__ == "__main__":
    for _ in ordered_map(work, range(20), 2, chunk=1):
        print("ready", flush=True)
"""
    (tmp_path / "slow.py").write_text(code)
    process = subprocess.Popen([sys.executable, str(tmp_path / "slow.py")], env={**os.environ, "PYTHONPATH": str(root)},
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
                               preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        time.sleep(0.3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_worker_that_hangs_is_not_waited_for(celeba, tmp_path, root):
    process = start_long_build(celeba, tmp_path, root)
    worker = worker_of(process)
    os.kill(worker, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    assert_stopped(process, tmp_path / "data")
    assert not os.path.exists(f"/proc/{worker}")


def test_a_worker_that_is_killed_is_told_by_the_signal(celeba, tmp_path, root):
    process = start_long_build(celeba, tmp_path, root)
    worker = worker_of(process)
    os.kill(worker, signal.SIGBUS)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert re.search(r"build: a worker process was killed \(SIGBUS: .*\); run again with WORKERS=1 \(--workers 1\)\n$", error)


def test_the_worker_that_died_first_is_told_not_those_killed_for_it():
    workers = [pool._Worker(target=time.sleep, args=(60,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    os.kill(workers[1].pid, signal.SIGBUS)
    connection.wait([workers[1].sentinel], timeout=30)
    for worker in workers:  # as the executor does, and once more, as ordered_map does
        worker.terminate()
        worker.kill()
    for worker in workers:
        worker.join()
    assert [worker.exitcode == -signal.SIGBUS for worker in workers] == [False, True, False]
    assert pool._end(workers).startswith("was killed (SIGBUS")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_another_thread_gets_is_held_back_too(number):
    def stop(number, frame):
        raise KeyboardInterrupt

    before, done = signal.signal(number, stop), []
    other = threading.Thread(target=time.sleep, args=(1,))  # does not block it
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            with pool.uninterrupted():
                os.kill(os.getpid(), number)
                for _ in range(20):
                    time.sleep(0.01)
                done.append("all")
        assert done == ["all"] and signal.getsignal(number) is stop
        assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(number, before)
        other.join()


def test_ctrl_c_does_not_reach_a_worker_that_starts(tmp_path, root):
    """A worker is interrupted in its first moment, before any code of ours runs in it: it goes on, and says nothing."""
    code = """
import multiprocessing.popen_spawn_posix as spawn, os, signal
launch = spawn.Popen._launch
def launch_and_interrupt(self, process):
    launch(self, process)
    os.kill(self.pid, signal.SIGINT)
spawn.Popen._launch = launch_and_interrupt
from lmdb_builders.pool import ordered_map
if __name__ == "__main__":
    print(list(ordered_map(abs, range(-20, 0), 2)) == list(range(20, 0, -1)))
"""
    (tmp_path / "interrupted.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "interrupted.py")], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(root)}, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")
