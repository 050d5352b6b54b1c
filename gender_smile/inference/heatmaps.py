"""Heat maps: how much each place of a crop contributed to an answer, by the engine's own backward pass.

The score of a class (before the softmax) is propagated backward to the last convolution with enough spatial resolution.
At each place, activations times gradients, summed over channels, are the place's contribution; negative ones are set to
0, and the map is resized to the crop and scaled to a maximum of 1.

This is Grad-CAM (Selvaraju et al., ICCV 2017) without averaging the gradient over places (HiResCAM, Draelos and Carin,
2020): averaging suits nets that end in global pooling. These end in inner products, which weigh every place separately.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any, Sequence

import numpy as np

import recipe
from gender_smile.inference.classifier import Classifier, PipelineError, fill

CELLS = 7  # places per side that a map needs at least: the paper's conv5_3 has 14, the demo's 4, its conv4_3 has 7


class Explainer:
    """Heat maps of one classifier, whose weights it shares.

    Works with torchcaffe and with real Caffe. Raises PipelineError where the engine cannot make its net.
    """

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        self.net = _with_gradients(classifier)
        self.features, self.next_layer = _features(self.net)
        (self.score,) = self.net.bottom_names[list(self.net._layer_names)[-1]]  # what the softmax reads
        self.last_layer = next(name for name, tops in self.net.top_names.items() if self.score in tops)

    def heat(self, crops: Sequence[np.ndarray], classes: Sequence[int], averaged: bool = False) -> np.ndarray:
        """How much each pixel of each crop contributed to the score of its class (0 or 1).

        crops: N x stored_size x stored_size x 3 uint8, BGR, as Classifier.probabilities takes them. averaged: weigh the
        channels by their gradients' averages, as Grad-CAM does, for comparison.
        Returns N x size x size float32, 0..1, 1 at the maximum; all 0 where nothing contributed to the class.
        """
        size, batch = self.classifier.size, self.classifier.batch
        maps = [enlarge(places, size) for start in range(0, len(crops), batch)
                for places in self._places(crops[start : start + batch], classes[start : start + batch], averaged)]
        return np.stack(maps) if maps else np.empty((0, size, size), np.float32)

    def _places(self, crops: Sequence[np.ndarray], classes: Sequence[int], averaged: bool = False) -> np.ndarray:
        """N x rows x columns float32: each place's contribution to the score of its crop's class."""
        from lmdb_builders.crops import to_blob

        fill(self.net, to_blob(np.asarray(crops), self.classifier.size))
        self.net.forward()
        direction = np.zeros((len(crops), 2), np.float32)
        direction[np.arange(len(crops)), list(classes)] = 1
        diff = self.net.blobs[self.score].diff
        diff[...] = direction.reshape(diff.shape)
        self.net.backward(start=self.last_layer, end=self.next_layer)
        self.net.clear_param_diffs()  # the weights' gradients are not needed: fc6's alone would hold 411 MB
        blob = self.net.blobs[self.features]
        gradients = np.asarray(blob.diff)
        if averaged:
            gradients = gradients.mean(axis=(2, 3), keepdims=True)
        return (np.asarray(blob.data) * gradients).sum(axis=1)


def enlarge(places: np.ndarray, size: int) -> np.ndarray:
    """Contributions of rows x columns places as a heat map: size x size float32, 0..1, 1 at the maximum."""
    import cv2

    positive = np.maximum(places, 0).astype(np.float32)
    peak = positive.max()
    if not peak > 0 or not np.isfinite(peak):
        return np.zeros((size, size), np.float32)
    heat = cv2.resize(positive / peak, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(heat / heat.max(), 0, 1)


def overlay(crop: np.ndarray, heat: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """The crop in gray with its heat map in color on top: size x size x 3 uint8, BGR.

    crop: size x size x 3 uint8, BGR; heat: size x size float32, 0..1; strength: opacity where heat is 1.
    """
    import cv2

    gray = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).astype(np.float32)
    color = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.float32)
    alpha = strength * np.sqrt(heat)[..., None]
    return np.clip(gray * (1 - alpha) + color * alpha, 0, 255).astype(np.uint8)


def _with_gradients(classifier: Classifier) -> Any:
    """A second net of the classifier, which shares its weights, with gradients of its blobs (force_backward)."""
    with open(recipe.absolute(classifier.definition), encoding="utf-8") as file:
        text = file.read()
    handle, path = tempfile.mkstemp(suffix=".prototxt")  # pycaffe reads nets from files only
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\nforce_backward: true\n")
        net = classifier.caffe.Net(path, classifier.caffe.TEST)
        net.share_with(classifier.net)
    except RuntimeError as error:
        raise PipelineError(f"cannot make a net with gradients of {classifier.definition}: {error}") from error
    finally:
        os.remove(path)
    return net


def _features(net: Any) -> "tuple[str, str]":
    """(blob, layer): the last convolution's blob with CELLS places a side, else the first's; and the layer that reads it.

    The layers that work in place (ReLU) belong to the blob; its gradient is complete after the first that does not.
    """
    names = list(net._layer_names)
    convolutions = [net.top_names[name][0] for name, layer in zip(names, net.layers) if layer.type == "Convolution"]
    if not convolutions:
        raise PipelineError("this net has no convolution: a heat map needs one")
    fine = [blob for blob in convolutions if min(net.blobs[blob].data.shape[2:]) >= CELLS]
    blob = fine[-1] if fine else convolutions[0]
    readers = (name for name in names if blob in net.bottom_names[name] and blob not in net.top_names[name])
    return blob, next(readers)
