"""Loading a full-size caffemodel (537 MB): time and memory against real Caffe and OpenCV; three nets on one file.

    python -m benchmarks.loading
"""

from __future__ import annotations

import os
import tempfile

from benchmarks.child import Child
from benchmarks.inference import DEFINITION, write_weights
from benchmarks.measuring import CAFFE_PYTHON, cost, run, side_by_side


# ---- what the children run: see benchmarks/child.py
def into_a_net(caffe, weights):
    """copy_from into a net that is there, and one look at every number, so that what was only promised is paid too."""
    net = caffe.Net(str(DEFINITION), caffe.TEST)

    def call():
        net.copy_from(weights)
        return float(sum(blob.data.sum() for blobs in net.params.values() for blob in blobs))

    return call


def whole_nets(caffe, weights, count=1):
    """`count` nets from one file, each made and run once; what comes back is of use for the child's memory only."""
    import numpy as np

    images = np.zeros((1, 3, 224, 224), np.float32)
    nets = []

    def call():
        for _ in range(count):
            net = caffe.Net(str(DEFINITION), caffe.TEST, weights=weights) if weights else caffe.Net(str(DEFINITION), 1)
            net.blobs["data"].data[...] = images
            net.forward()
            nets.append(net)

    return call


def opencv(caffe, weights):
    import cv2

    return lambda: cv2.dnn.readNetFromCaffe(str(DEFINITION), weights) and None


def peak(engine, **arguments):
    """(seconds, peak MB above the process before) of one call of whole_nets in a fresh process."""
    with Child(engine, "benchmarks.loading:whole_nets", **arguments) as child:
        before = child.started["rss"]
        child()
        return child.last["seconds"], child.last["peak"] - before


def rows(options):
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(folder)
        size = os.path.getsize(weights) / 2**20
        children = {"ours": Child("torch", "benchmarks.loading:into_a_net", weights=weights)}
        children["opencv"] = Child("torch", "benchmarks.loading:opencv", weights=weights)
        if CAFFE_PYTHON.exists():
            children["caffe"] = Child("caffe", "benchmarks.loading:into_a_net", weights=weights)
        try:
            seconds = side_by_side(children, rounds=5)
        finally:
            for child in children.values():
                child.close()
        one, three = peak("torch", weights=weights), peak("torch", weights=weights, count=3)
        bare = peak("torch", weights=None)
    what = f"caffemodel of {size:.0f} MB into a net, every number read once"
    found = [cost(what, seconds["ours"], seconds["opencv"], "OpenCV's readNetFromCaffe", "s")]
    if "caffe" in seconds:
        found.insert(0, cost(what, seconds["ours"], seconds["caffe"], "real Caffe 1.0", "s", 0.2))
    note = f"a net with its weights and a forward {one[1]:.0f} MB, the same without loading {bare[1]:.0f} MB"
    what = "memory that loading adds to a net of the same form"
    found.append(cost(what, one[1] - bare[1], size, "the file's size", "MB", 1.15, note))
    found.append(cost("three nets from one file, made and run", three[0], one[0], "one net", "s"))
    return found


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
