"""Time of one image through the paper's net by kind of layer, in torchcaffe and in OpenCV DNN.

    python -m benchmarks.layers
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time

from benchmarks.inference import DEFINITION, write_weights
from benchmarks.measuring import cost, run

FORWARDS, BEFORE = 9, 20  # measured, and before: an engine may prepare what pays for more than one image


def ours(weights, images):
    """{layer: median ms} in torchcaffe."""
    import torchcaffe as caffe

    net = caffe.Net(str(DEFINITION), caffe.TEST, weights=weights)
    net.blobs["data"].reshape(*images.shape)
    net.blobs["data"].data[...] = images
    times = {name: [] for name in net._layer_names}
    for _ in range(BEFORE + FORWARDS):
        for index, name in enumerate(net._layer_names):
            start = time.perf_counter()
            net._forward(index, index)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(taken[BEFORE:]) for name, taken in times.items()}


def opencv(weights, images):
    """{layer: median ms} in OpenCV's DNN module, by its own clock."""
    import cv2

    net = cv2.dnn.readNetFromCaffe(str(DEFINITION), weights)
    net.setInput(images)
    times = {name: [] for name in net.getLayerNames()}
    for _ in range(BEFORE + FORWARDS):
        net.forward()
        for name, ticks in zip(times, net.getPerfProfile()[1].ravel()):
            times[name].append(1e3 * ticks / cv2.getTickFrequency())
        net.setInput(images)
    return {name: statistics.median(taken[BEFORE:]) for name, taken in times.items()}


def rows(options):
    if options.gpu is not None:
        return []
    import numpy as np

    os.environ["GLOG_minloglevel"] = "2"
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(folder)
        images = np.random.RandomState(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
        spent = [ours(weights, images), opencv(weights, images)]
    kinds = {"all layers": "", "convolutions of 224 to 56 pixels (conv1 to conv3)": ("conv1", "conv2", "conv3"),
             "convolutions of 28 and 14 pixels (conv4, conv5)": ("conv4", "conv5"), "fc6 and fc7": ("fc6", "fc7")}  # fmt: skip
    found = []
    for title, starts in kinds.items():
        sums = [sum(taken for name, taken in times.items() if name.startswith(starts)) for times in spent]
        found.append(cost(title, *sums, "OpenCV DNN", "ms"))
    return found


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
