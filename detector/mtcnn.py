"""MTCNN, the cascade of three nets that finds faces and their landmarks; the nets themselves run in the engine.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016, and the behavior of the authors' published nets. The nets were trained on
transposed images, so the photo is transposed once, here, and all arrays of pixels below are x first, y second.
"""

from __future__ import annotations

import importlib
import os
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from detector import boxes as arithmetic
from detector.face import DetectorError, Face
from detector.pyramid import Pyramid, scales

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NETS = ("det1", "det2", "det3")
CROP_SIDES = {"det2": 24, "det3": 48}  # side in pixels of the crops that stages 2 and 3 judge
MAXIMUM_BATCH = 256  # crops a forward; bounds the memory of a photo with thousands of proposals


def definition_path(name: str) -> str:
    """Prototxt of one of NETS."""
    return os.path.join(ROOT, "prototxt", "mtcnn", f"{name}.prototxt")


def weights_path(name: str) -> str:
    """Caffemodel of one of NETS, written by `python -m detector.convert`."""
    return os.path.join(ROOT, "weights", "mtcnn", f"{name}.caffemodel")


class Detector:
    """Finds the faces of a photo.

    minimum_face: side in pixels of the smallest face looked for; time falls with its square.
    thresholds: least score (0..1) that a box needs to pass each of the three stages.
    factor: ratio of one level of the image pyramid to the level before, between 0 and 1.
    caffe: the engine, a module with pycaffe's names; torchcaffe when None.
    maximum_side: levels of the pyramid that are longer than this many pixels are left out, which bounds time and memory
        on enormous photos: one of 6,000 pixels is then searched for faces of 36 pixels and more instead of 20.
        math.inf lifts the bound.

    The nets are loaded at the first photo, once a process: a Detector may be made before a pool of processes is.
    Raises ValueError for settings that make no sense.
    """

    def __init__(
        self,
        minimum_face: float = 20,
        thresholds: Sequence[float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        caffe=None,
        maximum_side: float = 2000,
    ):
        if not minimum_face > 0:
            raise ValueError(f"minimum_face is {minimum_face}: expected a number of pixels above 0")
        if len(thresholds) != 3 or not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError(f"thresholds are {tuple(thresholds)}: expected three numbers from 0 to 1")
        if not 0 < factor < 1:
            raise ValueError(f"factor is {factor}: expected a number between 0 and 1")
        self.minimum_face = minimum_face
        self.thresholds = tuple(thresholds)
        self.factor = factor
        self.maximum_side = maximum_side
        self._caffe = caffe
        self._nets: Dict[str, object] = {}
        self._process: Optional[int] = None
        self._pyramid: Tuple[Optional[tuple], Optional[Pyramid]] = (None, None)

    def __getstate__(self) -> dict:
        """What travels to another process: the settings and the engine's name; nets are loaded anew there."""
        engine = getattr(self._caffe, "__name__", self._caffe)
        return {**self.__dict__, "_caffe": engine, "_nets": {}, "_process": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if isinstance(self._caffe, str):
            self._caffe = importlib.import_module(self._caffe)

    def detect(self, image: np.ndarray) -> List[Face]:
        """Faces of a photo, best score first; an empty list where there is none or the photo is smaller than a face.

        image: height x width x 3, uint8, channels B, G, R. Raises ValueError for anything else, DetectorError when the
        nets' weights are missing.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a height x width x 3 uint8 BGR image, got {_describe(image)}")
        if min(image.shape[:2]) == 0:
            return []
        import cv2

        pixels = cv2.transpose(np.ascontiguousarray(image))
        boxes = self._propose(pixels)
        if len(boxes):
            boxes = self._refine(pixels, boxes)
        return self._finish(pixels, boxes) if len(boxes) else []

    # ------------------------------------------------------------------------------------------ the three stages
    def _propose(self, pixels: np.ndarray) -> np.ndarray:
        """Stage 1: square boxes, N x 4, in which det1 sees a face at some level of the pyramid."""
        pyramid = self._pyramid_of(pixels.shape)
        if pyramid is None:
            return np.empty((0, 4))
        outputs = self._forward("det1", _blob([pyramid.draw(pixels)]))
        probability = outputs["prob1"][0, 1]
        cells, levels, boxes = pyramid.select(probability >= self.thresholds[0])
        scores, moves = probability[cells], outputs["conv4-2"][0][:, cells[0], cells[1]].T
        kept = [np.flatnonzero(levels == level) for level in np.unique(levels)]
        kept = [level[arithmetic.suppress(boxes[level], scores[level], 0.5)] for level in kept]
        kept = np.concatenate(kept) if kept else np.empty(0, np.int64)
        kept = kept[arithmetic.suppress(boxes[kept], scores[kept], 0.7)]
        boxes, moves = boxes[kept], moves[kept]
        # The authors measure a side as last - first in this stage, and as last - first + 1 in the two others.
        boxes = arithmetic.square(arithmetic.move(boxes, moves, boxes[:, 2:] - boxes[:, :2]))
        return arithmetic.touching(boxes, pixels.shape)

    def _refine(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Stage 2: the boxes that det2 takes for faces, moved and made square again."""
        outputs = self._judge("det2", pixels, boxes)
        scores = outputs["prob1"][:, 1]
        passed = np.flatnonzero(scores > self.thresholds[1])
        kept = passed[arithmetic.suppress(boxes[passed], scores[passed], 0.7)]
        boxes = boxes[kept]
        boxes = arithmetic.square(arithmetic.move(boxes, outputs["conv5-2"][kept], arithmetic.sides(boxes)))
        return arithmetic.touching(boxes, pixels.shape)

    def _finish(self, pixels: np.ndarray, boxes: np.ndarray) -> List[Face]:
        """Stage 3: the boxes that det3 takes for faces, moved, and their landmarks."""
        outputs = self._judge("det3", pixels, boxes)
        scores = outputs["prob1"][:, 1]
        passed = np.flatnonzero(scores > self.thresholds[2])
        boxes, scores = boxes[passed], scores[passed]
        sides = arithmetic.sides(boxes)
        landmarks = outputs["conv6-3"][passed].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x, then five y
        landmarks = boxes[:, None, :2] + landmarks * sides[:, None] - 1
        boxes = arithmetic.move(boxes, outputs["conv6-2"][passed], sides)
        sides = arithmetic.sides(boxes)
        return [
            Face(
                box=tuple(float(value) for value in (*(boxes[index, :2] - 1), *sides[index])),
                score=float(scores[index]),
                landmarks=landmarks[index].astype(np.float32),
            )
            for index in arithmetic.suppress_nested(boxes, scores, 0.7)
        ]

    # ------------------------------------------------------------------------------------------ their parts
    def _pyramid_of(self, shape: Sequence[int]) -> Optional[Pyramid]:
        """The pyramid of photos of this shape, None for one without a level; the last is kept for the next photo."""
        if self._pyramid[0] != shape:
            levels = scales(shape, self.minimum_face, self.factor, self.maximum_side)
            self._pyramid = (shape, Pyramid(shape, levels) if levels else None)
        return self._pyramid[1]

    def _judge(self, name: str, pixels: np.ndarray, boxes: np.ndarray) -> Dict[str, np.ndarray]:
        """Outputs of a net of stage 2 or 3, by name, for the crops of N boxes, N > 0."""
        parts = []
        for start in range(0, len(boxes), MAXIMUM_BATCH):
            crops = _crops(pixels, boxes[start : start + MAXIMUM_BATCH], CROP_SIDES[name])
            parts.append({top: data.copy() for top, data in self._forward(name, _blob(crops)).items()})
        return {top: np.concatenate([part[top] for part in parts]) for top in parts[0]}

    def _forward(self, name: str, batch: np.ndarray) -> Dict[str, np.ndarray]:
        """Outputs of a net by name: views that its next forward overwrites."""
        net = self._net(name)
        data = net.blobs["data"]
        if tuple(data.data.shape) != batch.shape:
            data.reshape(*batch.shape)
        data.data[...] = batch
        return net.forward()

    def _net(self, name: str):
        """A net of this process; nets do not survive a fork, for the engine's threads do not."""
        if self._process != os.getpid():
            self._nets, self._process = {}, os.getpid()
        if name not in self._nets:
            weights = weights_path(name)
            if not os.path.exists(weights):
                raise DetectorError(f"{weights} is missing: run `python -m detector.convert`, as `make setup` does")
            if self._caffe is None:
                import torchcaffe

                self._caffe = torchcaffe
            self._nets[name] = self._caffe.Net(definition_path(name), self._caffe.TEST, weights=weights)
        return self._nets[name]


def _describe(image) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__


def _blob(images: Sequence[np.ndarray]) -> np.ndarray:
    """What the nets expect: N x 3 x width x height float32, channels R, G, B, values -1..1."""
    import cv2

    return cv2.dnn.blobFromImages(images, 1 / 128, mean=(127.5, 127.5, 127.5), swapRB=True)


def _crops(pixels: np.ndarray, boxes: np.ndarray, side: int) -> List[np.ndarray]:
    """side x side crops of boxes; what lies outside the photo is black."""
    import cv2

    first = boxes[:, :2].astype(int) - 1
    last = boxes[:, 2:].astype(int)
    inside_first = np.maximum(first, 0)
    inside_last = np.minimum(last, pixels.shape[:2])
    margins = np.concatenate([inside_first - first, last - inside_last], axis=1)
    crops = []
    for (left, top), (right, bottom), margin in zip(inside_first.tolist(), inside_last.tolist(), margins.tolist()):
        crop = pixels[left:right, top:bottom].astype(np.float32)  # resized without rounding to whole gray levels
        if any(margin):
            crop = cv2.copyMakeBorder(crop, margin[0], margin[2], margin[1], margin[3], cv2.BORDER_CONSTANT)
        crops.append(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA))
    return crops
