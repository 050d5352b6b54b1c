"""The Data layer alone: 224-pixel images from an LMDB in the page cache, mirrored, the mean subtracted.

    python -m benchmarks.data_layer            # what a net on the CPU is given, against real Caffe; what a GPU is sent
    python -m benchmarks.data_layer --gpu 0    # and what a net on the GPU is given
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.child import Child
from benchmarks.measuring import CAFFE_PYTHON, figure, rate, run, side_by_side

SIZE, BATCH, RECORDS = 224, 120, 600
AHEAD = 6  # batches to let go by before timing: those that were read while another contender had its turn
DRAWN = (32, 320)  # of CelebA, which is not read, and of FotW, where faces are drawn
BATCHES = {"raw": 40, "jpg": 12, "png": 8}  # timed in one turn
# Images a second onto a GPU: at least what training in bf16 by the compiled loop takes on an H200 (docs/benchmarks.md).
NEEDED = {"raw": 8000, "jpg": 4613, "png": 4613}
NET = """layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ mirror: true mean_value: 93.594 mean_value: 104.7624 mean_value: 129.1863 }}
  data_param {{ source: "{folder}/{encode}" backend: LMDB batch_size: {batch} }} }}
layer {{ name: "end" type: "Silence" bottom: "data" bottom: "label" }}
"""


def write_databases(folder):
    """LMDBs of RECORDS crops of photographs, raw, jpg and png, and a net that reads each. Returns what they show."""
    import cv2
    import numpy as np

    from benchmarks.photographs import photographs
    from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, record_key

    _, fotw, what = photographs(folder, DRAWN)
    paths = sorted(Path(fotw, "smiles_trset").glob("*.jpg"))
    crops = [cv2.resize(cv2.imread(str(path)), (SIZE, SIZE)) for path in paths[:RECORDS]]
    order = np.random.RandomState(0).randint(0, len(crops), RECORDS)
    for encode in BATCHES:
        writer = LmdbWriter(f"{folder}/{encode}")
        for index, chosen in enumerate(order):
            data = encode_crop(crops[chosen], encode)
            writer.put(record_key(index, "crop"), image_datum(data, SIZE, encode, index % 2))
        writer.close()
        Path(folder, f"{encode}.prototxt").write_text(NET.format(folder=folder, encode=encode, batch=BATCH))
    return what


# ---- what the children run: see benchmarks/child.py. Real Caffe runs the first too.
def delivered(caffe, definition, batches, gpu=None):
    """Images a second that a net is given."""
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    net = caffe.Net(definition, caffe.TRAIN)

    def call():
        for index in range(AHEAD + batches):
            if index == AHEAD:
                _wait(gpu)
                start = time.perf_counter()
            net.forward()
        _wait(gpu)
        taken = time.perf_counter() - start
        time.sleep(2 * AHEAD * taken / batches)  # the next contender's turn begins when nothing is read ahead any more
        return batches * BATCH / taken

    return call


def gathered(caffe, definition, batches):
    """Images a second that are gathered as uint8, to be sent to a GPU and made into float32 there."""
    from torchcaffe.data.transformer import Transformer

    Transformer.finishes_on = lambda self, device: True
    source = caffe.Net(definition, caffe.TRAIN).layers[0].prefetcher.batches()
    next(source)

    def call():
        start = time.perf_counter()
        for _ in range(batches):
            batch = next(source)
        taken = time.perf_counter() - start
        assert str(batch.tensors[0].dtype) == "torch.uint8"
        return batches * BATCH / taken

    return call


def _wait(gpu):
    if gpu is not None:
        import torch

        torch.cuda.synchronize(gpu)


def measured(functions, rounds=5):
    """Median images a second of each {name: (engine, function, arguments)}, in turns."""
    children = {name: Child(engine, f"benchmarks.data_layer:{function}", **arguments)
                for name, (engine, function, arguments) in functions.items()}  # fmt: skip
    speeds = {name: [] for name in children}
    try:
        calls = {name: lambda name=name: speeds[name].append(children[name]()) for name in children}
        side_by_side(calls, rounds)
        return {name: statistics.median(taken[1:]) for name, taken in speeds.items()}  # but the warm-up
    finally:
        for child in children.values():
            child.close()


def rows(options):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLOG_minloglevel"] = "2"
        what = write_databases(folder)
        found = []
        for encode, batches in BATCHES.items():
            common = {"definition": f"{folder}/{encode}.prototxt", "batches": batches}
            contenders = {"ours": ("torch", "delivered", common)}
            if CAFFE_PYTHON.exists():
                contenders["caffe"] = ("caffe", "delivered", common)
            if encode == "raw":
                contenders["gathered"] = ("torch", "gathered", common)
            if options.gpu is not None:
                contenders["gpu"] = ("torch", "delivered", {**common, "gpu": options.gpu})
            found += _rows(encode, measured(contenders), what)
    return found


def _rows(encode, speed, what):
    title, unit = f"{encode}, {SIZE}x{SIZE} crops of {what}, batch {BATCH}", "images/s"
    found = [figure(f"{title}: float32, channels-last", speed["ours"], unit, 4000 if encode == "raw" else None)]
    if "caffe" in speed:
        found.append(rate(f"{title}: float32", speed["ours"], speed["caffe"], "real Caffe 1.0", unit))
    if "gathered" in speed:
        found.append(figure(f"{title}: uint8 for a GPU", speed["gathered"], unit, 8000))
    if "gpu" in speed:
        found.append(figure(f"{title}: float32 on the GPU", speed["gpu"], unit, NEEDED[encode]))
    return found


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
