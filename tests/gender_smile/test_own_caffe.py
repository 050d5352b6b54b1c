"""A Caffe of the user's own (CAFFE_PYTHON=): what runs inside it keeps to old Pythons, and the chain trains in it.

Pythons of CAFFE_TEST_PYTHONS (default: python2.7, python3.5, python3.6) that have numpy run the loop over a stand-in.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import recipe
from common import engine
from gender_smile.training.protocol import median, native
from torchcaffe.solvers.snapshots import find_snapshots

INSIDE = ("gender_smile/__init__.py", "gender_smile/training/__init__.py", "gender_smile/training/solve.py",
          "gender_smile/training/protocol.py", "torchcaffe/__init__.py", "torchcaffe/solvers/__init__.py",
          "torchcaffe/solvers/snapshots.py")
STAND_IN = recipe.absolute("tests/support/own_caffe")
OLD = os.environ.get("CAFFE_TEST_PYTHONS", "python2.7 python3.5 python3.6").split()


def newer(tree):
    """Names of what in a file Python 2.7 cannot read."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.Nonlocal, ast.YieldFrom, ast.AsyncFunctionDef, ast.MatMult)):
            yield type(node).__name__
        if isinstance(node, ast.Raise) and node.cause:
            yield "raise from"
        if isinstance(node, ast.arguments) and node.kwonlyargs:
            yield "keyword-only arguments"
        if isinstance(node, ast.FunctionDef) and node.returns or isinstance(node, ast.arg) and node.annotation:
            yield "annotations"
        if isinstance(node, (ast.List, ast.Tuple, ast.Dict)) and any(
                isinstance(part, ast.Starred) or part is None for part in getattr(node, "elts", getattr(node, "keys", ()))):
            yield "unpacking in a display"
        if isinstance(node, ast.ImportFrom) and node.module == "__future__" and {"annotations"} & {a.name for a in node.names}:
            yield "from __future__ import annotations"


@pytest.mark.parametrize("path", INSIDE)
def test_what_runs_inside_a_caffe_is_read_by_old_pythons(root, path):
    text = (root / path).read_text()
    assert text.isascii(), "Python 2.7 wants a coding line"
    assert set(newer(ast.parse(text, feature_version=(3, 5)))) == set()


def test_the_check_sees_what_is_newer():
    for text in ("f'{a}'", "a: int = 1", "raise A from b", "def f(*, a): pass", "def f(a: int): pass", "[*a]", "{**a}",
                 "from __future__ import annotations"):
        assert list(newer(ast.parse(text))), text


def test_replacements_do_what_they_replace():
    import statistics

    for values in ([3.0], [1.0, 4.0], [5.0, 1.0, 2.0], [4.0, 1.0, 3.0, 2.0]):
        assert median(values) == statistics.median(values)
    job = {"a": ["b", {"c": None}], "d": 1.5}
    assert native(job) == job


@pytest.fixture(params=[sys.executable, *OLD])
def old(request):
    """(command, environment) of a Python that has numpy and the stand-in for caffe."""
    python = shutil.which(request.param)
    if not python or subprocess.run([python, "-c", "import numpy"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip(f"needs {request.param} with numpy")
    return python, {**os.environ, "PYTHONPATH": os.pathsep.join([recipe.ROOT, STAND_IN]), "PYTHONDONTWRITEBYTECODE": "1",
                    "GLOG_minloglevel": "0"}


def start(old, folder, **changes):
    python, environment = old
    job = {"module": "caffe", "title": "a test", "gpu": None, "weights": None, "resume": None, "solver": "solver.prototxt",
           "max_iter": 6, "display": 2, "snapshot": 4, "test_interval": 3, "test_iter": 2,
           "snapshot_prefix": f"{folder}/snapshot", "expected": [], **changes}
    (folder / "solver.prototxt").write_text(f'snapshot_prefix: "{folder}/snapshot"\n')
    (folder / "job.json").write_text(json.dumps(job))
    return subprocess.Popen([python, "-m", "gender_smile.training.solve", "job.json"], cwd=folder, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def test_the_loop_in_an_old_python(old, tmp_path):
    status, events, log = finished(start(old, tmp_path))
    assert status == 0, log
    assert [event["iteration"] for event in events if event["event"] == "test"] == [0, 3, 6]
    rows = {event["iteration"]: event["mean_loss"] for event in events if event["event"] == "step" and event["row"]}
    assert rows == pytest.approx({2: (1 + 1 / 2) / 2, 3: 1 / 3, 4: 1 / 4, 6: (1 / 5 + 1 / 6) / 2})
    assert [event["iteration"] for event in events if event["event"] == "snapshot"] == [4, 6]
    timing = events[-1].pop("timing")
    assert events[-1] == {"event": "end", "status": "done", "iteration": 6} and timing["iterations"] == 5
    last = find_snapshots(str(tmp_path / "snapshot"))[-1]
    record = json.loads(open(last.record).read())
    assert record["iteration"] == 6 and set(record["files"]) == {"snapshot_iter_6.caffemodel", "snapshot_iter_6.solverstate"}
    assert "Iteration 6, Testing net (#0)" in log

    with open(tmp_path / "weights", "wb") as stream:
        import numpy as np

        np.save(stream, np.array([7.0, 8.0], np.float32))
    status, events, log = finished(start(old, tmp_path, weights="weights", expected=["conv", "fc"]))
    assert status == 1 and "weights does not fill layer fc" in events[-1]["message"]
    status, events, log = finished(start(old, tmp_path, resume=last.state, max_iter=8))
    assert status == 0 and events[0]["iteration"] == 6 and events[-1]["iteration"] == 8, log


def test_a_signal_stops_it_with_a_snapshot(old, tmp_path):
    process = start(old, tmp_path, max_iter=10**9, display=10**6, snapshot=0, test_interval=10**8)
    assert json.loads(process.stdout.readline())["event"] == "start"
    time.sleep(0.3)
    process.send_signal(signal.SIGUSR1)
    status, events, log = finished(process)
    assert status == 130 and events[-1]["status"] == "stopped", log
    assert find_snapshots(str(tmp_path / "snapshot"))[-1].iteration == events[-1]["iteration"] > 0


# ---- the Python that CAFFE_PYTHON names
@pytest.fixture
def own(monkeypatch):
    engine._own.cache_clear()
    yield lambda python: monkeypatch.setenv("CAFFE_PYTHON", str(python))
    engine._own.cache_clear()


def test_caffe_python_comes_before_the_others_for_training_only(own, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", STAND_IN)
    own(sys.executable)
    found = engine.interpreter("caffe")
    assert (found.module, found.command) == ("caffe", (sys.executable,)) and sys.executable in found.title
    assert found.environment["PYTHONPATH"].split(os.pathsep) == [recipe.ROOT, STAND_IN]
    assert engine.interpreter("torch").module == "torchcaffe"
    with pytest.raises(engine.EngineError, match="the Caffe of CAFFE_PYTHON has a Python of its own.*ENGINE=torch"):
        engine.resolve("caffe")


@pytest.mark.parametrize("python, message", [
    ("/nowhere/python", "CAFFE_PYTHON=/nowhere/python: No such file or directory; give the path of a Python whose"),
    (sys.executable, "import caffe fails there .ModuleNotFoundError: No module named 'caffe'.; it needs Caffe's python folder"),
])
def test_a_python_that_cannot_is_told_before_anything_runs(own, monkeypatch, python, message):
    monkeypatch.setenv("PYTHONPATH", "")
    own(python)
    with pytest.raises(engine.EngineError, match=message):
        engine.interpreter("caffe")


def test_a_gpu_that_caffe_was_not_built_for_is_one_sentence(tmp_path):
    from gender_smile.training import chain, process

    row = chain.Row(recipe.DEMO, "gnet", 2, root=str(tmp_path))
    os.makedirs(row.path(row.folder))
    with open(row.path(f"{row.folder}/train.log"), "w") as log:
        log.write("# start\nF0101 11:00:00.000001 9 common.cpp:66] Cannot use GPU in CPU-only Caffe: check mode.\n")
    found = process.reason(row, None, -signal.SIGABRT)
    assert found.startswith("this Caffe was built without CUDA: leave out GPU= (--gpu)") and "CAFFE_PYTHON=" in found


@pytest.mark.slow
def test_the_chain_trains_in_it(root, tmp_path, own, capfd):
    """Real Caffe as a Python of one's own: what `make caffe` unpacked."""
    from tiny_project import TINY, make_project

    from gender_smile.training import chain
    from tools import train

    if not (root / ".caffe" / "python").exists():
        pytest.skip("needs real Caffe in .caffe (make caffe)")
    own(root / ".caffe" / "python")
    make_project(str(tmp_path), TINY)
    rows = chain.rows(TINY, ["gnet"], [1, 2], root=str(tmp_path))
    train.run(rows, engine.interpreter("caffe"), say=lambda text: None)
    record = json.loads(open(rows[-1].path(rows[-1].weights_out) + ".json").read())
    assert record["engine"].startswith("caffe") and record["iteration"] == TINY.max_iter[2]
    with pytest.raises(chain.ChainError, match="this Caffe was built without CUDA"):
        train.run(chain.rows(TINY, ["gnet"], [3], root=str(tmp_path)), engine.interpreter("caffe"), gpu=0, say=lambda text: None)
