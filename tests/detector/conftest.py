"""What the detector's tests share: the nets' weights, OpenCV as a second engine, and a photo that is always there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from detector import Detector, convert
from detector.mtcnn import NETS


class OpenCVNet:
    """The few names of pycaffe's Net that the detector uses, answered by OpenCV's own reader of Caffe files."""

    def __init__(self, definition, phase, weights):
        import cv2

        self._net = cv2.dnn.readNetFromCaffe(definition, weights)
        self._tops = self._net.getUnconnectedOutLayersNames()
        blob = SimpleNamespace(data=np.zeros((1, 3, 12, 12), np.float32))
        blob.reshape = lambda *shape: setattr(blob, "data", np.zeros(shape, np.float32))
        self.blobs = {"data": blob}

    def forward(self):
        self._net.setInput(self.blobs["data"].data)
        return dict(zip(self._tops, self._net.forward(self._tops)))


@pytest.fixture(scope="session")
def opencv_engine(weights):
    """An engine independent of ours."""
    return SimpleNamespace(Net=OpenCVNet, TEST=1)


@pytest.fixture(scope="session")
def weights():
    """Makes sure that the nets' weights are there; a set-up project has them, and then this does nothing."""
    for name in NETS:
        convert.convert(name)


@pytest.fixture(scope="session")
def detector(weights):
    """A detector on the default engine."""
    return Detector()


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """scikit-image's photo of Eileen Collins, 512 x 512, BGR."""
    import skimage.data

    return np.ascontiguousarray(skimage.data.astronaut()[:, :, ::-1])
