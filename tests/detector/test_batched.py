"""The cascade for a GPU, run on the CPU: the same faces as mtcnn.Detector, whose arithmetic is checked elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import torchcaffe
from detector import batched, iou, make_detector, mtcnn
from detector.batched import BatchedDetector

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batched_detector(weights):
    return BatchedDetector("cpu")


def assert_same(ours, theirs):
    """The same faces in the same order."""
    assert [len(faces) for faces in ours] == [len(faces) for faces in theirs]
    for own, their in zip(sum(ours, []), sum(theirs, [])):
        assert own.box == pytest.approx(their.box, abs=0.05)
        assert own.score == pytest.approx(their.score, abs=1e-4)
        assert own.landmarks.dtype == np.float32 and own.landmarks == pytest.approx(their.landmarks, abs=0.05)


@pytest.fixture(scope="module")
def mixed(astronaut):
    """Photos of several sizes: with a face, with none, too small for one, and empty."""
    gray = np.full((90, 131, 3), 120, np.uint8)
    return [astronaut[:300, 100:400], gray, astronaut[:11], astronaut[:0], astronaut[50:200, 150:300],
            astronaut[:251, 120:345], astronaut[::2, ::2], astronaut]  # fmt: skip


def test_the_same_faces(detector, batched_detector, mixed):
    expected = [detector.detect(photo) for photo in mixed]
    assert [bool(faces) for faces in expected] == [True, False, False, False, True, True, True, True]
    assert_same(list(batched_detector.detect_all(mixed)), expected)
    assert_same([batched_detector.detect(photo) for photo in mixed], expected)
    assert batched_detector._batches([photo.shape[1::-1] for photo in mixed]) != [[index] for index in range(len(mixed))]


def test_which_detector_runs_where():
    caffe = SimpleNamespace(__name__="caffe")
    assert type(make_detector()) is type(make_detector(1, caffe)) is mtcnn.Detector
    assert make_detector(1, caffe)._caffe is caffe
    for ours in (make_detector(1), make_detector(1, torchcaffe)):
        assert isinstance(ours, BatchedDetector) and ours.device == torch.device("cuda", 1)


def test_other_settings_and_photos_whose_first_levels_are_left_out(mixed, weights):
    settings = {"minimum_face": 9, "factor": 0.6, "maximum_side": 400, "thresholds": (0.7, 0.8, 0.9)}
    assert_same(list(BatchedDetector("cpu", **settings).detect_all(mixed)),
                list(mtcnn.Detector(**settings).detect_all(mixed)))  # fmt: skip


def test_photographs_give_the_same_faces(detector, batched_detector, real_celeba, real_fotw):
    paths = sorted((real_celeba / "Img" / "img_celeba").glob("*.jpg"))[::80] + sorted((real_fotw / "smiles_trset").glob("*.jpg"))[::60]
    photos = [cv2.imread(str(path)) for path in paths]
    pairs = list(zip(detector.detect_all(photos), batched_detector.detect_all(photos)))
    assert [len(first) for first, _ in pairs] == [len(second) for _, second in pairs]
    apart = []
    for first, second in ((one, two) for faces in pairs for one, two in zip(*faces)):
        assert iou(first.box, second.box) > 0.85
        apart.append(np.abs(np.subtract(first.box, second.box)).max())
    assert len(apart) > 40 and np.quantile(apart, 0.95) < 0.01  # pixels; suppression may choose another of two equal boxes


def test_photos_are_taken_as_they_are_needed_and_answered_in_order(batched_detector, mixed, monkeypatch):
    monkeypatch.setattr(batched, "PHOTOS", 3)
    taken, expected = [], [len(batched_detector.detect(photo)) for photo in mixed]
    answers = batched_detector.detect_all(taken.append(index) or photo for index, photo in enumerate(mixed))
    first = next(answers)
    assert taken == [0, 1, 2]
    assert [len(first), *map(len, answers)] == expected
    monkeypatch.setattr(batched, "PHOTO_PIXELS", 1)
    assert [len(faces) for faces in batched_detector.detect_all(mixed)] == expected
    assert list(batched_detector.detect_all([])) == []
    with pytest.raises(ValueError, match="height x width x 3 uint8 BGR"):
        batched_detector.detect("photo.jpg")


def test_batches_hold_photos_alike_in_size():
    detector = BatchedDetector("cpu")
    shapes = [(400, 300), (4000, 3000), (390, 310), (5, 5), (401, 300), (800, 60), (3000, 3999)]
    batches = detector._batches(shapes)
    assert sorted(sum(batches, [])) == [0, 1, 2, 4, 5, 6] and sorted([0, 2, 4]) in map(sorted, batches)
    for batch in batches:
        width, height = np.max([shapes[index] for index in batch], axis=0)
        own = sum(np.prod(shapes[index]) for index in batch)
        assert len(batch) == 1 or width * height * len(batch) <= min(batched.BATCH_PIXELS, batched.PADDING * own)


def test_a_batch_that_is_too_large_for_the_memory_is_halved(batched_detector, mixed, monkeypatch):
    expected, cascade, sizes = list(batched_detector.detect_all(mixed)), batched_detector._cascade, []

    def small_memory(photos):
        sizes.append(len(photos))
        if len(photos) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cascade(photos)

    monkeypatch.setattr(batched_detector, "_cascade", small_memory)
    monkeypatch.setattr(batched, "PADDING", 100)
    most = 1
    assert_same(list(batched_detector.detect_all(mixed)), expected)
    assert max(sizes) > 1
    most = 0
    with pytest.raises(MemoryError, match="not enough memory to find faces in 300 x 300 pixels"):
        batched_detector.detect(mixed[0])


@pytest.mark.parametrize("area, side", (
    ((10, 20, 90, 90), 24), ((3, 5, 48, 48), 24), ((30, 40, 17, 17), 24), ((0, 0, 120, 100), 48), ((-20, -11, 60, 60), 24),
    ((90, 80, 77, 77), 48), ((200, 3, 40, 40), 24), ((40, 40, 24, 24), 24),
))  # fmt: skip
def test_means_are_opencvs_area_resize(area, side):
    """Shrunk, enlarged, kept; inside, across the border, outside."""
    photo = np.random.default_rng(1).integers(0, 256, (100, 120, 3), np.uint8)
    left, top, width, height = area
    bordered = cv2.copyMakeBorder(photo, 300, 300, 300, 300, cv2.BORDER_CONSTANT).astype(np.float32)
    crop = bordered[300 + top : 300 + top + height, 300 + left : 300 + left + width]
    expected = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)[:, :, ::-1].transpose(1, 0, 2)
    table = batched.table_of_sums([np.zeros((7, 130, 3), np.uint8), photo], CPU)
    corner, step = torch.tensor([[left, top]]).double(), torch.tensor([[width, height]]).double() / side
    found = batched.means(table, torch.tensor([1]), corner, step, (side, side))[0]
    assert np.abs(found.numpy() - expected).max() < 2e-3


def test_sums_of_a_photo_that_32_bits_do_not_hold():
    table = batched.table_of_sums([np.full((3000, 3000, 3), 255, np.uint8)], CPU)
    assert table.dtype == torch.int64 and table[0, -1, -1].tolist() == [255 * 3000 * 3000] * 3


def test_levels_lie_on_the_canvas_as_each_photos_own_would(astronaut):
    photos = [astronaut[:201, :260], astronaut[100:291, 50:281]]
    shape = (260, 201)
    pyramid = mtcnn.Pyramid(shape, mtcnn.scales(shape, 20, 0.709, 2000))
    table = batched.table_of_sums(photos, CPU)
    sizes = torch.tensor([[260, 201], [231, 191]]).double()
    canvases = batched.draw(pyramid, table, sizes).numpy()
    assert np.abs(canvases[0][:, :, ::-1] - pyramid.draw(mtcnn._transposed(photos[0]))).max() <= 1  # a tie, rounded
    alone = mtcnn.Pyramid((231, 191), mtcnn.scales((231, 191), 20, 0.709, 2000))
    own = alone.draw(mtcnn._transposed(photos[1]))
    for ours, theirs, size in zip(pyramid.corners, alone.corners, alone.sizes):
        width, height = map(mtcnn.even, size)
        part = canvases[1][ours[0] : ours[0] + width, ours[1] : ours[1] + height, ::-1]
        expected = own[theirs[0] : theirs[0] + width, theirs[1] : theirs[1] + height]
        assert np.abs(part - expected).max() <= 1 and (part == expected).mean() > 0.99


def test_nothing_is_computed_beside_the_device():
    """On PyTorch's device without numbers, arithmetic with a tensor of the CPU is an error, as on a GPU."""
    meta = torch.device("meta")
    table, sizes = torch.zeros((2, 261, 202, 3), dtype=torch.int32, device=meta), torch.zeros((2, 2), device=meta).double()
    pyramid = mtcnn.Pyramid((260, 201), mtcnn.scales((260, 201), 20, 0.709, 2000))
    assert batched.as_input(batched.draw(pyramid, table, sizes)).device == meta
    boxes, owner = torch.zeros((3, 5, 4), device=meta).double(), torch.zeros(5, dtype=torch.int64, device=meta)
    assert batched.means(table, owner, boxes[0, :, :2], boxes[0, :, 2:], (24, 24)).device == meta
    assert batched._overlaps(boxes, boxes, True).device == meta
    moved = batched.square(batched.apply_deltas(boxes[0], boxes[1].float(), batched.sides(boxes[0])))
    assert moved.device == meta and moved.dtype == torch.float64


@pytest.mark.parametrize("minimum_face", (20, 14))
def test_windows_are_those_of_a_photos_own_levels_however_large_the_others_are(weights, minimum_face):
    """With a threshold of 0, every window of every level is proposed: none of the padding, of no level of others."""
    settings = {"thresholds": (0, 0.7, 0.7), "minimum_face": minimum_face}
    detector, batch = mtcnn.Detector(**settings), BatchedDetector("cpu", **settings)
    random = np.random.default_rng(2)
    photos = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in ((26, 90), (60, 40), (61, 91), (33, 47))]
    sizes = torch.tensor([photo.shape[1::-1] for photo in photos]).double()
    with torch.inference_mode():
        owner, boxes = batch._proposed(batched.table_of_sums(photos, CPU), sizes)
    for number, photo in enumerate(photos):
        pixels = mtcnn._transposed(photo)
        pyramid = detector._pyramid_of(pixels.shape)
        expected = {tuple(box) for box in detector._propose(pixels, pyramid, mtcnn._canvas((pyramid, pixels)))}
        found = {tuple(box) for box in boxes[owner == number].tolist()}
        assert len(expected) > 8 and len(found ^ expected) <= 0.1 * len(expected)  # where scores are equal but for rounding


@pytest.mark.parametrize("block, pairs", ((1024, 2**24), (7, 2**24), (16, 500)))
@pytest.mark.parametrize("by_smaller", (False, True))
def test_suppression_in_groups_is_that_of_each_group(monkeypatch, block, pairs, by_smaller):
    monkeypatch.setattr(batched, "BLOCK", block)
    monkeypatch.setattr(batched, "PAIRS", pairs)
    random = np.random.default_rng(3)
    corner = random.integers(0, 60, (400, 2))
    boxes = np.concatenate([corner, corner + random.integers(8, 30, (400, 2))], axis=1).astype(float)
    scores = random.integers(1, 40, 400) / 40  # many are equal
    group = random.permutation(np.repeat([0, 2, 3, 9], [150, 1, 49, 200]))
    alone = mtcnn.nms_by_smaller if by_smaller else mtcnn.nms
    expected = []
    for number in (0, 2, 3, 9):
        own = np.flatnonzero(group == number)
        expected += own[alone(boxes[own], scores[own], 0.5)].tolist()
    found = batched.nms(*map(torch.from_numpy, (boxes, scores, group)), 0.5, by_smaller)
    assert found.tolist() == expected and 10 < len(expected) < 300
    nothing = batched.nms(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64), 0.5)
    assert nothing.tolist() == []


def test_box_arithmetic_is_that_of_one_photo():
    random = np.random.default_rng(5)
    corner = random.uniform(-30, 60, (200, 2))
    boxes = np.concatenate([corner, corner + random.uniform(-3, 50, (200, 2))], axis=1)
    deltas = random.uniform(-0.3, 0.3, (200, 4)).astype(np.float32)
    ours, theirs = torch.from_numpy(boxes), torch.from_numpy(deltas)
    lengths = mtcnn.sides(boxes)
    assert np.array_equal(batched.sides(ours).numpy(), lengths)
    moved = mtcnn.apply_deltas(boxes, deltas, lengths)
    assert np.array_equal(batched.apply_deltas(ours, theirs, batched.sides(ours)).numpy(), moved)
    assert np.array_equal(batched.square(ours).numpy(), mtcnn.square(boxes))
    sizes = torch.tensor([[50.0, 40.0]])
    _, kept = batched.touching(torch.zeros(200, dtype=torch.int64), ours, sizes)
    assert np.array_equal(kept.numpy(), mtcnn.touching(boxes, (50, 40))) and len(kept) < 200
