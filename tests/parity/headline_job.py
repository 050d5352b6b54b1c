"""The demo profile's step 4, mirror, random crop and dropout on, as a job for both engines: `step4_job(folder)`."""

import re

import numpy as np  # noqa: E402
from comparison import ROOT

import recipe  # noqa: E402
from lmdb_builders.lmdb_writer import LmdbWriter, image_datum, labels_datum, record_key
from lmdb_builders.crops import to_planes
from gender_smile.nets import vgg_face

NET, STEP = "gnet", 4
ITERATIONS = 100
IMAGES = 240
SEED = 2016
CONTRAST = 6  # of 255: more makes the task easier and the training wilder
PROFILE = recipe.PROFILES["demo"]
COMMITTED_RATE = PROFILE.base_lr[STEP]
# Training makes rounding grow, the faster the more is learned: at this rate 100 iterations are comparable, at the
# committed one not even real Caffe keeps its own curve with other BLAS kernels (docs/parity.md).
RATE = 2e-5
RATES = (RATE, 5e-5, 5e-4, COMMITTED_RATE)


def chain_files():
    """(caffemodel of step 3, LMDB of step 4) that `make demo` left, or None."""
    weights = ROOT / recipe.step_weights("demo", NET, STEP - 1)
    database = ROOT / recipe.lmdb_paths("demo", NET, STEP)["train"]
    return (weights, database) if weights.exists() and database.exists() else None


def step4_job(folder, iterations=ITERATIONS, rate=COMMITTED_RATE, chain=None):
    """A job for `training`: the committed solver and net, but for LMDB, base_lr, tests and snapshots.

    Args:
        chain: what chain_files() gives; None: random weights of VGG-Face's layers and images made up here.
    """
    weights, database = chain or (_random_weights(folder), _database(folder))
    net = (ROOT / recipe.net_prototxt("demo", NET, STEP)).read_text()
    net, changed = re.subn(r'source: "[^"]*?(_labels)?"', rf'source: "{database}\1"', net)
    assert changed == 4, f"{changed} sources instead of four"
    (folder / "net.prototxt").write_text(net)
    solver = (ROOT / recipe.solver_prototxt("demo", NET, STEP)).read_text()
    fields = {
        "net": f'train_net: "{folder}/net.prototxt"',
        "display": "display: 1",
        "base_lr": f"base_lr: {rate}",
        "snapshot_prefix": f'snapshot_prefix: "{folder}/snapshot"',
        **dict.fromkeys(("snapshot", "test_iter", "test_interval", "test_initialization"), ""),
    }
    for field, line in fields.items():
        solver, changed = re.subn(rf"(?m)^{field}:.*$", line, solver)
        assert changed == 1, f"the solver has no {field}"
    path = folder / "solver.prototxt"
    path.write_text(solver + "snapshot_after_train: false\n")
    return {
        "name": "step 4",
        "solver": str(path),
        "iterations": iterations,
        "weights": str(weights),
        "fresh": [] if chain else ["fc8_gender"],
        "seed": SEED,
    }


def _random_weights(folder):
    path = folder / "start.caffemodel"
    vgg_face.write_random_vgg_face(str(path), PROFILE.width, input_size=PROFILE.crop_size)
    return path


def _database(folder):
    """LMDBs of noisy 64 x 64 images and of their labels; 1 is brighter above, and some are undetermined."""
    size = PROFILE.stored_size
    random = np.random.RandomState(11)
    writer, labels = LmdbWriter(str(folder / "faces")), LmdbWriter(str(folder / "faces_labels"))
    for index in range(IMAGES):
        label = int(random.randint(2))
        image = random.normal(110, CONTRAST, (8, 8, 3)).repeat(size // 8, 0).repeat(size // 8, 1)
        image[: size // 2] += CONTRAST if label else -CONTRAST
        image = np.clip(image + random.normal(0, CONTRAST, image.shape), 0, 255).astype(np.uint8)
        writer.put(record_key(index, "face.png"), image_datum(to_planes(image).tobytes(), size, "raw"))
        labels.put(record_key(index, "face.png"), labels_datum(bytes([label if index % 20 else recipe.UNUSABLE, 0])))
    writer.close()
    labels.close()
    return folder / "faces"
