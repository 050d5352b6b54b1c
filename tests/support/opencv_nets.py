"""OpenCV's reader of Caffe nets, an implementation of the detection layers that is independent of ours."""

import cv2
import numpy as np


def opencv(text, arrays, output="l", weights=None):
    """The blob that layer `output` of a net makes.

    text: prototxt; arrays: name of an input -> array, or a list for b0, b1 …; weights: bytes of a caffemodel.
    """
    model = [] if weights is None else [np.frombuffer(weights, np.uint8)]
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.replace("force_backward: true", "").encode(), np.uint8), *model)
    if not isinstance(arrays, dict):
        arrays = {f"b{index}": array for index, array in enumerate(arrays)}
    for name, array in arrays.items():
        net.setInput(np.ascontiguousarray(array, np.float32), name)
    return net.forward(output)
