"""An engine, nets and a detector small enough to predict their answers by hand."""

from __future__ import annotations

import json
import os
import types
from types import SimpleNamespace
from typing import Optional

import numpy as np

import recipe
from detector import Face

LANDMARKS = np.array([[38, 44], [62, 44], [50, 56], [41, 68], [59, 68]], dtype=np.float32)  # of a 100 x 100 photo


class FakeBlob:
    def __init__(self, size):
        self.data = np.zeros((1, 3, size, size), dtype=np.float32)

    def reshape(self, *shape):
        self.data = np.zeros(shape, dtype=np.float32)


class FakeNet:
    """Its weights file holds one number, its probability of class 1; "bright" answers how bright the crop is."""

    made: list = []

    def __init__(self, definition, phase, weights):
        with open(definition) as file:
            self.size = int(file.read())
        with open(weights) as file:
            self.answer = file.read()
        self.blobs = {"data": FakeBlob(self.size)}
        self.batches = []
        FakeNet.made.append(self)

    def forward(self):
        data = self.blobs["data"].data
        self.batches.append(len(data))
        if self.answer == "bright":
            mean = np.array(recipe.MEAN_BGR, np.float32).reshape(1, 3, 1, 1)
            ones = (data + mean).mean(axis=(1, 2, 3)) / 255
        else:
            ones = np.full(len(data), float(self.answer))
        return {"prob": np.stack([1 - ones, ones], axis=1).astype(np.float32)}


def fake_caffe():
    caffe = types.ModuleType("torchcaffe")  # the name by which tools look for the module of messages
    caffe.TEST, caffe.Net, caffe.mode = 1, FakeNet, []
    caffe.set_mode_cpu = lambda: caffe.mode.append("cpu")
    caffe.set_mode_gpu = lambda: caffe.mode.append("gpu")
    caffe.set_device = lambda number: caffe.mode.append(number)
    return caffe


class FakeDetector:
    """Sees a face wherever the photo's first pixel is not black; two, if it is white."""

    def __init__(self, caffe=None):
        self.caffe = caffe

    def detect(self, image):
        first = image[0, 0].max()
        if first == 0:
            return []
        scale = np.array([image.shape[1], image.shape[0]], np.float32) / 100
        central = Face(tuple(np.tile(scale, 2) * (30, 30, 40, 50)), 0.9, LANDMARKS * scale)
        corner = Face((0.0, 0.0, 10.0, 10.0), 0.99, LANDMARKS * scale * 0.1)
        return [corner, central] if first == 255 else [central]


def install(root, answers: dict, profile: str = "demo", variant: str = "", record: Optional[dict] = None) -> None:
    """Definitions and step-4 weights (net -> answer) of a profile under the folder `root`, each with `record` beside it."""
    for task in recipe.TASKS:
        _write(os.path.join(root, recipe.deploy_prototxt(profile, task)), str(recipe.PROFILES[profile].crop_size))
    for net, answer in answers.items():
        name = f"step4_{net}-{variant}" if variant else f"step4_{net}"
        path = os.path.join(root, "weights", profile, f"{name}.caffemodel")
        _write(path, str(answer))
        if record is not None:
            _write(path + ".json", json.dumps(record))


def photo(brightness: int = 128, height: int = 100, width: int = 100):
    return np.full((height, width, 3), brightness, np.uint8)


def arguments(**values):
    return SimpleNamespace(**values)


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
