"""Decode image files whose headers state a size within the limit; all image readers share this limit.

A JPEG of 700 bytes can ask for 5 GB: OpenCV decodes up to a gigapixel, Pillow warns from 89 megapixels on.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import sys
import warnings

from torchcaffe.core import extras

MEGAPIXELS_LIMIT = 100  # ours: decoding takes 1.4 GB at this size; the largest phone photos have 200, most 12 or 50
VARIABLE = "MEGAPIXELS_LIMIT"  # of the environment: another limit
SCANS_LIMIT = 100  # of a JPEG; ten are usual, and each costs the time of a whole image, whatever it holds
BYTES_A_PIXEL = 24  # at most, while it is decoded: measured 14, and 23 for JPEG 2000
FILE_BYTES_A_PIXEL = 8  # 16 bits a channel, alpha, not compressed

# Decoders that read pixels and nothing else: Pillow's EPS reader, for one, starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # bytes 8 to 12 of phones' photos
AVIF_BRANDS = (b"avif", b"avis")

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not what a scan's data hold
_ALONE = (0x01, 0xD8)  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers that state a size
_END, _SCAN = 0xD9, 0xDA


class ImageFileError(ValueError):
    """Not an image, an image that is too large, or one of unknown size. The message is the reason."""


def megapixels_limit() -> float:
    """Largest size that is decoded, in megapixels. Raises ImageFileError where the environment variable is not a number."""
    text = os.environ.get(VARIABLE) or str(MEGAPIXELS_LIMIT)
    try:
        return float(text)
    except ValueError:
        raise ImageFileError(f"{VARIABLE} in the environment is {text!r}, not a number of megapixels") from None


def let_pillow_open() -> None:
    """Raise Pillow's own limit to ours: it refuses images of more than twice its limit."""
    Image = extras.load("PIL.Image")

    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, int(megapixels_limit() * 1e6))


def check_size(width: int, height: int) -> None:
    """Raise ImageFileError for an image of this size above the limit."""
    limit = megapixels_limit()
    if not width * height <= limit * 1e6:
        raise ImageFileError(
            f"{width} x {height} pixels is more than the limit of {limit:g} megapixels; set {VARIABLE}=N in the environment "
            "to change it"
        )


def read_image_file(path) -> bytes:
    """The bytes of an image file. Raises ImageFileError where it has more than an image of the limit, OSError.

    Read at once: decoders that read from a file may allocate as many bytes as its header claims.
    """
    most = int(megapixels_limit() * 1e6 * FILE_BYTES_A_PIXEL)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ImageFileError(f"a file of {size:,} bytes, more than {megapixels_limit():g} megapixels take ({VARIABLE})")
        return file.read(most)


def check_image(data: bytes) -> None:
    """Raise ImageFileError unless the image file `data` begins as one that may be decoded."""
    if data[:2] == b"\xff\xd8":
        check_jpeg(data)  # much faster than Pillow, and the format of most databases
        return
    with open_image(data):
        pass


@contextlib.contextmanager
def open_image(data: bytes):
    """The image file `data` as Pillow opens it: size known and within the limit, pixels not decoded yet.

    Raises ImageFileError, also for whatever decoding raises inside the block.
    """
    PIL, Image = extras.load("PIL"), extras.load("PIL.Image")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, and its own size warning
            let_pillow_open()
            with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
                check_size(*image.size)
                yield image
    except ImageFileError:
        raise
    except PIL.UnidentifiedImageError:
        raise ImageFileError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ImageFileError(f"more than the limit of {megapixels_limit():g} megapixels") from None
    except MemoryError:
        raise ImageFileError("not enough memory to decode it") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... on broken bytes
        raise ImageFileError(f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}") from None


def _formats(data: bytes) -> tuple:
    """FORMATS, or HEIF alone for a phone's HEIC photo. Raises ImageFileError without pillow-heif, and for AVIF."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in AVIF_BRANDS:
        raise ImageFileError("an AVIF image, which is not supported: save it as JPEG or PNG")
    if brand not in HEIF_BRANDS:
        return FORMATS
    try:
        extras.load("pillow_heif").register_heif_opener()
    except extras.MissingPackageError as missing:
        raise ImageFileError(f"{missing}; or save the photo as JPEG") from None
    return ("HEIF",)


def check_jpeg(data) -> None:
    """The same for a JPEG (bytes or a map of the file): from marker to marker, as far as its end or its damage."""
    position, scans = 2, 0
    while scans <= SCANS_LIMIT and (found := _MARKER.search(data, position)):
        position = found.start()
        marker = data[position + 1]
        if marker == _END:
            return
        if marker in _FRAMES and position + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 5)
            check_size(width, height)
        scans += marker == _SCAN
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 if marker in _ALONE else 2 + length
    if scans > SCANS_LIMIT:
        raise ImageFileError(f"more than {SCANS_LIMIT} scans, each of which takes as long as a whole image")


def decode(data: bytes, form: str = ""):
    """H×W×3 (B, G, R) or H×W uint8 of an image file's bytes, as cv2.imdecode.

    Args:
        form: "color", "gray", or "" for what the file holds, alpha included.
    Raises:
        ImageFileError: no image, too large, or not of 8 bits.
    """
    if "cv2" not in sys.modules:  # its own limit is read when it is loaded
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(int(megapixels_limit() * 1e6)))
    import numpy as np

    cv2 = extras.load("cv2")

    check_image(data)
    flag = {"color": cv2.IMREAD_COLOR, "gray": cv2.IMREAD_GRAYSCALE, "": cv2.IMREAD_UNCHANGED}[form]
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as problem:
        raise ImageFileError(f"OpenCV cannot decode it ({problem.err or problem.func})") from None
    if image is None:
        raise ImageFileError("not an image that OpenCV can decode")
    if image.dtype != np.uint8:
        raise ImageFileError(f"an image of {image.dtype}, not of 8 bits (force_color makes it so)")
    return image
