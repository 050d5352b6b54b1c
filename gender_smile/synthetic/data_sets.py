"""Drawn portraits as data sets, in the layouts of CelebA and FotW, to run everything without the real ones.

What the painting decides of CelebA's other attributes is labeled truly; the rest is -1. The same seed gives the same files.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

import recipe
from common import files
from common.files import read_json

FACES = "data/demo/faces"
PARTITION = (0.8, 0.1, 0.1)  # CelebA's shares of training, validation and test, as published
FOTW_TRAINING = 2 / 3  # FotW has 6,171 training and 3,086 validation images
VERSION = 1  # of the drawings: raised when they change, so that old ones are drawn again
FOTW_HEADER = "image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile"  # with FotW's own spaces
QUALITY = 92  # of JPEG

Job = Tuple[str, int, int, str]  # data set, seed, number, path of the photo


def draw_data_sets(folder: str, celeba: int = 900, fotw: int = 600, seed: int = 2016, workers: Optional[int] = None,
                   force: bool = False) -> Tuple[str, str]:
    """Draw `celeba` + `fotw` photos into `folder`; return the folders of the two data sets.

    Nothing is drawn where the same drawing is complete. Raises OSError, and BuildError where a worker was killed.
    """
    from lmdb_builders.records import DRAWN  # here, as it loads numpy, which --help does not need

    roots = os.path.join(folder, "CelebA"), os.path.join(folder, "FotW")
    settings = {"version": VERSION, "celeba": celeba, "fotw": fotw, "seed": seed}
    record = os.path.join(folder, DRAWN)
    if not force and read_json(record) == settings:
        return roots
    if os.path.exists(record):
        os.remove(record)
    training = round(fotw * FOTW_TRAINING)
    jobs: List[Job] = [("CelebA", seed, number, os.path.join(roots[0], "Img", "img_celeba", f"{number:06d}.jpg"))
                       for number in range(1, celeba + 1)]
    for number in range(1, fotw + 1):
        split = "smiles_trset" if number <= training else "smiles_valset"
        jobs.append(("FotW", seed, number, os.path.join(roots[1], split, f"im_GenFex_{number:05d}.jpg")))
    for path in {os.path.dirname(job[3]) for job in jobs}:
        os.makedirs(path, exist_ok=True)
    for root in roots:  # in each too, as it may be moved or copied alone
        files.write_json(os.path.join(root, DRAWN), settings)
    drawn = _draw_all(jobs, workers or os.cpu_count() or 1)
    _write_celeba(roots[0], drawn[:celeba])
    _write_fotw(roots[1], drawn[celeba:], training)
    files.write_json(record, settings)
    return roots


def _draw_all(jobs: List[Job], workers: int) -> List[Dict[str, Any]]:
    from tqdm import tqdm

    from lmdb_builders.pool import ordered_map

    drawn = ordered_map(draw_one, jobs, min(workers, len(jobs)))
    return list(tqdm(drawn, total=len(jobs), desc="drawing faces", unit="face", disable=None))


def draw_one(job: Job) -> Dict[str, Any]:
    """Draw one photo to its file; return {"name", "landmarks", "box", "attributes"} (pixels, CelebA's names)."""
    import cv2
    import numpy as np

    from gender_smile.synthetic import portrait

    data_set, seed, number, path = job
    random = np.random.default_rng([seed, number, data_set == "FotW"])
    person = portrait.invent(random, female=bool(random.random() < 0.5), smiling=bool(random.random() < 0.5))
    if data_set == "CelebA":  # in the wild: any size and shape, the face anywhere about the middle
        width, height = int(random.integers(170, 320)), int(random.integers(200, 340))
        share = random.uniform(0.38, 0.60) * min(1.0, 1.1 * width / height)
    else:
        width = height = int(random.integers(160, 300))
        share = random.uniform(0.42, 0.62)
    photo, landmarks = portrait.photograph(person, random, width, height, share)
    if not cv2.imwrite(path, photo, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        raise OSError(f"{path}: cannot be written")
    x, y, box_width, box_height = portrait.box_of(landmarks)
    left, top = max(0, round(x)), max(0, round(y))
    box = [left, top, min(width, round(x + box_width)) - left, min(height, round(y + box_height)) - top]
    return {"name": os.path.basename(path), "landmarks": landmarks.round().astype(int).ravel().tolist(), "box": box,
            "attributes": person.attributes()}


def _write_celeba(root: str, faces: List[Dict[str, Any]]) -> None:
    """CelebA's four text files: a count, a header, then a line an image in aligned columns."""
    for name in ("Anno", "Eval"):
        os.makedirs(os.path.join(root, name), exist_ok=True)

    def table(name: str, header: str, rows: List[List[int]], width: int) -> None:
        lines = [f"{face['name']} " + " ".join(f"{value:{width}d}" for value in row) for face, row in zip(faces, rows)]
        _write_lines(os.path.join(root, "Anno", name), [str(len(faces)), header, *lines])

    table("list_attr_celeba.txt", " ".join(recipe.CELEBA_ATTRIBUTES) + " ",
          [[1 if face["attributes"].get(name) else -1 for name in recipe.CELEBA_ATTRIBUTES] for face in faces], 2)
    table("list_bbox_celeba.txt", "image_id x_1 y_1 width height", [face["box"] for face in faces], 4)
    points = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    table("list_landmarks_celeba.txt", " ".join(f"{point}_{axis}" for point in points for axis in "xy"),
          [face["landmarks"] for face in faces], 4)
    ends = [round(sum(PARTITION[:part + 1]) * len(faces)) for part in range(3)]
    _write_lines(os.path.join(root, "Eval", "list_eval_partition.txt"),
                 [f"{face['name']} {sum(index >= end for end in ends)}" for index, face in enumerate(faces)])


def _write_fotw(root: str, faces: List[Dict[str, Any]], training: int) -> None:
    """FotW's two tables, CRLF at the ends of lines as in its own."""
    for folder, name, part in (("smiles_trset", "gender_fex_trset.csv", faces[:training]),
                               ("smiles_valset", "gender_fex_valset.csv", faces[training:])):
        lines = [",".join(map(str, (face["name"], *face["box"], int(not face["attributes"]["Male"]),
                                    int(face["attributes"]["Smiling"])))) for face in part]
        _write_lines(os.path.join(root, folder, name), [FOTW_HEADER, *lines], "\r\n")


def _write_lines(path: str, lines: List[str], end: str = "\n") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii", newline=end) as stream:
        stream.writelines(line + "\n" for line in lines)


def draw_sheet(photos: List[str], path: str, columns: int = 8, height: int = 200) -> None:
    """Put photos side by side into one picture, each in a square of `height` pixels."""
    import cv2
    import numpy as np

    tiles = []
    for photo in photos:
        image = cv2.imread(photo)
        if image is None:
            raise OSError(f"{photo}: cannot be read; draw the faces again: --force")
        scale = height / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile = np.zeros((height, height, 3), np.uint8)
        top, left = (height - image.shape[0]) // 2, (height - image.shape[1]) // 2
        tile[top:top + image.shape[0], left:left + image.shape[1]] = image
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start:start + columns]) for start in range(0, len(tiles), columns)]
    if not cv2.imwrite(path, np.vstack(rows)):
        raise OSError(f"{path}: cannot be written")
