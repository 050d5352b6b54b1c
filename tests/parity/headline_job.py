"""The demo profile's step 4 on an LMDB made up here: mirror, random crop and dropout on: `headline_job(folder)`."""

import re

import numpy as np
from comparison import ROOT

import recipe
from lmdb_builders.lmdb_writer import LmdbWriter, image_datum, record_key
from lmdb_builders.preprocess import to_planes
from tools import vgg_face

STEP = "step4_gnet"
ITERATIONS = 100
IMAGES = 240
SEED = 2016
CONTRAST = 6  # of 255: more makes the task easier and the training wilder
COMMITTED_RATE = 0.005
# Training from random weights makes rounding grow, the faster the more is learned: at this rate 100 iterations are
# comparable, at the committed one not even real Caffe keeps its own curve with other BLAS kernels (docs/parity.md).
RATE = 5e-5
PROFILE = recipe.PROFILES["demo"]


def headline_job(folder, iterations=ITERATIONS, rate=RATE):
    """A job for training.train_both: the committed solver and net, but for LMDB, base_lr, tests and snapshots."""
    net = (ROOT / "prototxt" / "demo" / f"{STEP}.prototxt").read_text()
    net, changed = re.subn(r'source: "[^"]*"', f'source: "{_database(folder)}"', net)
    assert changed == 2, f"{STEP}.prototxt has {changed} sources instead of two"
    (folder / "net.prototxt").write_text(net)
    solver = (ROOT / "solvers" / "demo" / f"{STEP}.prototxt").read_text()
    fields = {"net": f'train_net: "{folder}/net.prototxt"', "display": "display: 1", "snapshot": "", "test_iter": ""}
    assert f"\nbase_lr: {COMMITTED_RATE} " in solver
    fields["base_lr"] = f"base_lr: {rate}"
    fields.update(test_interval="", test_initialization="", snapshot_prefix="")
    for field, line in fields.items():
        solver, changed = re.subn(rf"(?m)^{field}:.*$", line, solver)
        assert changed == 1, f"{STEP}.prototxt of the solvers has no {field}"
    path = folder / "solver.prototxt"
    path.write_text(solver + "snapshot_after_train: false\n")
    weights = folder / "start.caffemodel"
    vgg_face.write_random_vgg_face(str(weights), PROFILE.width, input_size=PROFILE.crop_size)
    return {
        "name": "step 4",
        "solver": str(path),
        "iterations": iterations,
        "weights": str(weights),
        "fresh": ["fc8_gender"],
        "seed": SEED,
    }


def _database(folder):
    """LMDB of noisy 64 x 64 images; label 1 is brighter above."""
    size = PROFILE.stored_size
    random = np.random.RandomState(11)
    writer = LmdbWriter(str(folder / "faces"))
    for index in range(IMAGES):
        label = int(random.randint(2))
        image = random.normal(110, CONTRAST, (8, 8, 3)).repeat(size // 8, 0).repeat(size // 8, 1)
        image[: size // 2] += CONTRAST if label else -CONTRAST
        image = np.clip(image + random.normal(0, CONTRAST, image.shape), 0, 255).astype(np.uint8)
        writer.put(record_key(index, "face.png"), image_datum(to_planes(image).tobytes(), size, "raw", label))
    writer.close()
    return folder / "faces"
