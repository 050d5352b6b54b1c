"""Where the picture of each photo goes, and its writing."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Sequence, Tuple

from gender_smile.inference.answers import printable
from gender_smile.inference.photos import PICTURE_SUFFIXES as SUFFIXES
from gender_smile.inference.photos import STANDARD_INPUT, Photo, Source, is_own_picture
from gender_smile.inference.prediction import Prediction


class PlaceError(ValueError):
    """--draw names no place for a picture; the message says why."""


class Pictures:
    """The pictures of a run of predict.py: `draw` is a folder, or a file.

    An existing folder, or a path without suffix, is a folder of <photo>_prediction.png; a file is used as it is for one
    photo and numbered (out_1.png, out_2.png, ...) for several. Frames of videos add their number. No input is ever
    overwritten, and under a name that we chose nothing but an earlier picture of ours. Raises PlaceError where `draw` is no place for a picture.
    """

    def __init__(self, draw: str, sources: Sequence[Source]):
        self.draw = draw
        names = [source.path for source in sources] or ["camera"]
        self.inputs = {os.path.realpath(source.path) for source in sources}
        self.paths: Dict[str, List[str]] = {}  # of a name given twice: twice
        for name, path in zip(names, picture_paths(draw, names)):
            self._refuse_input(path)
            self.paths.setdefault(name, []).append(path)

    def path(self, photo: Photo) -> str:
        """Where the picture of this photo goes; photos are asked about in the order of the sources."""
        own = self.paths.get(photo.name) or next(iter(self.paths.values()))  # a camera has only one
        if photo.frame is None:
            return own.pop(0) if len(own) > 1 else own[0]
        stem, suffix = os.path.splitext(own[0])
        path = f"{stem}_{photo.frame:06d}{suffix}"
        self._refuse_input(path)
        return path

    def write(self, photo: Photo, predictions: Sequence[Prediction]) -> Tuple[Optional[str], str]:
        """(what is wrong or None, the picture's path)."""
        from gender_smile.inference.draw import draw

        assert photo.pixels is not None
        path = ""
        try:
            path = self.path(photo)
            draw(photo.pixels, predictions, path)
        except PlaceError as error:  # of one frame: the others have their places
            return str(error), path
        except OSError as error:
            return f"{printable(path)}: cannot write the picture: {error.strerror or error}", path
        return None, path

    def _refuse_input(self, path: str) -> None:
        if os.path.realpath(path) in self.inputs:
            raise PlaceError(f"--draw: {path} would overwrite an input image; name another place")
        if path != self.draw and os.path.isfile(path) and not is_own_picture(path):
            raise PlaceError(f"--draw: {path} is there and was not drawn by predict.py; move it, or name another place")


def picture_paths(draw: str, images: Sequence[str]) -> List[str]:
    """A path for each image. Raises PlaceError where `draw` is no place for a picture."""
    if not draw:
        raise PlaceError("--draw: '' names no place; name a folder or a file")
    stem, suffix = os.path.splitext(draw)
    if os.path.isdir(draw) or draw.endswith(os.sep) or not suffix:
        if os.path.isfile(draw):
            raise PlaceError(f"--draw: {draw} is a file without suffix; name a folder or a file with {SUFFIXES[0]}")
        return _folder_paths(draw, images)
    if suffix.lower() not in SUFFIXES:
        raise PlaceError(f"--draw: {draw}: a picture is {', '.join(SUFFIXES)}; a path without suffix is a folder")
    if len(images) == 1:
        return [draw]
    digits = len(str(len(images)))
    return [f"{stem}_{number:0{digits}d}{suffix}" for number in range(1, len(images) + 1)]


def _folder_paths(folder: str, images: Sequence[str]) -> List[str]:
    paths, used = [], set()
    numbers: Dict[str, int] = {}  # of the names that are equal, in several folders: the next one
    for image in images:
        stem = "stdin" if image == STANDARD_INPUT else os.path.splitext(os.path.basename(image))[0]
        name, number = f"{stem}_prediction.png", numbers.get(stem, 2)
        while name in used:
            name, number = f"{stem}_prediction_{number}.png", number + 1
        used.add(name)
        numbers[stem] = number
        paths.append(os.path.join(folder, name))
    return paths
