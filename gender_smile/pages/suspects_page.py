"""The page on which a human decides about suspect labels: one HTML file that needs no network, and exports corrections.csv."""

from __future__ import annotations

import functools
import os
from typing import Dict, Optional, Sequence, Set

import recipe
from common.files import write_text
from gender_smile.pages import html
from gender_smile.pages.report import widest_first

PHOTO_PIXELS = 300  # longer side of a photo on the page


def write(path: str, profile: recipe.Profile, suspects: Sequence, total: int) -> None:
    """Write the page for `suspects` (gender_smile.evaluation.suspects.Suspect), of `total` labels."""
    data_set = recipe.target()
    photos = _photos(profile, [suspect.image for suspect in suspects])
    entries = [
        {"image": suspect.image.rsplit("/", 1)[-1], "column": data_set.columns[suspect.task], "label": suspect.label,
         "names": [*recipe.TASKS[suspect.task].classes, "undetermined"], "probability": round(suspect.probability, 4),
         "photo": photos[suspect.image]}
        for suspect in suspects
    ]
    write_text(path, html.render("suspects.html", profile=profile, data_set=data_set, total=total, entries=entries))


def _photos(profile: recipe.Profile, images: Sequence[str]) -> Dict[str, str]:
    """Image -> data: address of the photo where the data set is still in its place, else of its largest crop."""
    from lmdb_builders import manifest

    missing, data_set = set(images), recipe.target()
    urls: Dict[str, str] = {}
    for crop in widest_first():
        if not missing:
            break
        folder = recipe.absolute(recipe.lmdb_folder(profile.name, crop))
        paths = _photo_paths(manifest.read(folder).get(data_set.name, {}).get("folder"))
        urls.update({image: url for image in missing & set(paths) if (url := _photo(paths[image])) is not None})
        urls.update(_crops(os.path.join(folder, data_set.database("train")), missing - set(urls)))
        missing -= set(urls)
    return urls


@functools.lru_cache(maxsize=1)
def _photo_paths(folder: Optional[str]) -> Dict[str, str]:
    """Image -> path of its photo, by the tables of the data set in `folder`; empty where it is not there any more."""
    from lmdb_builders import readers
    from lmdb_builders.errors import BuildError

    try:
        records = readers.read(recipe.target().name, folder, ("train",)).records if folder and os.path.isdir(folder) else ()
    except BuildError:
        return {}
    return {record.image.rsplit("/", 1)[-1]: os.path.join(str(folder), record.image) for record in records}


def _photo(path: str) -> Optional[str]:
    import cv2

    from lmdb_builders.errors import ImageError
    from gender_smile.inference.photos import read_photo

    try:
        pixels = read_photo(path)
    except (ImageError, OSError):
        return None
    scale = PHOTO_PIXELS / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return html.data_url(pixels)


def _crops(folder: str, images: Set[str]) -> Dict[str, str]:
    from gender_smile.evaluation.faces import read_lmdb

    if not images or not os.path.isdir(folder):
        return {}
    return {name: html.data_url(crop) for name, _, crop in read_lmdb(folder, images)}
