"""Two ranks on the CPU against one process, what they agree on, what only rank 0 does, and the death of one."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
import ranks_job
import torch
from PIL import Image

import torchcaffe as caffe
from torchcaffe.distributed import parallel, reducer
from torchcaffe.core.blob import parameter
from torchcaffe.proto import caffe_pb2
from torchcaffe.distributed.shares import Share, uneven

START = """import signal, sys
from torchcaffe.distributed.launch import launch
sys.exit(launch(sys.argv[2:], int(sys.argv[1]), (signal.SIGHUP,)))
"""


def launched(count, *arguments, stderr=None, **variables):
    """A process that starts `count` ranks of `python ARGUMENTS...`, with `variables` in their environment."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", START, str(count), *arguments]
    return subprocess.Popen(command, env=environment, text=True, stderr=stderr)


@pytest.fixture(scope="module", params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("gpu", marks=pytest.mark.gpu)])
def results(request, tmp_path_factory):
    """{"alone", "rank0", "rank1"}: what ranks_job found."""
    if request.param == "gpu" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    folder = tmp_path_factory.mktemp("ranks")
    random = np.random.default_rng(0)
    with lmdb.open(str(folder / "lmdb")) as environment, environment.begin(write=True) as transaction:
        for index in range(ranks_job.RECORDS):
            image = random.integers(0, 256, (3, 12, 12), dtype=np.uint8)
            datum = caffe_pb2.Datum(channels=3, height=12, width=12, data=image.tobytes(), label=index % 5)
            transaction.put(b"%08d" % index, datum.SerializeToString())
    with h5py.File(folder / "rows.h5", "w") as file:
        file["rows"] = np.arange(10, dtype=np.float32)
    (folder / "hdf5.txt").write_text(str(folder / "rows.h5"))
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    (folder / "images.txt").write_text("".join(f"{index}.png {index}\n" for index in range(6)))
    script = str(Path(ranks_job.__file__))
    process = launched(2, script, str(folder), request.param)
    environment = {**os.environ, "PYTHONPATH": str(Path(script).parents[2]), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, script, str(folder), request.param], env=environment).returncode == 0
    assert process.wait(60) == 0
    found = {name: pickle.loads((folder / f"{name}.pickle").read_bytes()) for name in ("alone", "rank0", "rank1")}
    return {**found, "folder": folder, "close": 1e-5 if request.param == "cpu" else 1e-3}


def both(results, name):
    return results["rank0"][name], results["rank1"][name]


def distance(found, expected):
    """Largest difference of two sets of weights, relative to the scale of each blob."""
    return max(np.abs(found[name] - array).max() / np.abs(array).max() for name, array in expected.items())


def test_two_ranks_learn_what_one_process_learns(results):
    alone = results["alone"]["train"]["weights"]
    for found in both(results, "train"):
        assert distance(found["weights"], alone) < results["close"]
    first, second = (found["weights"] for found in both(results, "train"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def shown(log, words):
    return [float(number) for number in re.findall(rf"{words} = ([-+.\de]+)", log)]


def test_rank_0_alone_logs_the_whole_batches_numbers_and_tests(results):
    alone = results["alone"]["train"]["log"]
    first, second = (found["log"] for found in both(results, "train"))
    outputs = ("Train net output #0: loss", "Train net output #1: sum", "Test net output #0: loss")
    for words in (r"iters\), loss", *outputs):
        expected = shown(alone, words)
        assert len(expected) in (2, 3, 4) and shown(first, words) == pytest.approx(expected, rel=1e-4)
    assert 0 < first.count("Gradient clipping") == alone.count("Gradient clipping") < 20
    assert first.count("Snapshotting to") == 3 and "Optimization Done." in first
    assert second == ""


def test_gradients_travel_during_the_backward_pass(results):
    for found in both(results, "train"):
        assert found["buckets"] >= 3
        assert found["sent"] == [True] * 20 * found["buckets"]


def test_two_ranks_that_compile_learn_what_one_process_learns(results):
    for name in ("alone", "rank0", "rank1"):
        found, failed = results[name]["compiled"]
        assert not failed and distance(found, results["alone"]["train"]["weights"]) < results["close"]


def test_shares_together_are_the_batch_record_for_record_and_draw_for_draw(results):
    for whole, first, second in zip(results["alone"]["shares"], *both(results, "shares")):
        for blob, ours, theirs in zip(whole, first, second):
            assert len(ours) == len(theirs) == len(blob) // 2
            np.testing.assert_array_equal(np.concatenate([ours, theirs]), blob)


def test_a_rank_reads_its_own_records_only(results):
    half = ranks_job.BATCH // 2
    for rank, keys in enumerate(both(results, "read_only_ours")):
        expected = [position for position in range(200) if position // half % 2 == rank]
        assert len(keys) >= 3 * half
        assert keys == [b"%08d" % (position % ranks_job.RECORDS) for position in expected[: len(keys)]]


def test_a_stop_that_one_rank_is_asked_for_stops_all_after_the_same_iteration(results):
    assert results["alone"]["stop"] == (4, True)
    iterations = {found[0] for found in both(results, "stop")}
    assert len(iterations) == 1 and iterations <= {4, 5}
    assert results["rank0"]["stop"][1] and not results["rank1"]["stop"][1]  # rank 1 has no log
    files = {path.name for path in results["folder"].glob("stop_iter_*")}
    assert files >= {f"stop_iter_{iterations.pop()}.solverstate"}


def test_ranks_go_on_from_a_snapshot_with_the_records_and_draws_that_come_next(results):
    for expected, *found in zip(results["alone"]["resume"], *both(results, "resume")):
        assert len(set(expected)) == 6
        for losses in found:
            assert losses == pytest.approx(expected, rel=1e-4)


def test_an_uneven_split_is_refused(results):
    assert results["alone"]["uneven"] == 0
    for message in both(results, "uneven"):
        assert 'layer "data" (Data): batch_size 7 cannot be split evenly over 2 ranks: ' in message
        assert "give batch_size 6 or 8, or another number of ranks" in message


def test_uneven_names_only_sizes_that_exist():
    assert "give batch_size 4, or another" in uneven(3, 4)


def test_nccl_averages_batches_of_batch_size_a_rank(results):
    """Caffe deals records in turn: half of every second record and half of the others make the batch of one process."""
    for found in both(results, "caffes_way"):
        assert distance(found, results["alone"]["caffes_way"]) < results["close"]


def test_draws_are_the_whole_batches():
    draws = np.random.default_rng(1).random((6, 2))
    parts = [Share(rank, 3, True).of_batch(lambda shape: draws[: shape[0]], (2, 2)) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), draws)


# ---- the reducer, with a group of one


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_gradient_that_backward_does_not_reach_counts_as_zero(group):
    used, unused, fixed = (parameter(np.ones(3, np.float32)) for _ in range(3))
    for blob in (used, unused):
        blob.data_memory.tensor.requires_grad_()
    averages = reducer.Reducer([used, unused, fixed], 2)
    for round in range(2):
        averages.arm()
        (3 * used.data_memory.tensor).sum().backward()
        used.put_diff(used.data_memory.tensor.grad)
        used.data_memory.tensor.grad = None
        averages.finish()
        np.testing.assert_array_equal(used.diff, [1.5] * 3)  # a sum over one rank, divided by two
        np.testing.assert_array_equal(unused.diff, [0] * 3)
        used.diff_memory.clear()


def test_buckets_hold_runs_of_parameters_from_the_last():
    blobs = [parameter(np.zeros(size, np.float32)) for size in (1, 1, 4, 2, 1)]
    parts = reducer._parts(list(reversed(blobs)), 12)
    assert [[blob.count for blob in part] for part in parts] == [[1, 2], [4], [1, 1]]


# ---- waiting, and the death of a rank


def test_waiting_for_rank_0_has_no_limit(monkeypatch):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    waits = []

    class Slow:
        def wait(self, keys, limit):
            waits.append(limit)
            store.set(keys[0], "done") if len(waits) == 3 else None
            store.wait(keys, parallel.timedelta(milliseconds=10))

        get = store.get

    assert parallel.wait_for(Slow(), "key") == b"done" and len(waits) == 3


@pytest.mark.slow
def test_death_of_a_rank_ends_the_training(tmp_path):
    """Before it, a SIGHUP reaches all ranks: one snapshot, after which they go on."""
    net = ranks_job.PLAIN.format(lmdb=tmp_path / "lmdb", batch=4)
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", caffe_pb2.Datum(channels=1, height=1, width=2, data=b"ab").SerializeToString())
    (tmp_path / "net").write_text(net)
    (tmp_path / "solver").write_text(
        f'net: "{tmp_path}/net" base_lr: 0.01 lr_policy: "fixed" max_iter: 100000000 display: 1 '
        f'snapshot_prefix: "{tmp_path}/s" '
    )
    process = launched(2, "-m", "torchcaffe", "train", "-solver", str(tmp_path / "solver"), stderr=subprocess.PIPE,
                       GLOG_minloglevel="0")  # fmt: skip

    def read_until(words):
        for line in process.stderr:
            if words in line:
                return
        raise AssertionError(f"the log ended before {words!r}")

    watchdog = threading.Timer(40, process.kill)
    watchdog.start()
    try:
        read_until("Iteration 3 (")
        process.send_signal(signal.SIGHUP)
        read_until("Snapshotting solver state")
        read_until(", lr = ")
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        ranks = [int(pid) for path in children for pid in path.read_text().split()]
        victim = next(pid for pid in ranks if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(victim, signal.SIGKILL)
        errors = process.communicate(timeout=30)[1]
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert f"rank 1 (process {victim}) was killed (SIGKILL: " in errors
    assert "another of the 2 ranks has ended or cannot be reached" in errors and "Traceback" not in errors
    newest, = tmp_path.glob("s_iter_*.solverstate")
    solver = caffe.get_solver(str(tmp_path / "solver"))
    solver.restore(str(newest))  # whole, with its weights
    solver.step(1)
