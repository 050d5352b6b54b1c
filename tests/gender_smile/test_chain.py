"""The whole chain, tiny, for real: synthetic crops in LMDBs, step 1 to step 4 in torchcaffe, stopped and resumed."""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import signal
import subprocess
import sys
import termios
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_project import LONG, TINY, make_project

import recipe
from common import engine, files
import torchcaffe
from gender_smile.training import chain, metrics, origin, run_files, status
from lmdb_builders import embeddings
from tools import train
from torchcaffe.formats import files as caffe_files


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("project"))
    make_project(root)
    return root


def run(root, steps, profile=TINY, **options):
    """Run `steps` of GNet; returns (messages, rows)."""
    said = []
    rows = chain.rows(profile, ["gnet"], steps, root=root, **options)
    train.run(rows, engine.interpreter("torch"), header=["a test"], say=said.append)
    return said, rows


def test_four_steps_then_nothing_to_do(project, tmp_path):
    _, rows = run(project, [1, 2, 3, 4])
    for row in rows:
        record = files.read_json(row.path(row.weights_out) + ".json")
        assert record["sha256"] == files.sha256_of(row.path(row.weights_out))
        assert chain.state(row).kind == "done"
    assert [told(row) for row in rows] == [([], False), (["CelebA"], False), (["CelebA"], False), (["CelebA", "FotW"], False)]
    last = rows[-1]
    assert record["iteration"] == 6 and 0.0 <= record["accuracy"] <= 1.0
    assert record["engine"].startswith("torchcaffe") and record["seed"] == TINY.random_seed
    learned = {layer.name for layer in caffe_files.read_weights(last.path(last.weights_out)) if layer.blobs}
    assert learned >= {"conv1_1", "fc7", "fc8_gender"} and "fc8_attributes" not in learned
    numbers = metrics.read(last.path(f"{last.folder}/metrics.csv"))
    assert [row["iteration"] for row in numbers] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["iteration"] for row in numbers if row["val_accuracy"] is not None] == [0, 3, 6]
    metrics.draw(numbers, str(tmp_path / "again.png"), f"{last.title} (tiny)")
    found, expected = (np.asarray(Image.open(path), int) for path in (last.path(f"{last.folder}/curve.png"), tmp_path / "again.png"))
    assert np.abs(found - expected).mean() < 0.01  # the curve is of these numbers
    with open(last.path(f"{last.folder}/train.log")) as stream:
        log = stream.read()
    assert log.startswith("# a test\n") and "Solving step 4, GNet" in log
    assert "Test net output #0: accuracy = " in log and ", lr = 0.0001" in log
    times = [os.path.getmtime(row.path(row.weights_out)) for row in rows]
    said, _ = run(project, [1, 2, 3, 4])
    assert len(said) == 4 and all("done" in line for line in said)
    assert times == [os.path.getmtime(row.path(row.weights_out)) for row in rows]


def test_step_1_learns_what_a_teacher_gives(tmp_path):
    profile = replace(TINY, teacher=replace(recipe.DLIB, max_iter=4, test_interval=2))
    root = str(tmp_path)
    make_project(root, profile)
    (row,) = chain.rows(profile, ["snet1"], [1], root=root)  # one net for all, whichever net it is asked for
    with pytest.raises(chain.ChainError, match="make embeddings PROFILE=tiny CELEBA=path FOTW=path"):
        run(root, [1], profile)
    generator = np.random.default_rng(3)
    for part, path in row.databases.items():
        if part.endswith("_labels"):
            keys = embeddings.face_keys(row.path(row.databases[part.removesuffix("_labels")]), profile)
            numbers = {embeddings.image_of(key): generator.normal(size=recipe.DLIB.numbers + recipe.SHAPE) for key in keys}
            embeddings.write(row.path(path), keys, numbers)
    _, rows = run(root, [1, 2], profile)
    record = files.read_json(row.path(row.weights_out) + ".json")
    assert (record["iteration"], record["trained_on"], record["teacher"]) == (4, ["CelebA", "FotW"], recipe.DLIB.title)
    assert record["inputs"]["batch size"] == str(profile.batch_size)  # of both data sets together
    assert record["inputs"].keys() >= {row.weights_in, *(path for part, path in row.databases.items() if part.startswith("train"))}
    assert files.read_json(rows[-1].path(rows[-1].weights_out) + ".json")["teacher"] == recipe.DLIB.title  # told on
    before, after = ({layer.name: layer.blobs[0].data for layer in caffe_files.read_weights(row.path(path)) if layer.blobs}
                     for path in (row.weights_in, row.weights_out))
    assert all(np.any(before[name].ravel() != after[name].ravel()) for name in before.keys() - {"fc8"})
    job = files.read_json(row.path("runs/tiny/step2_scheme3/job.json"))
    assert job["weights"] == row.weights_out and len(job["expected"]) == 15
    assert all("done" in line for line in run(root, [1, 2], profile)[0])


def told(row) -> tuple:
    """What the record of a row's weights says of the faces."""
    record = files.read_json(row.path(row.weights_out) + ".json")
    return record["trained_on"], record["drawn"]


def test_a_batch_in_passes_gives_the_same_weights(project, tmp_path, monkeypatch):
    """Crops, mirroring and a snapshot in between; without Dropout, whose masks are drawn pass by pass."""
    run(project, [1])
    row, = chain.rows(TINY, ["gnet"], [2], root=project)

    def trained(*parts):
        """Weights after all of `parts`, (passes, iterations), each resuming from the snapshot of the one before."""
        for passes, stop in parts:
            solver_proto, net = run_files.definitions(row, passes)
            for layer in net.layer:
                if layer.type == "Dropout":
                    layer.dropout_param.dropout_ratio = 0
            solver_proto.net, solver_proto.snapshot_prefix = str(tmp_path / "net"), str(tmp_path / "snapshot")
            solver_proto.ClearField("snapshot")
            solver_proto.test_interval = 1000
            solver_proto.test_initialization = False
            (tmp_path / "net").write_text(str(net))
            (tmp_path / "solver").write_text(str(solver_proto))
            solver = torchcaffe.get_solver(str(tmp_path / "solver"))
            if stop == parts[0][1]:
                solver.net.copy_from(row.weights_in)
            else:
                solver.restore(str(tmp_path / f"snapshot_iter_{parts[0][1]}.solverstate"))
            solver.step(stop - solver.iter)
            solver.snapshot()
        return {name: [np.array(blob.data) for blob in blobs] for name, blobs in solver.net.params.items()}

    monkeypatch.chdir(project)
    monkeypatch.setenv("GLOG_minloglevel", "2")
    start, expected = trained((None, 0)), trained((None, 8))
    for found in (trained((4, 8)), trained((2, 3), (8, 8)), trained((4, 3), (None, 8))):
        for name, arrays in expected.items():
            for ours, theirs, before in zip(arrays, found[name], start[name]):  # to how far the weights have gone
                assert np.linalg.norm(ours - theirs) <= 1e-2 * np.linalg.norm(ours - before), name


@pytest.mark.parametrize("celeba, fotw, expected", [
    (True, True, [(["drawn faces"], True), (["drawn faces"], True)]),
    (True, False, [(["drawn faces"], True), (["drawn faces", "FotW"], False)]),
    (False, True, [(["CelebA"], False), (["CelebA", "drawn faces"], True)]),
    (False, "Mine", [(["CelebA"], False), (["CelebA", "Mine"], False)]),
])
def test_what_weights_were_trained_on_is_carried_on(tmp_path, celeba, fotw, expected):
    folder = str(tmp_path / recipe.lmdb_folder("tiny", "scheme3") / "manifest.json")
    files.write_json(folder, {"celeba": {"drawn": celeba}, "fotw": {"drawn": fotw is True, "title": fotw}})
    rows = chain.rows(TINY, ["gnet"], [3, 4], root=str(tmp_path))
    derived = [tuple(origin.origin(row).values()) for row in rows]  # no step has left a record, or an older one
    assert derived == expected
    files.write_json(rows[1].path(rows[1].weights_in) + ".json", {"trained_on": ["another data set"], "drawn": False})
    assert origin.origin(rows[1])["trained_on"] == ["another data set", expected[1][0][-1]]
    assert origin.origin(replace(rows[1], start=""))["trained_on"] == expected[1][0][-1:]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_bit_for_bit(project):
    """Steps 2 and 4, twice from one seed, and step 2 from another, whose names keep them apart."""
    run(project, [1])

    def chain_of(seed, variant, *steps):
        start, found = "weights/tiny/step1.caffemodel", []
        for step in steps:
            _, (row,) = run(project, [step], seed=seed, variant=variant, start=start)
            start = row.weights_out
            found.append(files.read_json(row.path(row.weights_out) + ".json"))
        return found

    first, again, other = chain_of(7, "a", 2, 4), chain_of(7, "b", 2, 4), chain_of(8, "c", 2)
    assert [record["sha256"] for record in first] == [record["sha256"] for record in again]
    assert not {record["sha256"] for record in first} & {record["sha256"] for record in other}
    for record in first:  # what is needed to get it again
        assert record["seed"] == 7 and record["batch"] == TINY.batch_size and record["made_by"] == ["a test"]
        assert record["precision"] == "float32" and record["ranks"] == 1
        assert set(record["versions"]) == {"engine", "numpy", "python", "torch", "threads"}
        assert record["inputs"]["solver's random_seed"] == "7" and len(record["inputs"]) >= 12


def wait_for(child, condition):
    while not condition():
        assert child.poll() is None
        time.sleep(0.02)


DRIVER = textwrap.dedent("""
    import sys
    from tiny_project import LONG
    from common import command, engine; from gender_smile.training import chain, process; from tools import train
    rows = chain.rows(LONG, ["gnet"], [int(step) for step in sys.argv[2:]], root=sys.argv[1])
    def work():
        try:
            train.run(rows, engine.interpreter("torch"), say=train.say)
        except process.Stopped as stopped:
            print(stopped)
            return 130
        return 0
    raise SystemExit(command.run("train", work, writes=()))
""")


def drive(project: str, *steps: str, **streams) -> subprocess.Popen:
    """What tools/train.py does with its steps, in a process of its own."""
    paths = os.pathsep.join([recipe.ROOT, recipe.absolute("tests/support")])
    return subprocess.Popen([sys.executable, "-c", DRIVER, project, *steps], text=True,
                            env={**os.environ, "PYTHONPATH": paths}, **streams)


@pytest.mark.slow
def test_the_chain_goes_on_when_its_terminal_goes_away(tmp_path):
    """A terminal is closed in the middle of step 2: SIGHUP, and an error at every print. Step 3 is trained, too."""
    project = str(tmp_path)
    make_project(project, LONG)
    run(project, [1], LONG)
    ours, theirs = pty.openpty()
    child = drive(project, "2", "3", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                  preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(theirs)
    second, third = chain.rows(LONG, ["gnet"], [2, 3], root=project)
    wait_for(child, lambda: os.read(ours, 1 << 16) and metrics.read(second.path(f"{second.folder}/metrics.csv")))
    assert not os.path.exists(second.path(second.weights_out))
    os.close(ours)
    assert child.wait(timeout=120) == 0
    assert chain.state(second).kind == chain.state(third).kind == "done"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_terminated_run_goes_on_from_its_snapshot(tmp_path, number):
    """No snapshot is due: what is there was asked for."""
    project = str(tmp_path)
    make_project(project, LONG)
    run(project, [1], LONG)
    row = chain.rows(LONG, ["gnet"], [2], root=project)[0]
    child = drive(project, "2", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(child, lambda: len(metrics.read(row.path(f"{row.folder}/metrics.csv"))) >= 3)
    child.send_signal(signal.SIGHUP)  # a snapshot, and on
    wait_for(child, lambda: chain.snapshots(row))
    child.send_signal(number)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 130 and "the same command resumes from iteration" in output
    state = chain.state(row)
    assert state.kind == "interrupted" and 0 < state.iteration < 200
    assert status.describe(row)["state"] == "stopped"
    said, _ = run(project, [2], LONG)
    assert f"resumes from iteration {state.iteration}" in said[0]
    assert chain.state(row).kind == "done"
    iterations = [line["iteration"] for line in metrics.read(row.path(f"{row.folder}/metrics.csv"))]
    assert iterations == sorted(set(iterations)) and iterations[-1] == 200


@pytest.mark.slow
def test_a_disk_that_fills_stops_the_run_with_one_line_and_leaves_no_half_snapshot(project):
    """A limit on the size of files stands in for the full disk: the system refuses the write in the same place."""
    run(project, [1])
    options = {"max_iter": 6, "variant": "full_disk"}
    row = chain.rows(TINY, ["gnet"], [2], root=project, **options)[0]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(chain.ChainError, match="snapshot_iter_2.caffemodel: cannot be written: .* is unchanged"):
            run(project, [2], **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = os.listdir(row.path(row.folder))
    assert "train.log" in left and not [name for name in left if "snapshot" in name]
    run(project, [2], **options)  # the same command, once there is room
    assert chain.state(row).kind == "done"


@pytest.mark.parametrize("faces, most", [(1, 50), (24, 50), (50, 50), (51, 50), (3086, 50), (19867, 50), (300, 8)])
def test_a_test_takes_as_few_faces_twice_as_a_batch_can(faces, most):
    batch = run_files.even_batch(faces, most)
    twice = {size: -(-faces // size) * size - faces for size in range(1, most + 1) if size > min(faces, most) // 2}
    assert twice[batch] == min(twice.values()) and (batch == faces if faces <= most else batch > most // 2)
