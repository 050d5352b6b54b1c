"""Reading a photo safely and upright: one function for builders and prediction, so that both see the same pixels.

A photo is turned by its EXIF orientation. Annotations and detections.csv count pixels as they are stored in the file; nets
and detector see upright photos: Orientation turns points and boxes from one to the other.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional, Tuple

import numpy as np

from lmdb_builders.errors import ImageError
from torchcaffe.core import memory
from torchcaffe.data.image_file import (
    BYTES_A_PIXEL, ImageFileError, check_jpeg, open_image, read_image_file,
)

SIDE_LIMIT = 32_766  # cv2.warpAffine addresses pixels with 16 bits
FLIPPED_X, FLIPPED_Y, SWAPPED = (2, 3, 7, 8), (3, 4, 6, 7), (5, 6, 7, 8)  # EXIF tags; flips come before the swap
Box = Tuple[float, float, float, float]  # x, y, width, height: covers x to x + width - 1


class Orientation(NamedTuple):
    """The turn of one photo. (0, 0) is the center of the top left pixel, stored or upright."""

    tag: int = 1  # EXIF's, 1 to 8; 1: stored upright
    width: int = 0  # stored pixels
    height: int = 0

    @property
    def is_upright(self) -> bool:
        return self.tag == 1

    def upright_points(self, points) -> np.ndarray:
        """N x 2 stored (x, y) as N x 2 float64 upright (x, y)."""
        points = self._flip(np.array(points, dtype=np.float64))
        return points[:, ::-1] if self.tag in SWAPPED else points

    def stored_points(self, points) -> np.ndarray:
        """The inverse of upright_points. Exact for float32 values: float64 holds their differences from a side."""
        points = np.array(points, dtype=np.float64)
        return self._flip(points[:, ::-1].copy() if self.tag in SWAPPED else points)

    def upright_box(self, box: Box) -> Box:
        """A stored box (x, y, width, height) in upright pixels. Values that are not finite stay so."""
        return self._box(box, self.upright_points)

    def stored_box(self, box: Box) -> Box:
        """The inverse of upright_box."""
        return self._box(box, self.stored_points)

    def _flip(self, points: np.ndarray) -> np.ndarray:
        if self.tag in FLIPPED_X:
            points[:, 0] = self.width - 1 - points[:, 0]
        if self.tag in FLIPPED_Y:
            points[:, 1] = self.height - 1 - points[:, 1]
        return points

    def _box(self, box: Box, turn) -> Box:
        if self.is_upright:
            return box
        x, y, width, height = box
        x, y = turn([[x, y], [x + width - 1, y + height - 1]]).min(axis=0)
        return (float(x), float(y), *((height, width) if self.tag in SWAPPED else (width, height)))


def read_image(path) -> np.ndarray:
    """Read an image file as H x W x 3 uint8, BGR, 0..255, turned upright by its EXIF orientation.

    Gray, palette, CMYK and 16-bit images become 8-bit color (16 bits keep their high byte, as in OpenCV); an alpha
    channel is dropped, as OpenCV and Caffe do. Of an animation, the first frame is read.

    Raises ImageError (text: the reason) for anything that is not a whole image of at most
    image_file.MEGAPIXELS_LIMIT megapixels; the size is taken from the header, before any pixel is decoded.
    """
    return read_with_orientation(path)[0]


def read_with_orientation(path) -> Tuple[np.ndarray, Orientation]:
    """read_image's pixels, and the turn that annotations in stored pixels need too. Raises ImageError."""
    path = os.fspath(path)
    _check_file(path)
    try:
        content = read_image_file(path)
    except (ImageFileError, OSError, ValueError) as error:
        reason = error if isinstance(error, ImageFileError) else f"cannot be opened: {error}"
        raise ImageError(str(reason)) from None
    return _decode(content)


def decode_image(content: bytes, most_megapixels: Optional[float] = None) -> np.ndarray:
    """read_image from the bytes of an image file.

    most_megapixels: decode a larger JPEG at a half, a quarter or an eighth of its sides; raises ImageError for a larger image
    of another format, or a JPEG that is too large even so.
    """
    return _decode(content, most_megapixels)[0]


def _decode(content: bytes, most_megapixels: Optional[float] = None) -> Tuple[np.ndarray, Orientation]:
    try:
        with open_image(content) as image:
            if most_megapixels is not None:
                _reduce(image, most_megapixels)
            _check_before_decoding(image, content)
            orientation = _orientation(image)
            image.load()
            return _to_bgr(_upright(image, orientation)), orientation
    except ImageFileError as error:
        raise ImageError(str(error)) from None


def _check_file(path: str) -> None:
    try:
        if os.path.isdir(path):
            raise ImageError("is a folder, not an image")
        if not os.path.exists(path):
            raise ImageError("file is missing")
        if not os.path.isfile(path):
            raise ImageError("not a regular file")
        if os.path.getsize(path) == 0:
            raise ImageError("file is empty (0 bytes)")
    except (ValueError, OSError) as error:  # a NUL byte in the name, a name too long, no permission
        raise ImageError(f"cannot be opened: {error}") from None


def _reduce(image, most_megapixels: float) -> None:
    """Let an opened JPEG be decoded with at most so many pixels. Raises ImageFileError where that cannot be."""
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        divisors = (1, 2, 4, 8)  # libjpeg's, which leaves out frequencies while it decodes
        fitting = (divisor for divisor in divisors if -(-width // divisor) * -(-height // divisor) <= most_megapixels * 1e6)
        divisor = next(fitting, divisors[-1])
        image.draft(None, (max(1, width // divisor), max(1, height // divisor)))
    if image.size[0] * image.size[1] > most_megapixels * 1e6:
        raise ImageFileError(f"{width} x {height} pixels is more than the limit of {most_megapixels:g} megapixels here")


def _check_before_decoding(image, content: bytes) -> None:
    """Raise ImageFileError for an opened image whose pixels would take too much memory or time."""
    width, height = image.size
    if max(width, height) > SIDE_LIMIT:
        raise ImageFileError(f"{width} x {height} pixels: a side is longer than the limit of {SIDE_LIMIT}")
    memory.require(BYTES_A_PIXEL * width * height, f"decoding {width} x {height} pixels", ImageFileError)
    if image.format in ("JPEG", "MPO"):
        check_jpeg(content)


def _orientation(image) -> Orientation:
    """Orientation of an opened Pillow image that is not loaded yet; upright where its EXIF is damaged.

    Only this tag is looked at: ImageOps.exif_transpose refuses a whole photo for a date that is a number.
    """
    from PIL import ExifTags

    width, height = image.size
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever Pillow's reader stumbles over
        tag = None
    if tag not in range(2, 9):
        return Orientation(1, width, height)
    if _turns_itself(image) and tag in SWAPPED:
        width, height = height, width  # Pillow states the size of the turned picture
    return Orientation(int(tag), width, height)


def _turns_itself(image) -> bool:
    """True where Pillow turns the picture when it is loaded: in TIFF, orientation is a part of the format."""
    return image.format == "TIFF"


def _upright(image, orientation: Orientation):
    """A loaded Pillow image turned upright."""
    from PIL import Image

    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
             5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
             8: Image.Transpose.ROTATE_90}  # fmt: skip
    if orientation.is_upright or _turns_itself(image):
        return image
    return image.transpose(turns[orientation.tag])


def _to_bgr(image) -> np.ndarray:
    """A loaded Pillow image of any mode as H x W x 3 uint8 BGR."""
    import cv2

    if image.mode.startswith("I") or image.mode == "F":
        gray = _sixteen_bits_to_eight(np.asarray(image), image.mode)
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    if image.mode in ("1", "L", "LA", "La"):
        return cv2.cvtColor(np.asarray(image.convert("L")), cv2.COLOR_GRAY2BGR)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB would warn; the alpha is dropped below
    if image.mode == "RGBA":
        return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGBA2BGR)
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)


def _sixteen_bits_to_eight(gray: np.ndarray, mode: str) -> np.ndarray:
    if mode == "F" or gray.min(initial=0) < 0 or gray.max(initial=0) > 65_535:
        raise ImageFileError(f"pixels of type {mode} are outside 0..65535: the brightness scale is unknown")
    return (gray.astype(np.uint16) >> 8).astype(np.uint8)
