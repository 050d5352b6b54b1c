"""MTCNN, the cascade of three nets that finds faces and their landmarks; the nets themselves run in the engine.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016, and the behavior of the authors' published nets. The nets were trained on
transposed images, so the photo is transposed once, here, and all arrays of pixels below are x first, y second.
"""

from __future__ import annotations

import importlib
import os
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from detector import boxes as arithmetic
from detector.face import DetectorError, Face
from detector.pyramid import Pyramid, scales
from torchcaffe.data.workers import thread_map

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NETS = ("det1", "det2", "det3")
CROP_SIDES = {"det2": 24, "det3": 48}  # side in pixels of the crops that stages 2 and 3 judge
BATCHES = {"det2": 96, "det3": 24}  # crops a forward: more take as long each, as their numbers outgrow the cache
GROUP = 16  # photos prepared together by all threads, and the pixels at which there are enough of them: bounds the memory
GROUP_PIXELS = 2**22


def definition_path(name: str) -> str:
    """Prototxt of one of NETS."""
    return os.path.join(ROOT, "prototxt", "mtcnn", f"{name}.prototxt")


def weights_path(name: str) -> str:
    """Caffemodel of one of NETS, written by `python -m detector.convert`."""
    return os.path.join(ROOT, "weights", "mtcnn", f"{name}.caffemodel")


class Detector:
    """Finds the faces of a photo.

    minimum_face: side in pixels of the smallest face looked for; time falls with its square.
    thresholds: minimum score (0..1) of a box in each of the three stages.
    factor: ratio of one level of the image pyramid to the level before, between 0 and 1.
    caffe: the engine, a module with pycaffe's names; torchcaffe when None.
    maximum_side: levels of the pyramid that are longer than this many pixels are left out, which bounds time and memory
        on enormous photos: one of 6,000 pixels is then searched for faces of 36 pixels and more instead of 20.
        math.inf lifts the bound.

    The nets are loaded at the first photo, once per process, so a Detector may be passed to a pool of processes.
    Raises ValueError for settings out of range.
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
        """For pickling: the settings and the engine's name. Another process loads its own nets."""
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
        return next(self.detect_all([image]))

    def detect_all(self, images: Iterable[np.ndarray]) -> Iterator[List[Face]]:
        """detect() for many photos, in order and faster, because threads prepare up to GROUP photos together.

        Each photo gives the very same faces alone and in any company. `images` is consumed lazily. Raises what detect()
        raises.
        """
        group: List[np.ndarray] = []
        for image in images:
            group.append(_transposed(image))
            if len(group) == GROUP or sum(pixels.shape[0] * pixels.shape[1] for pixels in group) >= GROUP_PIXELS:
                yield from self._detect_group(group)
                group = []
        yield from self._detect_group(group)

    # ------------------------------------------------------------------------------------------ the three stages
    def _detect_group(self, photos: Sequence[np.ndarray]) -> List[List[Face]]:
        pyramids = [self._pyramid_of(pixels.shape) for pixels in photos]
        canvases = thread_map(_canvas, list(zip(pyramids, photos)), _threads())
        boxes = [self._propose(*photo) for photo in zip(photos, pyramids, canvases)]
        judged = zip(photos, boxes, self._judge("det2", photos, boxes))
        boxes = [self._refine(pixels.shape, own, outputs) for pixels, own, outputs in judged]
        return [self._finish(own, outputs) for own, outputs in zip(boxes, self._judge("det3", photos, boxes))]

    def _propose(self, pixels: np.ndarray, pyramid: Optional[Pyramid], canvas: np.ndarray) -> np.ndarray:
        """Stage 1: square boxes, N x 4, in which det1 sees a face at some level of the pyramid, drawn on `canvas`."""
        if pyramid is None:
            return np.empty((0, 4))
        outputs = self._forward("det1", canvas)
        probability = outputs["prob1"][0, 1]
        cells, levels, boxes = pyramid.select(probability >= self.thresholds[0])
        scores, deltas = probability[cells], outputs["conv4-2"][0][:, cells[0], cells[1]].T
        kept = [np.flatnonzero(levels == level) for level in np.unique(levels)]
        kept = [level[arithmetic.nms(boxes[level], scores[level], 0.5)] for level in kept]
        kept = np.concatenate(kept) if kept else np.empty(0, np.int64)
        kept = kept[arithmetic.nms(boxes[kept], scores[kept], 0.7)]
        boxes, deltas = boxes[kept], deltas[kept]
        # The authors measure a side as last - first in this stage, and as last - first + 1 in the two others.
        boxes = arithmetic.square(arithmetic.apply_deltas(boxes, deltas, boxes[:, 2:] - boxes[:, :2]))
        return arithmetic.touching(boxes, pixels.shape)

    def _refine(self, shape: Sequence[int], boxes: np.ndarray, outputs: Dict[str, np.ndarray]) -> np.ndarray:
        """Stage 2: the boxes of a photo of `shape` that det2 takes for faces, moved and made square again."""
        if not len(boxes):
            return boxes
        scores = outputs["prob1"][:, 1]
        passed = np.flatnonzero(scores > self.thresholds[1])
        kept = passed[arithmetic.nms(boxes[passed], scores[passed], 0.7)]
        boxes = boxes[kept]
        boxes = arithmetic.square(arithmetic.apply_deltas(boxes, outputs["conv5-2"][kept], arithmetic.sides(boxes)))
        return arithmetic.touching(boxes, shape)

    def _finish(self, boxes: np.ndarray, outputs: Dict[str, np.ndarray]) -> List[Face]:
        """Stage 3: the boxes that det3 takes for faces, moved, and their landmarks."""
        if not len(boxes):
            return []
        scores = outputs["prob1"][:, 1]
        passed = np.flatnonzero(scores > self.thresholds[2])
        boxes, scores = boxes[passed], scores[passed]
        sides = arithmetic.sides(boxes)
        landmarks = outputs["conv6-3"][passed].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x, then five y
        landmarks = boxes[:, None, :2] + landmarks * sides[:, None] - 1
        boxes = arithmetic.apply_deltas(boxes, outputs["conv6-2"][passed], sides)
        sides = arithmetic.sides(boxes)
        return [
            Face(
                box=tuple(float(value) for value in (*(boxes[index, :2] - 1), *sides[index])),
                score=float(scores[index]),
                landmarks=landmarks[index].astype(np.float32),
            )
            for index in arithmetic.nms_by_smaller(boxes, scores, 0.7)
        ]

    # ------------------------------------------------------------------------------------------ their parts
    def _pyramid_of(self, shape: Sequence[int]) -> Optional[Pyramid]:
        """The pyramid of photos of this shape, None for one without a level; the last is kept for the next photo."""
        if self._pyramid[0] != shape:
            levels = scales(shape, self.minimum_face, self.factor, self.maximum_side)
            self._pyramid = (shape, Pyramid(shape, levels) if levels else None)
        return self._pyramid[1]

    def _judge(
        self, name: str, photos: Sequence[np.ndarray], boxes: Sequence[np.ndarray]
    ) -> List[Dict[str, np.ndarray]]:
        """For each photo the outputs, by name, of a net of stage 2 or 3 for the crops of its N x 4 boxes; {} for N = 0.

        No batch holds crops of two photos: the last digits of a fully connected layer depend on the size of the batch,
        and a photo's faces must not depend on the photos beside it.
        """
        size, side = BATCHES[name], CROP_SIDES[name]
        batches = [(index, own[start : start + size]) for index, own in enumerate(boxes)
                   for start in range(0, len(own), size)]

        def cut(batch):
            return _blob(_crops(photos[batch[0]], batch[1], side))

        parts: List[List[Dict[str, np.ndarray]]] = [[] for _ in photos]
        for (index, _), crops in zip(batches, thread_map(cut, batches, _threads())):
            parts[index].append({top: data.copy() for top, data in self._forward(name, crops).items()})
        return [{top: np.concatenate([part[top] for part in own]) for top in own[0]} if own else {} for own in parts]

    def _forward(self, name: str, batch: np.ndarray) -> Dict[str, np.ndarray]:
        """Outputs of a net by name: views that its next forward overwrites."""
        net = self._net(name)
        data = net.blobs["data"]
        if tuple(data.data.shape) != batch.shape:
            data.reshape(*batch.shape)
        data.data[...] = batch
        return net.forward()

    def _net(self, name: str):
        """A net of this process. Nets are loaded again after a fork, as the engine's threads do not survive it."""
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


def _threads() -> int:
    """Threads that OpenCV may use: one in the processes of a build."""
    import cv2

    return max(1, cv2.getNumThreads())


def _transposed(image: np.ndarray) -> np.ndarray:
    """The photo as the nets see it, width x height x 3, in float32, which OpenCV resizes faster than uint8."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a height x width x 3 uint8 BGR image, got {_describe(image)}")
    import cv2

    transposed = cv2.transpose(np.ascontiguousarray(image)) if image.size else image.swapaxes(0, 1)
    return transposed.astype(np.float32)


def _describe(image) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__


def _canvas(photo) -> Optional[np.ndarray]:
    """What det1 sees of a photo, (pyramid, pixels), where it has a pyramid."""
    pyramid, pixels = photo
    return None if pyramid is None else _blob([pyramid.draw(pixels)])


def _blob(images: Sequence[np.ndarray]) -> np.ndarray:
    """What the nets expect: N x 3 x width x height float32, channels R, G, B, values -1..1."""
    import cv2

    return cv2.dnn.blobFromImages(images, 1 / 128, mean=(127.5, 127.5, 127.5), swapRB=True)


def _crops(pixels: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """N x side x side x 3 float32 crops of N boxes of a photo; what lies outside the photo is black."""
    import cv2

    first = boxes[:, :2].astype(int) - 1
    last = boxes[:, 2:].astype(int)
    inside_first = np.maximum(first, 0)
    inside_last = np.minimum(last, pixels.shape[:2])
    margins = np.concatenate([inside_first - first, last - inside_last], axis=1).tolist()
    edges = np.concatenate([inside_first, inside_last], axis=1).tolist()
    crops = np.empty((len(boxes), side, side, 3), np.float32)
    for target, (left, top, right, bottom), margin in zip(crops, edges, margins):
        crop = pixels[left:right, top:bottom]
        if any(margin):
            crop = cv2.copyMakeBorder(crop, margin[0], margin[2], margin[1], margin[3], cv2.BORDER_CONSTANT)
        cv2.resize(crop, (side, side), dst=target, interpolation=cv2.INTER_AREA)
    return crops
