"""MTCNN, the cascade of three nets that finds faces and their landmarks; the nets themselves run in the engine.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016, and the behavior of the authors' published nets. The nets were trained on
transposed images, so the photo is transposed once, here, and all arrays of pixels below are x first, y second. Of a
photo's faces the paper takes one (section 4): nearest_to_box while training, nearest_to_center while testing.

Boxes inside the cascade are N x 4 float64 arrays of left, top, right, bottom in the authors' convention: numbers of the
first and the last pixel, counted from 1. Such a box is right - left + 1 pixels wide. A Face's box is x, y, width, height.
"""

from __future__ import annotations

import importlib
import math
import os
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from torchcaffe.data.workers import thread_map

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NETS = ("det1", "det2", "det3")
CROP_SIDES = {"det2": 24, "det3": 48}  # side in pixels of the crops that stages 2 and 3 judge
BATCHES = {"det2": 96, "det3": 24}  # crops a forward: more take as long each, as their numbers outgrow the cache
GROUP = 16  # photos prepared together by all threads, and the pixels at which there are enough of them: bounds the memory
GROUP_PIXELS = 2**22
CELL = 12  # side in pixels of the window that stage 1 judges
STRIDE = 2  # distance in pixels between such windows
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")  # "left" is the viewer's left
Box = Tuple[float, float, float, float]  # x, y, width, height


def definition_path(name: str) -> str:
    """Prototxt of one of NETS."""
    return os.path.join(ROOT, "prototxt", "mtcnn", f"{name}.prototxt")


def weights_path(name: str) -> str:
    """Caffemodel of one of NETS, written by `python -m detector.convert`."""
    return os.path.join(ROOT, "weights", "mtcnn", f"{name}.caffemodel")


# -------------------------------------------------------------------------------------------------------------- faces
class DetectorError(RuntimeError):
    """The detector cannot run: its weights are missing or damaged. The message says what to do."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the photo it was found in; x grows to the right, y downward, (0, 0) is the top left pixel.

    box: (x, y, width, height), floats; may reach over the border of the photo, as MTCNN says it.
    score: probability of being a face, 0..1.
    landmarks: 5 x 2 float32, a row [x, y] for each of LANDMARKS.
    """

    box: Box
    score: float
    landmarks: np.ndarray

    @property
    def center(self) -> Tuple[float, float]:
        """Center of the box, (x, y)."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


def iou(first: Box, second: Box) -> float:
    """Intersection over union, 0..1, of two boxes (x, y, width, height)."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def _distance(face: Face, x: float, y: float) -> float:
    return float(np.hypot(face.center[0] - x, face.center[1] - y))


def nearest_to_box(faces: Sequence[Face], box: Box) -> Optional[Face]:
    """The face nearest an annotated box (x, y, width, height): how the paper chooses while training (section 4).

    Nearest is the largest overlap with the box (intersection over union), so that a small wrong detection at the box's
    very center does not win; among faces that do not touch it, the one whose center is nearest. None without faces.
    """
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return min(faces, key=lambda face: (-iou(face.box, box), _distance(face, x, y)), default=None)


def from_center(faces: Sequence[Face], image_shape: Sequence[int]) -> List[Face]:
    """Faces by the distance of their centers from the photo's center, the nearest first.

    image_shape: the photo's shape, height first.
    """
    height, width = image_shape[:2]
    return sorted(faces, key=lambda face: _distance(face, width / 2, height / 2))


def nearest_to_center(faces: Sequence[Face], image_shape: Sequence[int]) -> Optional[Face]:
    """The face whose center is nearest the photo's center: how the paper chooses while testing (section 4).

    image_shape: the photo's shape, height first. None without faces.
    """
    return next(iter(from_center(faces, image_shape)), None)


# -------------------------------------------------------------------------------------------------------- the cascade
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
        kept = [np.flatnonzero(levels == level) for level in range(len(pyramid.scales))]
        kept = [level[nms(boxes[level], scores[level], 0.5)] for level in kept]
        kept = np.concatenate(kept)
        kept = kept[nms(boxes[kept], scores[kept], 0.7)]
        boxes, deltas = boxes[kept], deltas[kept]
        # The authors measure a side as last - first in this stage, and as last - first + 1 in the two others.
        boxes = square(apply_deltas(boxes, deltas, boxes[:, 2:] - boxes[:, :2]))
        return touching(boxes, pixels.shape)

    def _refine(self, shape: Sequence[int], boxes: np.ndarray, outputs: Dict[str, np.ndarray]) -> np.ndarray:
        """Stage 2: the boxes of a photo of `shape` that det2 takes for faces, moved and made square again."""
        if not len(boxes):
            return boxes
        scores = outputs["prob1"][:, 1]
        passed = np.flatnonzero(scores > self.thresholds[1])
        kept = passed[nms(boxes[passed], scores[passed], 0.7)]
        boxes = boxes[kept]
        boxes = square(apply_deltas(boxes, outputs["conv5-2"][kept], sides(boxes)))
        return touching(boxes, shape)

    def _finish(self, boxes: np.ndarray, outputs: Dict[str, np.ndarray]) -> List[Face]:
        """Stage 3: the boxes that det3 takes for faces, moved, and their landmarks."""
        if not len(boxes):
            return []
        scores = outputs["prob1"][:, 1]
        passed = np.flatnonzero(scores > self.thresholds[2])
        boxes, scores = boxes[passed], scores[passed]
        lengths = sides(boxes)
        landmarks = landmarks_of(outputs["conv6-3"][passed], boxes)
        boxes = apply_deltas(boxes, outputs["conv6-2"][passed], lengths)
        lengths = sides(boxes)
        return [
            Face(
                box=tuple(float(value) for value in (*(boxes[index, :2] - 1), *lengths[index])),
                score=float(scores[index]),
                landmarks=landmarks[index],
            )
            for index in nms_by_smaller(boxes, scores, 0.7)
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
            self._nets[name] = self._load(name, weights)
        return self._nets[name]

    def _load(self, name: str, weights: str):
        if self._caffe is None:
            import torchcaffe

            self._caffe = torchcaffe
        return self._caffe.Net(definition_path(name), self._caffe.TEST, weights=weights)


def _threads() -> int:
    """Threads that OpenCV may use: one in the processes of a build."""
    import cv2

    return max(1, cv2.getNumThreads())


def checked_image(image: np.ndarray) -> np.ndarray:
    """The image itself. Raises ValueError where it is not what detect() takes."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a height x width x 3 uint8 BGR image, got {_describe(image)}")
    return image


def _transposed(image: np.ndarray) -> np.ndarray:
    """The photo as the nets see it, width x height x 3, in float32, which OpenCV resizes faster than uint8."""
    checked_image(image)
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


# -------------------------------------------------------------------------------------------------- the image pyramid
# All levels of the image pyramid of stage 1 lie side by side on one canvas. One forward of a fully convolutional net over it
# judges every window of every level: far cheaper than a forward a level, since a net costs some time a call however small
# its input, and photos of one size keep one shape. Levels start at multiples of the net's stride, so that its windows fall
# on each level as they would on the level alone.
def scales(shape: Sequence[int], minimum_face: float, factor: float, maximum_side: float) -> List[float]:
    """Sizes of the pyramid's levels relative to a photo of `shape`, largest first; see Detector for the settings."""
    result = []
    scale = CELL / minimum_face
    while min(shape[:2]) * scale >= CELL:
        if math.ceil(max(shape[:2]) * scale) <= maximum_side:
            result.append(scale)
        scale *= factor
    return result


class Pyramid:
    """Where each level of a pyramid lies on the canvas.

    shape: width and height of the photo, whose pixels are a width x height x 3 array. levels: the levels' scales,
    largest first, at least one. `levels` holds the number of the level under each window of the canvas, -1 for windows that
    are not inside one level.
    """

    def __init__(self, shape: Sequence[int], levels: Sequence[float]):
        self.scales = np.array(levels)
        self.sizes = [tuple(math.ceil(side * scale) for side in shape[:2]) for scale in levels]
        self.corners, self.canvas_size = _arrange([(even(width), even(height)) for width, height in self.sizes])
        self.levels = self._level_of_windows()

    def _level_of_windows(self) -> np.ndarray:
        """Number of the level under each window of the canvas, -1 for windows that are not inside one level."""
        levels = np.full([_windows(side) for side in self.canvas_size], -1)
        for number, ((left, top), (width, height)) in enumerate(zip(self.corners, self.sizes)):
            left, top = left // STRIDE, top // STRIDE
            levels[left : left + _windows(width), top : top + _windows(height)] = number
        return levels

    def draw(self, pixels: np.ndarray) -> np.ndarray:
        """The canvas with all levels of a photo: its width x its height x 3, float32 whole gray levels, as `pixels`."""
        import cv2

        canvas = np.zeros((*self.canvas_size, 3), np.float32)
        for (left, top), (width, height) in zip(self.corners, self.sizes):
            level = canvas[left : left + width, top : top + height]
            cv2.resize(pixels, (height, width), dst=level, interpolation=cv2.INTER_AREA)
            # An odd side's last window reaches a pixel beyond it, which Caffe's pooling leaves out: repeat the border.
            if width % 2:
                canvas[left + width, top : top + height] = level[-1]
            if height % 2:
                canvas[left : left + even(width), top + height] = canvas[left : left + even(width), top + height - 1]
        return np.rint(canvas, out=canvas)

    def select(self, hits: np.ndarray) -> Tuple[Tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
        """The windows where `hits`, a boolean map of the canvas's windows, is true: a triple of

        their two indices into the map, the number of each one's level, and their boxes in the photo, N x 4.
        """
        cells = np.nonzero(hits & (self.levels >= 0))
        levels = self.levels[cells]
        corner = np.stack(cells, axis=1) * STRIDE - np.array(self.corners)[levels]
        boxes = np.concatenate([corner + 1, corner + CELL], axis=1) / self.scales[levels, None]
        return cells, levels, np.trunc(boxes)


def even(side: int) -> int:
    return side + side % STRIDE


def _windows(side: int) -> int:
    """Number of windows along a side: what det1 makes of it, its pooling rounding up."""
    return (side - 1) // STRIDE - 4


def _arrange(sizes: Sequence[Tuple[int, int]]) -> Tuple[List[Tuple[int, int]], Tuple[int, int]]:
    """Lays rectangles (width, height), each no larger than the one before, out in columns of shelves.

    Returns their corners and the size of the whole. Each goes to the first shelf with room beside what is there, else
    onto a new shelf in the first column with room below, else into a new column, as wide as itself.
    """
    height = sizes[0][1]
    shelves: List[List[int]] = []  # left edge of what is free, its right edge, top, bottom
    columns: List[List[int]] = []  # left edge, right edge, height used
    corners = []
    width = 0
    for side_x, side_y in sizes:
        shelf = next((one for one in shelves if one[0] + side_x <= one[1] and one[2] + side_y <= one[3]), None)
        if shelf is None:
            column = next((one for one in columns if one[2] + side_y <= height), None)
            if column is None:
                column = [width, width + side_x, 0]
                columns.append(column)
                width += side_x
            shelf = [column[0], column[1], column[2], column[2] + side_y]
            shelves.append(shelf)
            column[2] += side_y
        corners.append((shelf[0], shelf[2]))
        shelf[0] += side_x
    return corners, (width, height)


# --------------------------------------------------------------------------------- arithmetic of boxes, all at a time
def sides(boxes: np.ndarray) -> np.ndarray:
    """Widths and heights, N x 2, in pixels."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices of the boxes that stay, best score first.

    A box goes when its intersection over union with a better one that stays is above `threshold`. Of equal scores the
    later box wins, as in the authors' code. Scores are above 0.
    """
    if len(boxes) < 2:
        return np.arange(len(boxes))
    import cv2

    rectangles = np.concatenate([boxes[::-1, :2], sides(boxes[::-1])], axis=1)
    # OpenCV holds the threshold as float32; the next one above keeps a share that equals it, as float64 does.
    limit = np.nextafter(np.float32(threshold), np.float32(np.inf))
    kept = cv2.dnn.NMSBoxes(list(map(tuple, rectangles.tolist())), scores[::-1].tolist(), 0.0, float(limit))
    return len(boxes) - 1 - np.reshape(kept, -1).astype(np.int64)


def nms_by_smaller(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """As nms, by the intersection over the smaller of the two boxes: drops a face inside a face. For few boxes."""
    order = np.argsort(scores, kind="stable")[::-1]
    areas = sides(boxes).prod(axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        first = np.maximum(boxes[best, :2], boxes[order, :2])
        last = np.minimum(boxes[best, 2:], boxes[order, 2:])
        common = np.maximum(last - first + 1, 0).prod(axis=1)
        order = order[common <= threshold * np.minimum(areas[best], areas[order])]
    return np.array(kept, dtype=np.int64)


def apply_deltas(boxes: np.ndarray, deltas: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Box regression: adds N x 4 `deltas` of the four edges, in units of the boxes' N x 2 `sides` (width, height)."""
    return boxes + deltas * np.tile(sides, 2)


def landmarks_of(outputs: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Landmarks in the photo, N x 5 x 2 float32, from det3's N x 10 `outputs`: five x, then five y, in units of the boxes."""
    places = outputs.reshape(-1, 2, 5).transpose(0, 2, 1)
    return (boxes[:, None, :2] + places * sides(boxes)[:, None] - 1).astype(np.float32)


def square(boxes: np.ndarray) -> np.ndarray:
    """The boxes grown to squares about their centers, cut to whole pixels (toward zero, as the authors' fix())."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sides - side) / 2
    return np.trunc(np.concatenate([corner, corner + side], axis=1))


def touching(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The boxes that are at least a pixel large and share a pixel with a photo of `shape` (width, height, ...)."""
    whole = boxes[:, 2:] >= boxes[:, :2]
    inside = (boxes[:, 2:] >= 1) & (boxes[:, :2] <= shape[:2])
    return boxes[(whole & inside).all(axis=1)]
