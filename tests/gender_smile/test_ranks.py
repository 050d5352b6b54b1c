"""A step trained by two processes through tools/train.py's own parts: equal to one, killed, gone on with, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from tiny_project import TINY, make_project

import recipe
from common import engine, files
from gender_smile.training import chain, metrics, ranks, run_files
from tools import train

DRIVER = recipe.absolute("tests/support/ranks_driver.py")
START = "import sys; from torchcaffe.distributed.launch import launch; sys.exit(launch(sys.argv[1:], 2))"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("project"))
    make_project(root)
    return root


@pytest.fixture(scope="module")
def begun(project) -> str:
    """The project with step 1 done."""
    train.run(chain.rows(TINY, ["gnet"], [1], root=project), engine.interpreter("torch"), say=lambda line: None)
    return project


def start(root, steps, max_iter):
    environment = {**os.environ, "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": os.pathsep.join([recipe.ROOT, os.path.dirname(DRIVER)])}
    return subprocess.Popen([sys.executable, "-c", START, DRIVER, root, steps, str(max_iter)], text=True,
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def row_of(root, step, max_iter, **options):
    return chain.rows(TINY, ["gnet"], [step], root=root, max_iter=max_iter, **options)[0]


def children(pid):
    return [int(child) for task in os.listdir(f"/proc/{pid}/task")
            for child in open(f"/proc/{pid}/task/{task}/children").read().split()]


def command(pid):
    return open(f"/proc/{pid}/cmdline").read().split("\0")


def environment_of(pid):
    return open(f"/proc/{pid}/environ").read().split("\0")


def wait_for_iteration(row, iteration, process):
    end = time.monotonic() + 60
    while not any(line["iteration"] >= iteration for line in metrics.read(row.path(f"{row.folder}/metrics.csv"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_rank_is_named_and_the_same_command_goes_on(begun):
    row = row_of(begun, 2, 400)
    process = start(begun, "2", 400)
    wait_for_iteration(row, 5, process)
    follower, = (pid for rank in children(process.pid) for pid in children(rank) if "--follow" in command(pid))
    os.kill(follower, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "train: rank 1 was killed (SIGKILL" in output and "Traceback" not in output
    iteration = chain.newest_snapshot(row, None)["iteration"]
    assert f"step 2, scheme3: rank 1 was killed (SIGKILL: sent by a user, or by the system because memory ran out); the " \
           f"snapshot of iteration {iteration} is kept" in output
    process = start(begun, "2", 400)
    wait_for_iteration(row, iteration + 2, process)
    other = next(pid for pid in children(process.pid) if "RANK=1" in environment_of(pid))
    os.kill(other, signal.SIGTERM)  # one is told to stop, and all do
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"resumes from iteration {iteration}" in output and "stopped; the same command resumes from" in output


@pytest.mark.slow
def test_two_steps_by_two_ranks_give_the_numbers_of_one(begun):
    shutil.rmtree(os.path.join(begun, "runs/tiny/step2_scheme3"), ignore_errors=True)  # what the test above has left
    process = start(begun, "23", 4)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert "engine: torchcaffe on 2 processes" in output
    for row in (row_of(begun, 2, 4), row_of(begun, 3, 4)):
        assert files.read_json(row.path(row.weights_out) + ".json")["ranks"] == 2
        with open(row.path(f"{row.folder}/train.log")) as stream:
            assert stream.read().count("Solving step") == 1  # rank 0's, and no other's
    alone = row_of(begun, 3, 4, variant="alone", start=row_of(begun, 2, 4).weights_out)  # what the ranks made of step 2
    train.run([alone], engine.interpreter("torch"), say=lambda line: None)
    for name, rows in (("train_loss", 4), ("val_loss", 3)):
        expected, found = ([line[name] for line in metrics.read(each.path(f"{each.folder}/metrics.csv"))
                            if line[name] is not None] for each in (alone, row))
        assert len(found) == rows and found == pytest.approx(expected, rel=1e-4)


def test_uneven_split_is_refused_before_anything_starts(project):
    leader = SimpleNamespace(count=3, check=None)
    row = row_of(project, 2, 4)
    words = "step 2, scheme3: batch_size 8 cannot be split evenly over 3 ranks: give batch_size 6 or 9, .*BATCH="
    with pytest.raises(chain.ChainError, match=words):
        ranks.Leader.check(leader, row, run_files.definitions(row)[1])


@pytest.mark.parametrize("environment, gpus, processes, expected", [
    ({}, None, None, 1), ({}, 4, None, 4), ({}, None, 2, 2),
    ({"RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 4, None, 8),
    ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, None, None, 1),
])
def test_number_of_ranks(monkeypatch, environment, gpus, processes, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ranks.count(SimpleNamespace(gpus=gpus, processes=processes)) == expected


def test_torchruns_processes_are_told_what_to_compute_on(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    for gpus in (None, 2):
        with pytest.raises(chain.ChainError, match="torchrun started 4 processes on this machine.*--gpus 4 .GPUs 0 to"):
            ranks.count(SimpleNamespace(gpus=gpus, processes=None))


def test_a_rank_told_to_stop_before_it_has_a_job_tells_the_others(monkeypatch):
    said = {}
    store = SimpleNamespace(compare_set=lambda key, old, new: said.setdefault(key, new).encode())
    start_process = subprocess.Popen
    monkeypatch.setattr(ranks, "_store", lambda *_: store)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: start_process(["sleep", "30"]))
    monkeypatch.setenv("RANK", "1")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert ranks._follow_one(0, "", ".") == ranks.STOPPED
    assert said == {ranks.FAILED: "rank 1 was told to stop"}


@pytest.mark.parametrize("arguments, message", [
    (["--gpus", "3"], "GPUS=3: PyTorch can use 2 GPUs of this machine"),
    (["--gpus", "2", "--engine", "caffe"], "real Caffe trains on several GPUs by itself"),
])
def test_what_cannot_be_started(monkeypatch, capsys, arguments, message):
    import torch

    from torchcaffe.distributed import launch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("started"))
    assert train.main(["--step", "2", *arguments]) == 1
    assert message in capsys.readouterr().err
