"""Image files of a few bytes whose headers ask for gigabytes, and a JPEG that asks for hours."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

SIDE = 60_000
KINDS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000")


def png(width: int, height: int) -> bytes:
    """A PNG that says it is width x height, and has no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def picture(kind: str, size=(16, 16), **options) -> bytearray:
    """A real image file of one color."""
    file = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(file, kind, **options)
    return bytearray(file.getvalue())


def bomb(kind: str, width: int = SIDE, height: int = SIDE) -> bytes:
    """A file of one of KINDS whose header says width x height (WebP: at most 16,383 a side)."""
    if kind == "PNG":
        return png(width, height)
    if kind == "PPM":
        return b"P6\n%d %d\n255\nabc" % (width, height)
    data = picture(kind, **({"lossless": True} if kind == "WEBP" else {}))
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, width, height)
    elif kind == "GIF":
        struct.pack_into("<HH", data, 6, width, height)
    elif kind == "WEBP":
        at = data.index(b"VP8L") + 9
        (bits,) = struct.unpack_from("<I", data, at)
        sides = (min(width, 16_383) - 1) | (min(height, 16_383) - 1) << 14
        struct.pack_into("<I", data, at, bits & ~0xFFFFFFF | sides)
    elif kind == "JPEG2000":
        struct.pack_into(">II", data, data.index(b"ihdr") + 4, height, width)
        for offset in (6, 22):  # image and tile
            struct.pack_into(">II", data, data.index(b"\xff\x51") + offset, width, height)
    else:
        tiff_sizes(data, {256: width, 257: height, 278: height})  # 278: rows of the one strip
    return bytes(data)


def tiff_sizes(data: bytearray, values) -> None:
    """Overwrite tags of a little-endian TIFF's first directory."""
    (directory,) = struct.unpack_from("<I", data, 4)
    for index in range(struct.unpack_from("<H", data, directory)[0]):
        entry = directory + 2 + 12 * index
        (tag,) = struct.unpack_from("<H", data, entry)
        if tag in values:
            struct.pack_into("<HHII", data, entry, tag, 4, 1, values[tag])


def many_scans(scans: int, side: int = 64) -> bytes:
    """A whole progressive JPEG whose last scan comes again and again: each costs the time of the image."""
    data = bytes(picture("JPEG", (side, side), progressive=True))
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * scans + data[-2:]
