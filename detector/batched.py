"""The cascade on a torch device, many photos at a time, as a GPU wants it. Finds the faces that mtcnn.Detector finds.

Photos, candidates and crops stay on the device; the host learns how many candidates there are, not which. All images that
the nets see are means over areas of a photo, and come from one table of sums for each photo.
"""

from __future__ import annotations

from typing import Iterable, Iterator, List, Sequence, Tuple

import numpy as np
import torch

from detector.mtcnn import (
    CELL, CROP_SIDES, STRIDE, Detector, Face, Pyramid, checked_image, definition_path, even, landmarks_of, scales,
)
from torchcaffe.core import precision
from torchcaffe.core.torch_module import TorchNet, to_torch
from torchcaffe.data.workers import thread_map

PHOTOS, PHOTO_PIXELS = 128, 2**25  # photos that are taken together, and the pixels at which there are enough of them
BATCH_PIXELS = 2**24  # of a batch, padded: bounds the memory of its forward
PADDING = 1.5  # padded pixels of a batch at most, as a multiple of its photos' own
CROPS = {"det2": 4096, "det3": 1024}  # a forward
BLOCK, PAIRS = 1024, 2**24  # boxes of a group whose overlaps with the others are computed at once, and pairs of boxes


class BatchedDetector(Detector):
    """Detector on a torch device, such as "cuda:0"; on "cpu" Detector itself is faster. Other settings: Detector's.

    Boxes and scores agree with Detector's to about 1e-3 pixels and 1e-4. On a GPU their last digits may depend on the
    photos beside them, as the algorithms of its convolutions do.
    """

    precision = "float32"  # see precision.apply

    def __init__(self, device: str, **settings):
        super().__init__(**settings)
        self.device = torch.device(device)

    def detect_all(self, images: Iterable[np.ndarray]) -> Iterator[List[Face]]:
        """detect() for many photos, in order. `images` is consumed lazily. Raises what detect() raises."""
        waiting: List[np.ndarray] = []
        pixels = 0
        for image in images:
            waiting.append(checked_image(image))
            pixels += image.shape[0] * image.shape[1]
            if len(waiting) == PHOTOS or pixels >= PHOTO_PIXELS:
                yield from self._detect_photos(waiting)
                waiting, pixels = [], 0
        yield from self._detect_photos(waiting)

    def _detect_photos(self, photos: Sequence[np.ndarray]) -> List[List[Face]]:
        answers: List[List[Face]] = [[] for _ in photos]
        for batch in self._batches([(photo.shape[1], photo.shape[0]) for photo in photos]):
            for index, faces in zip(batch, self._detect_batch([photos[index] for index in batch])):
                answers[index] = faces
        return answers

    def _batches(self, shapes: Sequence[Tuple[int, int]]) -> List[List[int]]:
        """Indices of the photos of (width, height) that go together: alike in size, with the same first level."""
        first = {shape: next(iter(scales(shape, self.minimum_face, self.factor, self.maximum_side)), None)
                 for shape in set(shapes)}  # fmt: skip
        order = sorted((first[shape], shape, index) for index, shape in enumerate(shapes) if first[shape] is not None)
        batches: List[List[int]] = []
        width, height, own = 0, 0, 0
        for level, shape, index in order:
            width, height, own = max(width, shape[0]), max(height, shape[1]), own + shape[0] * shape[1]
            padded = width * height * (len(batches[-1]) + 1 if batches else 1)
            if not batches or level != first[shapes[batches[-1][0]]] or padded > min(BATCH_PIXELS, PADDING * own):
                batches.append([])
                (width, height), own = shape, shape[0] * shape[1]
            batches[-1].append(index)
        return batches

    def _detect_batch(self, photos: Sequence[np.ndarray]) -> List[List[Face]]:
        """Faces of photos of one batch; of its halves where the device's memory is too small for it."""
        try:
            return self._cascade(photos)
        except torch.OutOfMemoryError as error:
            if len(photos) == 1:
                height, width = photos[0].shape[:2]
                raise MemoryError(f"{self.device} has not enough memory to find faces in {width} x {height} pixels") from error
        middle = len(photos) // 2
        return self._detect_batch(photos[:middle]) + self._detect_batch(photos[middle:])

    # ------------------------------------------------------------------------------------------ the three stages
    @torch.inference_mode()
    def _cascade(self, photos: Sequence[np.ndarray]) -> List[List[Face]]:
        precision.apply(self)
        table = table_of_sums(photos, self.device)
        sizes = torch.tensor([(photo.shape[1], photo.shape[0]) for photo in photos], dtype=torch.float64).to(self.device)
        owner, boxes = self._proposed(table, sizes)
        owner, boxes = self._refined(table, sizes, owner, boxes)
        return self._finished(table, owner, boxes, len(photos))

    def _proposed(self, table: torch.Tensor, sizes: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Stage 1: the number of a photo and a square box, in which det1 sees a face at some level of the pyramid."""
        shape = (table.shape[1] - 1, table.shape[2] - 1)
        pyramid = Pyramid(shape, scales(shape, self.minimum_face, self.factor, self.maximum_side))
        outputs = self._net("det1")(as_input(draw(pyramid, table, sizes)))
        probability, on_device = outputs["prob1"][:, 1], self._on_device
        level_of = on_device(pyramid.levels)
        owner, x, y = torch.nonzero((probability >= self.thresholds[0]) & (level_of >= 0), as_tuple=True)
        level = level_of[x, y]
        scale = on_device(pyramid.scales)[level]
        corner = torch.stack([x, y], 1) * STRIDE - on_device(np.array(pyramid.corners))[level]
        # The pyramid is one of the largest width and height: what lies beyond a photo's own levels does not count.
        own = torch.ceil(sizes[owner] * scale[:, None])
        inside = (corner // STRIDE < (own - 1) // STRIDE - 4).all(1) & (sizes[owner].amin(1) * scale >= CELL)
        owner, x, y, level, scale, corner = (values[inside] for values in (owner, x, y, level, scale, corner))
        scores, deltas = probability[owner, x, y], outputs["conv4-2"][owner, :, x, y]
        boxes = torch.trunc(torch.cat([corner + 1, corner + CELL], 1) / scale[:, None])
        kept = nms(boxes, scores, owner * len(pyramid.scales) + level, 0.5)
        kept = kept[nms(boxes[kept], scores[kept], owner[kept], 0.7)]
        owner, boxes = owner[kept], boxes[kept]
        boxes = square(apply_deltas(boxes, deltas[kept], boxes[:, 2:] - boxes[:, :2]))
        return touching(owner, boxes, sizes)

    def _refined(self, table, sizes, owner: torch.Tensor, boxes: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Stage 2: the boxes that det2 takes for faces, moved and made square again."""
        scores, deltas = self._judged("det2", table, owner, boxes, ("prob1", "conv5-2"))
        passed = torch.nonzero(scores[:, 1] > self.thresholds[1])[:, 0]
        kept = passed[nms(boxes[passed], scores[passed, 1], owner[passed], 0.7)]
        owner, boxes = owner[kept], boxes[kept]
        return touching(owner, square(apply_deltas(boxes, deltas[kept], sides(boxes))), sizes)

    def _finished(self, table, owner: torch.Tensor, boxes: torch.Tensor, count: int) -> List[List[Face]]:
        """Stage 3: for each of `count` photos the boxes that det3 takes for faces, moved, and their landmarks."""
        scores, deltas, points = self._judged("det3", table, owner, boxes, ("prob1", "conv6-2", "conv6-3"))
        passed = torch.nonzero(scores[:, 1] > self.thresholds[2])[:, 0]
        scores, deltas, points, owner, boxes = (values[passed] for values in (scores[:, 1], deltas, points, owner, boxes))
        moved = apply_deltas(boxes, deltas, sides(boxes))
        kept = nms(moved, scores, owner, 0.7, by_smaller=True)
        columns = [owner[:, None], scores[:, None], boxes, moved, points]
        rows = torch.cat([column.double() for column in columns], 1)[kept].cpu().numpy()
        answers: List[List[Face]] = [[] for _ in range(count)]
        for row in rows:
            left, top, right, bottom = row[6:10].tolist()
            box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
            answers[int(row[0])].append(Face(box, float(row[1]), landmarks_of(row[None, 10:], row[None, 2:6])[0]))
        return answers

    # ------------------------------------------------------------------------------------------ their parts
    def _judged(self, name: str, table, owner, boxes, tops: Sequence[str]) -> List[torch.Tensor]:
        """Outputs `tops` of a net of stage 2 or 3 for the crops of the boxes."""
        net, side, parts = self._net(name), CROP_SIDES[name], []
        for start in range(0, max(1, len(boxes)), CROPS[name]):
            some = boxes[start : start + CROPS[name]]
            corner = some[:, :2] - 1
            crops = means(table, owner[start : start + CROPS[name]], corner, (some[:, 2:] - corner) / side, (side, side))
            outputs = net(as_input(crops))
            parts.append([outputs[top] for top in tops])
        return [torch.cat(part) for part in zip(*parts)]

    def _on_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _load(self, name: str, weights: str) -> TorchNet:
        return to_torch(definition_path(name), weights).to(self.device).eval()


# ------------------------------------------------------------------------------------------------- images of the photos
def table_of_sums(photos: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """N x (width + 1) x (height + 1) x 3 integers: the sums of all pixels before a corner of pixels, channels R, G, B.

    photos: height x width x 3 uint8, B, G, R; all are padded with black to the largest width and height.
    """
    height, width = (max(photo.shape[axis] for photo in photos) for axis in (0, 1))
    pixels = torch.zeros((len(photos), height, width, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = pixels.numpy()

    def copy(item: Tuple[np.ndarray, np.ndarray]) -> None:
        target, photo = item
        target[: photo.shape[0], : photo.shape[1]] = photo

    thread_map(copy, list(zip(host, photos)))
    pixels = pixels.to(device, non_blocking=True).transpose(1, 2).flip(3)
    kind = torch.int32 if 255 * width * height < 2**31 else torch.int64
    table = torch.zeros((len(photos), width + 1, height + 1, 3), dtype=kind, device=device)
    torch.cumsum(pixels.cumsum(1, dtype=kind), 2, dtype=kind, out=table[:, 1:, 1:])
    return table


def means(table: torch.Tensor, owner: torch.Tensor, corner: torch.Tensor, step: torch.Tensor,
          cells: Sequence[int]) -> torch.Tensor:  # fmt: skip
    """Mean colors of a grid of cells for each of M areas: M x columns x rows x 3 float64, 0..255.

    owner: M numbers of photos; corner: M x 2 float64, the area's left and top in pixels from 0; step: M x 2, width and
    height of a cell; cells: (columns, rows). What lies outside the photo is black. It is what OpenCV's INTER_AREA computes,
    whether the cells are larger than pixels or smaller.
    """
    (x, x_part), (y, y_part) = (
        _edges(corner[:, axis], step[:, axis], cells[axis], table.shape[1 + axis] - 1) for axis in (0, 1)
    )
    rows = table.shape[2]
    index = ((owner[:, None] * table.shape[1] + x) * rows)[:, :, None] + y[:, None, :]
    flat, y_part = table.view(-1, 3), y_part[:, None, :, None]

    def between(index: torch.Tensor) -> torch.Tensor:
        return torch.lerp(flat[index].double(), flat[index + 1].double(), y_part)

    sums = torch.lerp(between(index), between(index + rows), x_part[:, :, None, None])
    return sums.diff(dim=1).diff(dim=2) / step.prod(1)[:, None, None, None]


def _edges(first: torch.Tensor, step: torch.Tensor, count: int, limit: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """The edges of `count` cells inside 0 .. limit, M x (count + 1): the whole pixels before each, and the part beyond."""
    edges = first[:, None] + step[:, None] * torch.arange(count + 1, device=first.device)
    edges = edges.clamp(0, limit)
    whole = edges.floor().clamp(max=limit - 1)
    return whole.long(), edges - whole


def draw(pyramid: Pyramid, table: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Canvases with all levels of N photos, N x width x height x 3 float32 whole gray levels: Pyramid.draw of each.

    sizes: N x 2, the photos' width and height; `pyramid` is of the largest ones. A photo's own level lies at the level's
    corner, and its border is repeated beyond it.
    """
    count, device = len(sizes), sizes.device
    photos = torch.arange(count, device=device)
    canvas = torch.zeros((count, *pyramid.canvas_size, 3), device=device)
    for scale, (left, top), size in zip(pyramid.scales.tolist(), pyramid.corners, pyramid.sizes):
        own = torch.ceil(sizes * scale)
        level = means(table, photos, torch.zeros_like(sizes), sizes / own, size)
        width, height = map(even, size)
        x, y = (torch.minimum(torch.arange(side, device=device), own[:, axis : axis + 1].long() - 1)
                for axis, side in enumerate((width, height)))  # fmt: skip
        canvas[:, left : left + width, top : top + height] = level[photos[:, None, None], x[:, :, None], y[:, None, :]].round_()
    return canvas


def as_input(images: torch.Tensor) -> torch.Tensor:
    """What the nets expect of N x width x height x 3: N x 3 x width x height float32, -1..1."""
    return ((images - 127.5) / 128).float().permute(0, 3, 1, 2).contiguous()


# --------------------------------------------------------------------------------- arithmetic of boxes, all at a time
def sides(boxes: torch.Tensor) -> torch.Tensor:
    """mtcnn.sides."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def apply_deltas(boxes: torch.Tensor, deltas: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """mtcnn.apply_deltas."""
    return boxes + deltas.double() * sides.repeat(1, 2)


def square(boxes: torch.Tensor) -> torch.Tensor:
    """mtcnn.square."""
    lengths = boxes[:, 2:] - boxes[:, :2]
    side = lengths.amax(1, keepdim=True)
    corner = boxes[:, :2] + (lengths - side) / 2
    return torch.trunc(torch.cat([corner, corner + side], 1))


def touching(owner: torch.Tensor, boxes: torch.Tensor, sizes: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """mtcnn.touching: owners and boxes of those that share a pixel with their photo."""
    inside = (boxes[:, 2:] >= boxes[:, :2]) & (boxes[:, 2:] >= 1) & (boxes[:, :2] <= sizes[owner])
    inside = inside.all(1)
    return owner[inside], boxes[inside]


def nms(boxes: torch.Tensor, scores: torch.Tensor, group: torch.Tensor, threshold: float,
        by_smaller: bool = False) -> torch.Tensor:  # fmt: skip
    """mtcnn.nms in each group, or mtcnn.nms_by_smaller: indices of the boxes that stay, by group, the best first.

    The host waits for the sizes of the groups, and once for each round of suppression, of which there are few.
    """
    order = torch.arange(len(scores) - 1, -1, -1, device=boxes.device)  # of equal scores the later box wins
    order = order[scores[order].argsort(descending=True, stable=True)]
    order = order[group[order].argsort(stable=True)]
    boxes, stays = boxes[order], torch.zeros(len(order), dtype=torch.bool, device=boxes.device)
    counts = group[order].unique_consecutive(return_counts=True)[1].cpu().numpy()
    starts = np.cumsum(counts) - counts
    for part in _parts(counts):
        at = torch.from_numpy(np.stack([starts[part], counts[part]])).to(boxes.device)
        place = torch.arange(int(counts[part].max()), device=boxes.device)
        there = place < at[1][:, None]
        rows = (at[0][:, None] + place).clamp(max=len(order) - 1)
        stays[rows[there]] = _suppress(boxes[rows], there, threshold, by_smaller)[there]
    return order[stays]


def _parts(counts: np.ndarray) -> List[np.ndarray]:
    """Groups by their sizes, in runs that have at most PAIRS pairs of boxes at a time."""
    runs: List[List[int]] = []
    for number in np.argsort(counts, kind="stable"):
        size = int(counts[number])
        if not runs or (len(runs[-1]) + 1) * size * min(size, BLOCK) > PAIRS:
            runs.append([])
        runs[-1].append(number)
    return [np.array(run) for run in runs]


def _suppress(boxes: torch.Tensor, there: torch.Tensor, threshold: float, by_smaller: bool) -> torch.Tensor:
    """Which of G x K boxes stay, G x K bool. Boxes of a group come best first; `there`: not padding."""
    stays = there.clone()
    count = boxes.shape[1]
    for start in range(0, count, BLOCK):
        block, later = slice(start, start + BLOCK), slice(start + BLOCK, count)
        overlap = _overlaps(boxes[:, block], boxes[:, block], by_smaller) > threshold
        overlap = overlap.tril(-1) & stays[:, None, block]  # [group, box, a better one that may suppress it]
        alive = stays[:, block]
        for _ in range(overlap.shape[1]):  # each round settles at least one more box; mostly a handful settle all
            again = stays[:, block] & ~(overlap & alive[:, None]).any(2)
            if torch.equal(again, alive):
                break
            alive = again
        stays[:, block] = alive
        if start + BLOCK < count:
            overlap = _overlaps(boxes[:, later], boxes[:, block], by_smaller) > threshold
            stays[:, later] &= ~(overlap & alive[:, None]).any(2)
    return stays


def _overlaps(first: torch.Tensor, second: torch.Tensor, by_smaller: bool) -> torch.Tensor:
    """Intersection over union, or over the smaller box, of G x A and G x B boxes: G x A x B."""
    first, second = first[:, :, None], second[:, None]
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low + 1).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) for boxes in (first, second)]
    return common / (torch.minimum(*areas) if by_smaller else areas[0] + areas[1] - common)
