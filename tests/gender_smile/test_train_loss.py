"""train_loss is the mean over all iterations since the row before, in both engines, however many a call of step does."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import recipe
from tiny_project import TINY, make_project
from common import engine

LAST = 30
PROFILE = replace(TINY, max_iter={2: LAST, 3: LAST, 4: LAST}, test_interval={2: 25, 3: 25, 4: 25}, snapshot=1000,
                  display=20)  # fmt: skip
# Each iteration by itself, its loss as pycaffe shows it.
LOSSES = """
import sys, {module} as caffe
caffe.set_mode_cpu()
solver = caffe.get_solver(sys.argv[1])
for _ in range({last}):
    solver.step(1)
    print(float(solver.net.blobs["loss"].data))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "caffe"])
def test_train_loss_is_the_mean_of_every_iteration(tmp_path, name):
    try:
        python = engine.interpreter(name)
    except engine.EngineError as error:
        pytest.skip(str(error))
    make_project(str(tmp_path), PROFILE)
    definition = tmp_path / recipe.solver_prototxt("tiny", "gnet", 2)
    dropped = ("test_in", "snapshot", "random_seed")  # the driver tests by itself
    lines = [line for line in definition.read_text().splitlines() if not line.startswith(dropped)]
    lines += ["random_seed: 5", "test_initialization: false", "test_interval: 1000000", 'snapshot_prefix: "snapshot"']
    definition.write_text("\n".join(lines))
    job = {"module": python.module, "title": "tiny", "gpu": None, "weights": None, "resume": None,
           "solver": str(definition), "max_iter": LAST, "display": 20, "snapshot": 0, "test_interval": 25,
           "test_iter": 1, "snapshot_prefix": "snapshot", "expected": []}
    (tmp_path / "job.json").write_text(json.dumps(job))

    def said(*arguments):
        done = subprocess.run([*python.command, *arguments], cwd=tmp_path, env=python.environ(), text=True,
                              capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    events = [json.loads(line) for line in said("-m", "gender_smile.training.solve", "job.json").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    rows = {event["iteration"]: event["mean_loss"] for event in steps if event["row"]}
    losses = [float(line) for line in said("-c", LOSSES.format(module=python.module, last=LAST), str(definition)).split()]
    wanted = {20: np.mean(losses[:20]), 25: np.mean(losses[20:25]), 30: np.mean(losses[25:])}
    assert len(steps) < LAST and rows == pytest.approx(wanted, rel=1e-6)
    assert steps[-1]["loss"] == pytest.approx(losses[-1], rel=1e-6)
    assert len({round(loss, 4) for loss in losses}) > LAST / 2
