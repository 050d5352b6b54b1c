"""The command that users type, tools/train.py: start, first iteration, steady rate, validation and snapshots.

    python -m benchmarks.chain            # CPU: the demo's step 2
    python -m benchmarks.chain --gpu 0    # the paper's step 2 in bf16, deterministic too; the demo's step 4

In a copy of the project, on random images and weights. Validation and snapshots are told as shares of a run with the
paper's intervals and CelebA's validation faces.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.child import Child
from benchmarks.measuring import Row, figure, get_parser, rate, run
from benchmarks.project import link

FACES = {"train": 480, "val": 120}
VALIDATION = 19_867  # CelebA's validation faces
FIRST = re.compile(r"^I(\d{4} \d\d:\d\d:\d\d\.\d+) .*\] First iteration done", re.M)
# Targets: seconds from the command to its first iteration; share of the engine's own rate; percent of a run that validation
# and snapshots take; seconds of the demo's step 4 on a GPU.
START, STEADY, SAVING, DEMO = 15.0, 0.97, 2.0, 5.0


def prepare(folder: Path, step: int, profile_name: str) -> str:
    """LMDBs of random images and random weights for GNet's `step` of a profile; returns the weights' path."""
    import numpy as np

    import recipe
    from gender_smile.training import chain
    from lmdb_builders.lmdb_writer import LmdbWriter, image_datum, labels_datum, record_key

    row = chain.Row(recipe.PROFILES[profile_name], "gnet", step, root=str(folder))
    random, size = np.random.default_rng(0), row.profile.stored_size
    labels = recipe.DATASETS[recipe.STEPS[step].dataset].labels
    for part, path in row.databases.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        writer = LmdbWriter(row.path(path))
        for index in range(FACES[part.split("_")[0]]):
            if part.endswith("_labels"):
                value = labels_datum(bytes(random.integers(0, 2, len(labels), dtype=np.uint8)))
            else:
                image = random.integers(0, 256, (3, size, size), dtype=np.uint8)
                value = image_datum(image.tobytes(), size, "raw", index % 2)
            writer.put(record_key(index, "noise.png"), value)
        writer.close()
    weights = f"weights/{profile_name}/random{step}.caffemodel"
    (folder / weights).parent.mkdir(parents=True, exist_ok=True)
    random_weights(folder, row.definition, weights)
    return weights


def random_weights(folder: Path, definition: str, weights: str):
    """A caffemodel of a training net: random weights that bring pixels to logits of ordinary size, layer by layer."""
    import numpy as np

    import torchcaffe as caffe

    before = os.getcwd()
    os.environ["GLOG_minloglevel"] = "2"
    os.chdir(folder)  # where the net's LMDBs are
    try:
        net, random = caffe.Net(definition, caffe.TRAIN), np.random.RandomState(0)
        for weight, _ in net.params.values():
            scale = np.sqrt(1 / np.prod(weight.shape[1:]))
            weight.data[...] = random.standard_normal(weight.shape).astype(np.float32) * scale
        net.save(weights)
    finally:
        os.chdir(before)


def train(folder: Path, weights: str, profile: str, step: int, iterations: int, *options: str) -> dict:
    """Run the command; its record with "wall", "to first" (seconds from the command), "batch" and "folder"."""
    name = "-".join(["measured", *(option.lstrip("-") for option in options if not option.isdigit())])
    command = [sys.executable, "tools/train.py", "--engine", "torch", "--step", str(step), "--net", "gnet",
               "--profile", profile, "--max-iter", str(iterations), "--weights", weights, "--variant", name,
               "--base-lr", "0.000001", *options]  # fmt: skip
    began, wall = datetime.datetime.now(), time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    wall = time.monotonic() - wall
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} stopped with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    record_path, = (folder / "weights" / profile).glob(f"step{step}_*-{name}.caffemodel.json")
    run_folder = folder / "runs" / profile / record_path.name.split(".")[0]
    stamp = FIRST.search((run_folder / "train.log").read_text(errors="replace"))[1]
    first = datetime.datetime.strptime(f"{began.year}{stamp}", "%Y%m%d %H:%M:%S.%f")
    measured = {"wall": wall, "to first": (first - began).total_seconds(), "folder": run_folder}
    return {**json.loads(record_path.read_text()), **measured}


def environment(folder: Path) -> dict:
    """The tools then run in this Python, and find the copy's modules first."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "GENDER_SMILE_ENVIRONMENT": "1", "PYTHONPATH": path}


def speed(record: dict) -> float:
    """Images a second after the first iteration."""
    timing = record["timing"]
    return record["batch"] * timing["iterations"] / timing["training"]


def engine_rate(folder: Path, record: dict, precision: str, gpu, iterations: int) -> float:
    """Images a second of the engine alone, on the net and solver that the command has written."""
    text = (record["folder"] / "solver.prototxt").read_text()
    net = record["folder"] / "net.prototxt"
    net_here, solver_here = folder / "net.prototxt", folder / "solver.prototxt"
    net_here.write_text(re.sub(r'source: "(?!/)', f'source: "{folder}/', net.read_text()))
    text = re.sub(r'\nnet: "[^"]*"', f'\nnet: "{net_here}"', "\n" + text)
    text = re.sub(r'snapshot_prefix: "[^"]*"', f'snapshot_prefix: "{folder}/engine"', text)
    text = re.sub(r"\n(snapshot|max_iter|display): \d+", "", text)
    solver_here.write_text(text + "\nmax_iter: 1000000 snapshot_after_train: false\n")
    with Child("torch", "benchmarks.training:engine", solver=str(solver_here), precision=precision, gpu=gpu,
               iterations=iterations) as child:  # fmt: skip
        child()
        child()
        return record["batch"] * iterations / child.last["seconds"]


def told(record: dict, what: str, engine: float, full_size: bool) -> list[Row]:
    """Rows of one run of the command; only at full size are speed and shares held against their targets."""
    import recipe

    timing, images = record["timing"], speed(record)
    interval = recipe.PAPER.snapshot
    training = interval * record["batch"] / images
    validation, snapshot = timing["validation"] / 2 / FACES["val"] * VALIDATION, timing["snapshots"]
    share = 100 * (validation + snapshot) / (training + validation + snapshot)
    start, steady, saving = (START, STEADY, SAVING) if full_size else (None, None, None)
    note = f"snapshot {snapshot:.2f} s, validation of {VALIDATION:,} faces {validation:.1f} s, every {interval:,} iterations"
    return [
        figure(f"{what}: from the command to its first iteration", record["to first"], "s", at_most=start),
        rate(f"{what}: after the first iteration", images, engine, "the engine alone", "images/s", steady),
        figure(f"{what}: validation and snapshots as a share of a run", share, "%", at_most=saving, note=note),
        figure(f"{what}: the whole command, {timing['iterations'] + 1} iterations", record["wall"], "s"),
    ]


def rows(options):
    quick = getattr(options, "quick", False)
    with tempfile.TemporaryDirectory() as place:
        folder = link(Path(place))
        if options.gpu is None:
            return cpu_rows(folder, 6 if quick else 30)
        found = paper_rows(folder, options.gpu, 8 if quick else 100)
        return found + demo_rows(folder, options.gpu, 8 if quick else 900)


def cpu_rows(folder, iterations):
    weights = prepare(folder, 2, "demo")
    record = train(folder, weights, "demo", 2, iterations)
    engine = engine_rate(folder, record, "float32", None, iterations)
    return told(record, "demo's step 2, CPU", engine, False)


def paper_rows(folder, gpu, iterations):
    weights, options = prepare(folder, 2, "paper"), ("--gpu", str(gpu), "--precision", "bf16")
    record = train(folder, weights, "paper", 2, iterations, *options)
    engine = engine_rate(folder, record, "bf16", gpu, min(iterations, 20))
    found = told(record, "paper's step 2, bf16", engine, True)
    shutil.rmtree(record["folder"])  # 1 GB
    repeatable = train(folder, weights, "paper", 2, iterations, *options, "--deterministic")
    shutil.rmtree(repeatable["folder"])
    slower = 100 * (1 - speed(repeatable) / speed(record))
    return [*found, figure("paper's step 2, bf16: speed that DETERMINISTIC=1 costs", slower, "%")]


def demo_rows(folder, gpu, iterations):
    weights = prepare(folder, 4, "demo")
    record = train(folder, weights, "demo", 4, iterations, "--gpu", str(gpu))
    return [figure(f"demo's step 4, {iterations} iterations", record["wall"], "s", at_most=DEMO)]


if __name__ == "__main__":
    parser = get_parser(__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few iterations: does it work?")
    raise SystemExit(run(__doc__, rows, parser.parse_args()))
