"""A disk that fills or turns read-only while a step trains, for real: a small file system of memory is mounted.

Needs the right to mount; tests/gender_smile/test_chain.py has a limit on the size of files in its place everywhere.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from tiny_project import TINY, make_project

import recipe
from common import engine
from gender_smile.training import chain
from tools import train

FAKE = engine.Interpreter("fake_caffe", "a fake", (sys.executable,), {
    "PYTHONPATH": os.pathsep.join([recipe.ROOT, sys.path[0]])})  # fmt: skip


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """(project in which step 1 is done, its runs/, a disk of its own)."""
    make_project(str(tmp_path))
    train.run(chain.rows(TINY, ["gnet"], [1], root=str(tmp_path)), FAKE, say=print)
    runs = tmp_path / "runs"
    runs.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(runs))
    yield tmp_path, runs
    subprocess.run(["umount", "-l", str(runs)], check=True)


def fill(runs):
    with open(runs / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_stops_the_run_and_the_snapshot_before_is_kept_and_named(disk, monkeypatch):
    project, runs = disk
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    row, = chain.rows(TINY, ["gnet"], [2], root=str(project), max_iter=40)

    def later():
        while not (runs / "tiny/step2_scheme3/snapshot_iter_2.json").exists():
            time.sleep(0.005)
        fill(runs)

    thread = threading.Thread(target=later, daemon=True)  # a test that fails must not wait for it
    thread.start()
    with pytest.raises(chain.ChainError, match="No space left on device") as error:
        train.run([row], FAKE, say=print)
    thread.join()
    (runs / "filler").unlink()
    newest = max(chain.snapshots(row))[0]
    assert f"snapshot_iter_{newest}" in str(error.value), error.value
    said = []
    train.run([row], FAKE, say=said.append)
    assert any(f"from iteration {newest}" in line for line in said) and chain.state(row).kind == "done"


def test_a_read_only_folder_is_named_before_anything_is_trained(disk):
    project, runs = disk
    subprocess.run(["mount", "-o", "remount,ro", str(runs)], check=True)
    with pytest.raises((chain.ChainError, OSError), match="Read-only file system: .*runs/tiny"):
        train.run(chain.rows(TINY, ["gnet"], [2], root=str(project)), FAKE, say=print)
