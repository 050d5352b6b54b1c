"""Accuracy by gender, pose, face size and lighting, on faces that no step was trained on.

    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo
    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo --gray        # the same photos without color
    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo --shrink 4    # or a quarter as large
    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo --blur 0.06   # or blurred, or --cut 0.3

Answers FotW's validation photos and CelebA's validation and test photos by the whole pipeline, the face nearest the
annotated box; prints a Markdown table (docs/model-card.md has one) and writes runs/<profile>/groups.csv, a row a face.
Pose, size and lighting are measured on the detected face; a face that was not detected counts as wrong in the groups
that are known without it. Exit status: 0 done, 2 wrong use or a missing input.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import csv
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import recipe
from common import command, files
from common.options import add_engine, add_profile
from gender_smile.inference.doubts import BLURRED, CUT, SMALL, TURNED, doubts, look

if TYPE_CHECKING:
    import numpy as np

    from lmdb_builders.records import FaceRecord
    from gender_smile.inference.photos import Photo
    from gender_smile.inference.pipeline import Pipeline

Box = Tuple[float, float, float, float]  # x, y, width, height
CELEBA_LABELS = ("Female", "Smiling", "Eyeglasses")
GRAY = 3.0  # of 255: colors of a photo that differ by less in the mean are a gray photo's


@dataclass(frozen=True)
class Row:
    """One annotated face: its labels (None where unknown), the answers, and pose, size and lighting."""

    image: str
    data_set: str
    gender: Optional[int]  # 1: female
    smile: Optional[int]
    glasses: Optional[int]
    gray: bool
    gender_probability: Optional[float] = None  # of female; None: no face was detected there
    smile_probability: Optional[float] = None  # of smiling
    turn: Optional[float] = None  # how far the nose is from the middle between the eyes, in distances of the eyes
    tilt: Optional[float] = None  # of the line through the eyes, in degrees
    height: Optional[float] = None  # of the face, in pixels of the photo
    light: Optional[float] = None  # mean of the face's pixels, 0..255
    sharpness: Optional[float] = None  # and the share of the face below the photo's edge: gender_smile/inference/doubts.py
    below: Optional[float] = None
    doubts: Optional[bool] = None  # whether predict.py would call the answers less reliable

    def right(self, task: str) -> Optional[bool]:
        """Whether `task` was answered as annotated; None where it is not annotated."""
        label, p = getattr(self, task), getattr(self, f"{task}_probability")
        return None if label is None else p is not None and (p > 0.5) == (label == 1)


# Title -> which rows belong; comparisons with None do not happen, for `within` asks first.
def within(name: str, low: float, high: float) -> Callable[[Row], bool]:
    def belongs(row: Row) -> bool:
        value = getattr(row, name)
        return value is not None and low <= abs(value) < high

    return belongs


CERTAINTIES = ((0.5, 0.75), (0.75, 0.9), (0.9, 0.99), (0.99, 1.0))  # of answers
GROUPS: Dict[str, Callable[[Row], bool]] = {
    "all": lambda row: True,
    "FotW": lambda row: row.data_set == "FotW",
    "CelebA": lambda row: row.data_set == "CelebA",
    "annotated as women": lambda row: row.gender == 1,
    "annotated as men": lambda row: row.gender == 0,
    "women, smiling": lambda row: row.gender == 1 and row.smile == 1,
    "women, not smiling": lambda row: row.gender == 1 and row.smile == 0,
    "men, smiling": lambda row: row.gender == 0 and row.smile == 1,
    "men, not smiling": lambda row: row.gender == 0 and row.smile == 0,
    "with glasses (CelebA)": lambda row: row.glasses == 1,
    "without glasses (CelebA)": lambda row: row.glasses == 0,
    "facing the camera (turn below 0.1)": within("turn", 0, 0.1),
    "turned a little (0.1 to 0.25)": within("turn", 0.1, 0.25),
    "turned far (0.25 and more)": within("turn", 0.25, float("inf")),
    "upright (tilt below 5 degrees)": within("tilt", 0, 5),
    "tilted (5 to 15 degrees)": within("tilt", 5, 15),
    "tilted far (15 degrees and more)": within("tilt", 15, float("inf")),
    "face below 80 pixels": within("height", 0, 80),
    "face of 80 to 120 pixels": within("height", 80, 120),
    "face of 120 pixels and more": within("height", 120, float("inf")),
    "dark face (mean below 80 of 255)": within("light", 0, 80),
    "lighter face": within("light", 80, 256),
    f"face below {SMALL:.0f} pixels": within("height", 0, SMALL),
    f"blurred (sharpness below {BLURRED})": within("sharpness", 0, BLURRED),
    f"turned very far ({TURNED} and more)": within("turn", TURNED, float("inf")),
    f"cut off at the mouth ({CUT:.0%} of the face and more below the photo's edge)": within("below", CUT, 2),
    "called less reliable": lambda row: row.doubts is True,
    "not called less reliable": lambda row: row.doubts is False,
    "gray photo": lambda row: row.gray,
    "photo in color": lambda row: not row.gray,
}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="groups.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fotw", metavar="FOLDER", help="FotW")
    parser.add_argument("--celeba", metavar="FOLDER", help="CelebA, in the wild")
    parser.add_argument("--gray", action="store_true", help="take the color out of every photo first")
    parser.add_argument("--shrink", type=float, default=1.0, metavar="TIMES", help="make every photo smaller first")
    for name, what in (("blur", "blur every photo first, by a Gaussian of this share of the face's height"),
                       ("cut", "cut the left off first, with this share of the face"), ("cut-below", "the same from below")):
        parser.add_argument(f"--{name}", type=float, default=0.0, metavar="SHARE", help=what)
    add_profile(parser)
    add_engine(parser)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = get_parser()
    arguments = parser.parse_args(argv)
    if not (arguments.fotw or arguments.celeba):
        parser.error("name --fotw, --celeba or both")
    if not 1 <= arguments.shrink < float("inf"):
        parser.error("--shrink is a number from 1 on")
    for name in ("blur", "cut", "cut_below"):
        if not 0 <= getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is a share of the face, 0 to 1")
    from lmdb_builders.errors import BuildError
    from gender_smile.inference.pipeline import PipelineError

    return command.run("groups.py", lambda: measure(arguments), PipelineError, BuildError,
                       writes=[recipe.absolute(f"runs/{arguments.profile}/groups.csv")])


def measure(arguments: argparse.Namespace) -> int:
    """Run the pipeline on the faces that the command line names and print the tables; the exit status."""
    from gender_smile.inference.pipeline import Pipeline

    faces = held_out(arguments.fotw, arguments.celeba)
    pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu, scoring=True)
    if pipeline.model.warning:
        print(f"groups.py: {pipeline.model.warning}", file=sys.stderr)
    change = Change(arguments.gray, arguments.shrink, arguments.blur, arguments.cut, arguments.cut_below)
    rows = list(answer(pipeline, faces, change))
    path = os.path.join("runs", arguments.profile, "groups.csv")
    try:  # one that fails leaves the other
        write(rows, recipe.absolute(path))
    finally:
        print(f"{table(rows)}\n\n{certainty_table(rows)}")
    print(f"written: {path}")
    return 0


def held_out(fotw: Optional[str], celeba: Optional[str]) -> List[Tuple[str, "FaceRecord", Dict[str, int]]]:
    """(path, record, labels by task or "glasses") of each face that no step was trained on. Raises BuildError."""
    from lmdb_builders.celeba import read_celeba
    from lmdb_builders.fotw import LABEL_COLUMNS, read_fotw

    faces: List[Tuple[str, "FaceRecord", Dict[str, int]]] = []
    if fotw:
        columns = [LABEL_COLUMNS.index(recipe.DATASETS["fotw"].columns[task]) for task in ("gender", "smile")]
        for record in read_fotw(fotw, ("val",)).records:
            labels = dict(zip(("gender", "smile"), (record.labels[column] for column in columns)))
            faces.append((os.path.join(fotw, record.image), record, labels))
    if celeba:
        data_set = read_celeba(celeba, splits=("val", "test"))
        columns = [data_set.label_names.index(name) for name in CELEBA_LABELS]
        for record in data_set.records:
            labels = dict(zip(("gender", "smile", "glasses"), (record.labels[column] for column in columns)))
            faces.append((os.path.join(celeba, record.image), record, labels))
    return faces


@dataclass(frozen=True)
class Change:
    """What is done to a photo first, to compare the same faces."""

    gray: bool = False  # take the color out
    shrink: float = 1.0  # make it so many times smaller
    blur: float = 0.0  # by a Gaussian of this share of the face's height
    cut: float = 0.0  # the left of the photo off, with this share of the face
    cut_below: float = 0.0  # the same from below

    def apply(self, photo: "Photo", box: Box) -> "Tuple[Photo, Box]":
        """The photo and the annotated box, changed."""
        import cv2

        pixels, (x, y, width, height) = photo.pixels, box
        if pixels is None:
            return photo, box
        if self.gray:
            pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if self.shrink > 1:
            rows, columns = pixels.shape[:2]  # of which a pixel stays
            fx, fy = max(1 / self.shrink, 1 / columns), max(1 / self.shrink, 1 / rows)
            pixels = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA)
            x, y, width, height = x / self.shrink, y / self.shrink, width / self.shrink, height / self.shrink
        if self.blur:
            pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.1, self.blur * height))
        left = int(max(0.0, x + self.cut * width)) if self.cut else 0
        below = int(max(1.0, y + height * (1 - self.cut_below))) if self.cut_below else None
        return replace(photo, pixels=pixels[:below, left:].copy()), (x - left, y, width, height)


def answer(
    pipeline: "Pipeline", faces: Sequence[Tuple[str, "FaceRecord", Dict[str, int]]], change: Change = Change()
) -> Iterator[Row]:
    """A Row for each face of photos that are changed first, with a progress bar."""
    from tqdm import tqdm

    from detector import iou, nearest_to_box
    from gender_smile.inference.photos import read
    from gender_smile.inference.pipeline import ensemble_mean

    boxes: List[Box] = []

    def changed() -> "Iterator[Photo]":
        for path, record, _ in faces:
            photo, box = change.apply(read(path), record.box or (0.0, 0.0, 0.0, 0.0))
            boxes.append(box)
            yield photo

    photos = pipeline.predict_photos(changed(), all_faces=True)
    for (path, _, labels), (photo, predictions) in zip(faces, tqdm(photos, total=len(faces), unit=" photos", disable=None)):
        known: Dict[str, Any] = {name: labels[name] if labels.get(name) in (0, 1) else None
                                 for name in ("gender", "smile", "glasses")}
        known.update(image=path, data_set="CelebA" if "glasses" in labels else "FotW",
                     gray=photo.pixels is not None and is_gray(photo.pixels))
        by_face = {id(prediction.face): prediction for prediction in predictions if prediction.gender is not None}
        box = boxes.pop(0)
        face = nearest_to_box([each.face for each in by_face.values() if each.face is not None], box)
        if face is None or photo.pixels is None or iou(face.box, box) == 0:  # another face of the photo
            yield Row(**known)
            continue
        p_positive, seen = by_face[id(face)].p_positive, look(face, photo.pixels)
        yield Row(**known, gender_probability=ensemble_mean("gender", p_positive),
                  smile_probability=ensemble_mean("smile", p_positive),
                  **seen._asdict(), doubts=bool(doubts(seen)))


def is_gray(photo: "np.ndarray") -> bool:
    """Whether a photo, height x width x 3, has no color."""
    import numpy as np

    channels = photo.astype(np.int16)
    return float((channels.max(axis=2) - channels.min(axis=2)).mean()) < GRAY


def table(rows: Sequence[Row]) -> str:
    """Accuracy of both tasks in each of GROUPS, with 95 % intervals, in Markdown."""
    lines = ["| faces | number | not found | gender correct | smile correct |", "|---|---|---|---|---|"]
    for title, belongs in GROUPS.items():
        group = [row for row in rows if belongs(row)]
        missed = sum(row.gender_probability is None for row in group)
        lines.append(f"| {title} | {len(group)} | {missed} | {share(row.right('gender') for row in group)} | "
                     f"{share(row.right('smile') for row in group)} |")
    return "\n".join(lines)


def certainty_table(rows: Sequence[Row]) -> str:
    """How often answers are right, by the probability that the nets give them, in Markdown."""
    lines = ["| probability | gender answers | correct | smile answers | correct |", "|---|---|---|---|---|"]
    for low, high in CERTAINTIES:
        cells = []
        for task in recipe.TASKS:
            answers = [(row, getattr(row, f"{task}_probability")) for row in rows]
            in_bin = [row for row, p in answers if p is not None and low <= max(p, 1 - p) < high + (high == 1)]
            right = [row.right(task) for row in in_bin if row.right(task) is not None]
            cells += [str(len(right)), share(right)]
        lines.append(f"| {low:.0%} to {high:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share(right: Iterable[Optional[bool]]) -> str:
    """Like "91.5 % (89.1 to 93.4)", of those that are known."""
    from gender_smile.evaluation.scores import wilson_interval

    known = [one for one in right if one is not None]
    if not known:
        return "–"
    low, high = wilson_interval(sum(known), len(known))
    return f"{100 * sum(known) / len(known):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def write(rows: Sequence[Row], path: str) -> None:
    """Every row as CSV."""
    names = list(Row.__dataclass_fields__)
    files.write_csv(path, names, ([getattr(row, name) for name in names] for row in rows))


def read(path: str) -> List[Row]:
    """The rows of a file that `write` wrote."""
    kinds = {"image": str, "data_set": str, **dict.fromkeys(("gray", "doubts"), lambda text: text == "True"),
             **dict.fromkeys(("gender", "smile", "glasses"), int)}
    with open(path, encoding="utf-8", newline="") as stream:
        return [Row(**{name: kinds.get(name, float)(text) if text else None for name, text in row.items()})
                for row in csv.DictReader(stream)]


if __name__ == "__main__":
    raise SystemExit(main())
