"""detections.csv: the chosen face of each photo and its five landmarks. Detected once, used for every crop scheme.

One row per image: image (relative to the data set's folder), x, y, width, height of the face's box, score, five
landmarks, status. Pixels as stored in the file, as in the data sets' own tables: a photo with an EXIF orientation is
turned upright for the detector and for cropping, and its numbers with it. Status is "ok" or the reason why there is no
face. A file that you wrote or edited is used as it is and never overwritten. The module recognizes its own files by
<name>.json beside them.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import os
from collections import deque
from typing import Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from lmdb_builders.errors import BuildError, ImageError
from lmdb_builders.images import Orientation, read_with_orientation
from lmdb_builders.pool import ordered_map
from lmdb_builders.records import DataSet, box_problem
from common.files import read_json, sha256_of, write_json
from torchcaffe.formats.storage import atomic_write

OK, NO_FACE, NOT_AT_BOX = "ok", "no-face", "no-face: none of the faces found touches the annotated box"
UNREADABLE = "unreadable: "
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
NUMBERS = ("x", "y", "width", "height", "score", *(f"{point}_{axis}" for point in POINTS for axis in "xy"))
COLUMNS = ("image", *NUMBERS, "status")
GROUP = 16  # photos that a worker is given at once, since together they take the detector less time; a stop loses them
READ_CHUNK = 2  # photos that a worker reads at once for a GPU: enough ahead of it, and few where they are large


class Detection(NamedTuple):
    """One row."""

    status: str
    numbers: Tuple[Optional[float], ...] = (None,) * len(NUMBERS)  # None where there is no face, or no box, no score

    @property
    def landmarks(self) -> np.ndarray:
        """5 x 2 float64, recipe.FACE_TEMPLATE's order, stored pixels. Only where status is OK."""
        return np.array(self.numbers[5:], dtype=np.float64).reshape(5, 2)


def make_detector(gpu: Optional[int] = None):
    """The detector of worker processes, or of a GPU."""
    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    import detector

    return detector.make_detector(gpu)


def detect(
    dataset: DataSet, path: str, use_dataset: bool, workers: int = 1, factory: Callable = make_detector,
    force: bool = False, progress: Callable = lambda answers, total, title: answers, on_gpu: bool = False,
) -> Tuple[Dict[str, Detection], str]:
    """Detections of all records of the data set: read from the file `path`, and computed where it has none.

    `use_dataset`: take the data set's own landmarks and boxes instead of running the detector that `factory` makes.
    `workers`: processes that read photos and find faces; with `on_gpu` they only read, for one detector in this process.
    A stopped run resumes; photos that could not be read are tried again.
    Returns ({image: Detection}, a phrase that says where they came from). Raises BuildError for an unusable file.
    """
    mark = path + ".json"
    origin = _read_origin(mark)
    settings = {"landmarks": "dataset" if use_dataset else "detector", "sources": dataset.sources}
    if os.path.exists(path) and _is_users(path, origin):
        return read_detections(path), f"from {path}, which you wrote or edited; it is used as it is"
    known = {} if force or not _same_origin(origin, settings) else _kept(path)
    missing = [record for record in dataset.records if record.image not in known]
    if not missing and origin is not None and origin.get("sha256"):
        return known, f"read from {path}"
    if use_dataset and any(record.landmarks is None for record in missing):
        raise BuildError(f"{dataset.folder}: no file of landmarks; take the detector's: LANDMARKS=detector "
                         "(--landmarks detector)")

    if origin is not None:
        settings["sources"] = {**origin["sources"], **settings["sources"]} if known else settings["sources"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(mark, {**settings, "sha256": None})  # None: not complete
    rewrite(path, known)
    if use_dataset:
        answers: Iterator = ((record.image, _annotated(record)) for record in missing)
    else:
        tasks = [(record.image, record.split, record.box) for record in missing]
        if on_gpu:
            answers = _find_faces_on_gpu(dataset.folder, factory, tasks, workers)
        else:
            work = functools.partial(_find_faces, dataset.folder, factory)
            groups = (tasks[start : start + GROUP] for start in range(0, len(tasks), GROUP))
            answers = itertools.chain.from_iterable(ordered_map(work, groups, workers, chunk=1))
        answers = progress(answers, len(missing), f"{dataset.name} faces")
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for image, detection in answers:
            writer.writerow(_row(image, detection))
            if not use_dataset:
                file.flush()  # what is found stays found when the run is stopped
            known[image] = detection
    rewrite(path, {record.image: known.pop(record.image) for record in dataset.records} | known)
    known = read_detections(path)
    write_json(mark, {**settings, "sha256": sha256_of(path)})
    return known, f"made from {'the data set' if use_dataset else 'the photos'} ({len(missing)} new), kept in {path}"


def read_detections(path: str) -> Dict[str, Detection]:
    """Read a detections.csv; columns by name, in any order. Raises BuildError for any other file.

    A row whose numbers are broken becomes a Detection whose status names the line.
    """
    found: Dict[str, Detection] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BuildError(f"{path}: no column {', '.join(missing)}; remove the file to detect again")
            for row in reader:
                if row["image"]:  # a row that was cut off before it may belong to any photo
                    found[row["image"]] = _parse(row, reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BuildError(f"{path}: not a CSV file ({error}); remove it to detect again") from None
    return found


def rewrite(path: str, detections: Dict[str, Detection]) -> None:
    """Write a detections.csv atomically."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_row(image, detection) for image, detection in detections.items())


def _parse(row: Dict[str, str], line: int) -> Detection:
    status = (row["status"] or "").strip()
    if status != OK:
        return Detection(status or f"broken row: line {line} has no status")
    try:
        box = (float(row[name]) if row[name] else None for name in NUMBERS[:5])
        numbers = (*box, *(_landmark(row[name]) for name in NUMBERS[5:]))
    except (TypeError, ValueError):
        return Detection(f"broken row: line {line} has a value that is not a number")
    return Detection(status, numbers)


def _row(image: str, detection: Detection) -> list:
    return [image, *map(_digits, detection.numbers), detection.status]


# Detector and data sets give float32: nine digits and _landmark bring it back exactly, so that training and prediction
# cut the very same crop. In a photo that is turned, a stored coordinate is a side less a float32, and gets all digits.
def _digits(value: Optional[float]) -> str:
    if value is None:
        return ""
    short = f"{value:.9g}"
    return short if float(np.float32(short)) == value else repr(value)


def _landmark(text: str) -> float:
    value = float(text)
    return float(np.float32(value)) if float(f"{value:.9g}") == value else value


def _read_origin(mark: str) -> Optional[dict]:
    origin = read_json(mark)
    return origin if origin is not None and isinstance(origin.get("sources"), dict) else None


def _is_users(path: str, origin: Optional[dict]) -> bool:
    """True for a file that this module did not write, or that was edited since."""
    return origin is None or (origin.get("sha256") is not None and origin["sha256"] != sha256_of(path))


def _same_origin(origin: Optional[dict], settings: dict) -> bool:
    """True when earlier detections are still valid: same kind of landmarks, unchanged annotations."""
    if origin is None or origin.get("landmarks") != settings["landmarks"]:
        return False
    before = origin["sources"]
    return all(before.get(file, digest) == digest for file, digest in settings["sources"].items())


def _kept(path: str) -> Dict[str, Detection]:
    """Valid rows of a file of ours, which may be incomplete."""
    if not os.path.exists(path):
        return {}
    return {
        image: detection for image, detection in read_detections(path).items()
        if not detection.status.startswith((UNREADABLE, "broken row"))
    }


def _annotated(record) -> Detection:
    box = record.box or (None,) * 4
    return Detection(OK, (*box, None, *(float(value) for value in record.landmarks.ravel())))


@functools.lru_cache(maxsize=1)
def _detector(factory: Callable):
    """One detector per process."""
    return factory()


class _Photo(NamedTuple):
    """A photo that was read for the detector, or the Detection that says why it was not."""

    image: str
    problem: Optional[Detection] = None
    pixels: Optional[np.ndarray] = None  # upright
    shape: Tuple[int, ...] = ()
    box: Optional[tuple] = None  # by which one of its faces is chosen; None: the one nearest the center
    orientation: Orientation = Orientation()


def _read(folder: str, task: Tuple[str, str, Optional[tuple]]) -> _Photo:
    """The photo of a task: (image, split, annotated box or None)."""
    image, split, box = task
    try:
        pixels, orientation = read_with_orientation(os.path.join(folder, image))
    except ImageError as error:
        return _Photo(image, Detection(f"{UNREADABLE}{error}"))
    box = box if split != "test" else None
    problem = box_problem(box, orientation.height, orientation.width) if box is not None else None
    if problem:
        return _Photo(image, Detection(f"bad box: {problem}"))
    return _Photo(image, None, pixels, pixels.shape, box, orientation)


def _find_faces(folder: str, factory: Callable, tasks: List[tuple]) -> List[Tuple[str, Detection]]:
    """The answers to a worker's tasks. Photos are read one at a time."""
    return list(_answers(_detector(factory), (_read(folder, task) for task in tasks)))


def _find_faces_on_gpu(folder: str, factory: Callable, tasks: List[tuple], workers: int) -> Iterator[Tuple[str, Detection]]:
    """The answers to all tasks, of one detector in this process; the processes that read end with it, also when it fails."""
    read = ordered_map(functools.partial(_read, folder), tasks, workers, chunk=READ_CHUNK)
    with contextlib.closing(read) as photos:
        yield from _answers(_detector(factory), photos)


def _answers(detector, photos: Iterable[_Photo]) -> Iterator[Tuple[str, Detection]]:
    """(image, Detection) of each photo, in order. `photos` is consumed as the detector needs it."""
    waiting: Deque[_Photo] = deque()  # without pixels, which take memory

    def usable() -> Iterator[np.ndarray]:
        for photo in photos:
            waiting.append(photo._replace(pixels=None))
            if photo.pixels is not None:
                yield photo.pixels

    def unusable() -> Iterator[Tuple[str, Detection]]:
        while waiting and waiting[0].problem is not None:
            yield waiting[0].image, waiting.popleft().problem

    for faces in detector.detect_all(usable()):
        yield from unusable()
        photo = waiting.popleft()
        yield photo.image, _chosen(faces, photo.box, photo.shape, photo.orientation)
    yield from unusable()


def _chosen(faces: Sequence, box: Optional[tuple], shape: Tuple[int, ...], orientation: Orientation) -> Detection:
    """The face nearest the annotated box in training, nearest the center in testing, without `box` (section 4).

    `faces` and `shape` are of the upright photo; `box` and the answer are in stored pixels.
    """
    from detector import iou, nearest_to_box, nearest_to_center

    box = orientation.upright_box(box) if box is not None else None
    face = nearest_to_center(faces, shape) if box is None else nearest_to_box(faces, box)
    if face is None:
        return Detection(NO_FACE)
    if box is not None and iou(face.box, box) == 0:
        return Detection(NOT_AT_BOX)  # another person: the label does not belong to this face
    numbers = (*orientation.stored_box(face.box), face.score, *orientation.stored_points(face.landmarks).ravel())
    return Detection(OK, tuple(float(value) for value in numbers))
