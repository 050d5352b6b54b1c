"""Accuracy by gender, pose, face size and lighting, on faces that no step was trained on.

    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo
    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo --gray        # the same photos without color
    python benchmarks/groups.py --fotw FOTW --celeba CELEBA --profile demo --shrink 4    # or a quarter as large

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
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import recipe
from common import command, files
from common.options import add_engine, add_profile

if TYPE_CHECKING:
    import numpy as np

    from detector import Face
    from lmdb_builders.records import FaceRecord
    from gender_smile.inference.photos import Photo
    from gender_smile.inference.pipeline import Pipeline

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
    from lmdb_builders.errors import BuildError
    from gender_smile.inference.pipeline import PipelineError

    return command.run("groups.py", lambda: measure(arguments), PipelineError, BuildError,
                       writes=[recipe.absolute(f"runs/{arguments.profile}/groups.csv")])


def measure(arguments: argparse.Namespace) -> int:
    """Run the pipeline on the faces that the command line names and print the tables; the exit status."""
    from gender_smile.inference.pipeline import Pipeline

    faces = held_out(arguments.fotw, arguments.celeba)
    pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu)
    if pipeline.model.warning:
        print(f"groups.py: {pipeline.model.warning}", file=sys.stderr)
    rows = list(answer(pipeline, faces, arguments.gray, arguments.shrink))
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


def answer(
    pipeline: "Pipeline", faces: Sequence[Tuple[str, "FaceRecord", Dict[str, int]]], gray: bool = False, shrink: float = 1
) -> Iterator[Row]:
    """A Row for each face of photos that are made `gray` and `shrink` times smaller first, with a progress bar."""
    from tqdm import tqdm

    from detector import iou, nearest_to_box
    from gender_smile.inference.photos import read
    from gender_smile.inference.pipeline import ensemble_mean

    photos = pipeline.predict_photos((changed(read(path), gray, shrink) for path, _, _ in faces), all_faces=True)
    for (path, record, labels), (photo, predictions) in zip(faces, tqdm(photos, total=len(faces), unit=" photos", disable=None)):
        known: Dict[str, Any] = {name: labels[name] if labels.get(name) in (0, 1) else None
                                 for name in ("gender", "smile", "glasses")}
        known.update(image=path, data_set="CelebA" if "glasses" in labels else "FotW",
                     gray=photo.pixels is not None and is_gray(photo.pixels))
        by_face = {id(prediction.face): prediction for prediction in predictions if prediction.gender is not None}
        x, y, width, height = (value / shrink for value in record.box or (0.0, 0.0, 0.0, 0.0))
        box = (x, y, width, height)
        face = nearest_to_box([each.face for each in by_face.values() if each.face is not None], box)
        if face is None or photo.pixels is None or iou(face.box, box) == 0:  # another face of the photo
            yield Row(**known)
            continue
        p_positive = by_face[id(face)].p_positive
        yield Row(**known, gender_probability=ensemble_mean("gender", p_positive),
                  smile_probability=ensemble_mean("smile", p_positive),
                  **look(face, photo.pixels))


def changed(photo: "Photo", gray: bool, shrink: float) -> "Photo":
    """The photo without its colors, or smaller."""
    import cv2

    pixels = photo.pixels
    if pixels is not None and gray:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if pixels is not None and shrink > 1:
        height, width = pixels.shape[:2]  # of which a pixel stays
        fx, fy = max(1 / shrink, 1 / width), max(1 / shrink, 1 / height)
        pixels = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA)
    return replace(photo, pixels=pixels)


def look(face: "Face", photo: "np.ndarray") -> Dict[str, Any]:
    """Row's turn, tilt, height and light of a face."""
    import numpy as np

    left, right, nose = (complex(*map(float, point)) for point in face.landmarks[:3])
    eyes = right - left
    x, y, width, height = face.box
    inside = photo[max(0, round(y)) : max(1, round(y + height)), max(0, round(x)) : max(1, round(x + width))]
    return {
        "turn": ((nose - (left + right) / 2) / eyes).real if eyes else 0.0,
        "tilt": float(np.degrees(np.angle(eyes))) if eyes else 0.0,
        "height": height,
        "light": float(inside.mean()),
    }


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


if __name__ == "__main__":
    raise SystemExit(main())
