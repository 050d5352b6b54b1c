"""Training the paper's net from LMDB, against real Caffe and a hand-written PyTorch loop.

    python -m benchmarks.training            # CPU, batch 8
    python -m benchmarks.training --gpu 0    # batch 120: tf32 and bf16
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from benchmarks.child import Child
from benchmarks.measuring import CAFFE_PYTHON, ROOT, cost, rate, run, side_by_side

IMAGES = 240  # in the LMDB
FLOPS = 3 * 2 * 15.47e9  # of one 224-pixel image through VGG-16, forward and backward
PEAK = {"H100": (494.7e12, 989.4e12), "H200": (494.7e12, 989.4e12), "A100": (156e12, 312e12)}  # dense tf32, bf16
PAPER_IMAGES = 120 * 110_000
SOLVER = """train_net: "{net}" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 max_iter: 1000000
display: 0 random_seed: 1 snapshot_after_train: false
"""


def write_images(folder, size=224):
    """LMDBs of random images and of labels that lie apart; returns their paths."""
    import numpy as np

    import recipe
    from lmdb_builders.lmdb_writer import LmdbWriter, image_datum, labels_datum, record_key

    random, count = np.random.RandomState(0), len(recipe.target().labels)
    images, labels = LmdbWriter(f"{folder}/lmdb"), LmdbWriter(f"{folder}/lmdb_labels")
    for index in range(IMAGES):
        image = random.randint(0, 256, (3, size, size), np.uint8).tobytes()
        images.put(record_key(index, "noise.png"), image_datum(image, size, "raw", index % 2))
        labels.put(record_key(index, "noise.png"), labels_datum(bytes([index % 2] * count)))
    images.close()
    labels.close()
    return f"{folder}/lmdb", f"{folder}/lmdb_labels"


def write_job(folder, batch):
    """The paper's step 4 on random images; returns the solver's path."""
    net = (ROOT / "prototxt" / "paper" / "step4_gnet.prototxt").read_text()
    net = re.sub(r"batch_size: \d+", f"batch_size: {batch}", net)
    images, labels = write_images(folder)
    net = re.sub(r'source: "[^"]*_labels"', f'source: "{labels}"', net)
    net = re.sub(r'source: "(?!/)[^"]*"', f'source: "{images}"', net)
    Path(folder, "net.prototxt").write_text(net)
    solver = Path(folder, "solver.prototxt")
    solver.write_text(SOLVER.format(net=Path(folder, "net.prototxt")))
    return str(solver)


# ---- what the children run: see benchmarks/child.py. Real Caffe runs the first too.
def engine(caffe, solver, precision="float32", gpu=None, iterations=1, compiled=False):
    os.environ["GLOG_minloglevel"] = "2"
    if compiled:
        caffe.set_compile()
    if precision != "float32":
        caffe.set_precision(precision)
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    one = caffe.get_solver(solver)
    one.keep_diffs = False  # as the commands that train have it; real Caffe keeps them at no cost
    return lambda: _seen(one.step(iterations), gpu)


def loop(caffe, batch, precision="float32", gpu=None, iterations=1, compiled=False):
    import torch

    from benchmarks.torch_loop import Loop

    device = "cpu" if gpu is None else f"cuda:{gpu}"
    one = Loop(device, precision, compiled=compiled)
    images, labels = torch.randn(batch, 3, 224, 224), torch.arange(batch) % 2
    if gpu is not None:
        images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)

    def call():
        for _ in range(iterations):
            loss = one.step(images, labels)
        return _seen(float(loss), gpu)

    return call


def _seen(_, gpu):
    """Peak memory in MB allocated on the GPU; the CPU's is counted by the child itself."""
    if gpu is None:
        return None
    import torch

    torch.cuda.synchronize(gpu)
    return torch.cuda.max_memory_allocated(gpu) / 2**20


def rows(options):
    with tempfile.TemporaryDirectory() as folder:
        return cpu_rows(folder) if options.gpu is None else gpu_rows(folder, options.gpu)


def cpu_rows(folder, batch=8):
    solver = write_job(folder, batch)
    started = {
        "ours": lambda: Child("torch", "benchmarks.training:engine", solver=solver),
        "loop": lambda: Child("torch", "benchmarks.training:loop", batch=batch),
        "ours bf16": lambda: Child("torch", "benchmarks.training:engine", solver=solver, precision="bf16"),
        "loop bf16": lambda: Child("torch", "benchmarks.training:loop", batch=batch, precision="bf16"),
    }
    if CAFFE_PYTHON.exists():
        started["caffe"] = lambda: Child("caffe", "benchmarks.training:engine", solver=solver)
    children = {name: start() for name, start in started.items()}
    try:
        seconds = side_by_side(children, rounds=3)
        speed = {name: batch / taken for name, taken in seconds.items()}
        peak = {name: child.last["peak"] for name, child in children.items()}
    finally:
        for child in children.values():
            child.close()
    what, unit = f"VGG-16 at 224 pixels, batch {batch}", "images/s"
    found = [
        rate(f"{what}, float32", speed["ours"], speed["loop"], "hand-written torch loop", unit, 0.95),
        rate(f"{what}, bf16", speed["ours bf16"], speed["loop bf16"], "the same loop in bf16", unit, 0.95),
        cost("peak memory, float32", peak["ours"], peak["loop"], "hand-written torch loop", "MB", 1.1),
        cost("peak memory, bf16", peak["ours bf16"], peak["loop bf16"], "the same loop in bf16", "MB", 1.1),
    ]
    if "caffe" in speed:
        found.append(cost("peak memory, float32", peak["ours"], peak["caffe"], "real Caffe 1.0", "MB", 1.1))
        found.insert(0, rate(f"{what}, bf16", speed["ours bf16"], speed["caffe"], "real Caffe, float32", unit, 2.5))
        found.insert(0, rate(f"{what}, float32", speed["ours"], speed["caffe"], "real Caffe 1.0", unit, 1.6))
    return found


def gpu_rows(folder, gpu, batch=120, iterations=20):
    import torch

    solver, name = write_job(folder, batch), torch.cuda.get_device_name(gpu)
    peaks = next((peaks for known, peaks in PEAK.items() if known in name), None)
    found = []
    for index, precision in enumerate(("tf32", "bf16")):
        for compiled in (True, False):
            common = {"precision": precision, "gpu": gpu, "iterations": iterations, "compiled": compiled}
            contenders = {
                "ours": Child("torch", "benchmarks.training:engine", solver=solver, **common),
                "loop": Child("torch", "benchmarks.training:loop", batch=batch, **common),
            }
            seconds = side_by_side(contenders, rounds=3)
            speed = {name: batch * iterations / taken for name, taken in seconds.items()}
            memory = {name: child.last["value"] for name, child in contenders.items()}
            for child in contenders.values():
                child.close()
            share = f"{speed['ours'] * FLOPS / peaks[index]:.0%} of the GPU's peak; " if peaks else ""
            note = f"{share}{PAPER_IMAGES / speed['ours'] / 3600:.1f} hours for one 110,000-iteration step"
            way, baseline = ("compiled", "hand-written torch loop under torch.compile") if compiled else (
                "layer by layer", "hand-written torch loop")  # fmt: skip
            what = f"VGG-16 at 224 pixels, batch {batch}, {precision}, from LMDB, {way}"
            found.append(rate(what, speed["ours"], speed["loop"], baseline, "images/s", 1.0 if compiled else 0.95, note))
            what = f"peak memory on the GPU, {precision}, {way}"
            found.append(cost(what, memory["ours"], memory["loop"], baseline, "MB", 1.05))
    return found


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
