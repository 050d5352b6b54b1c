"""`convert_imageset`: writes a list of images to a database of Datums, the same records as Caffe's tool."""

from __future__ import annotations

import os

from torchcaffe.core import extras, log
from torchcaffe.data.database import create
from torchcaffe.core.errors import DataError
from torchcaffe.data.image_file import ImageFileError, decode, read_image_file


def convert_imageset(flags, root, listing, database):
    """Write `database` from the lines "name label" of `listing`; names are appended to `root` as they are."""
    from torchcaffe.data.image_list import read_list
    from torchcaffe.core.rng import generator
    from torchcaffe.data.shuffles import shuffle

    lines = read_list(listing, blank_lines=True)
    if flags.shuffle:
        log.info("Shuffling data")
        shuffle(lines, generator())
    log.info(f"A total of {len(lines)} images.")
    if flags.encode_type and not flags.encoded:
        log.info("encode_type specified, assuming encoded=true.")
    size = (max(0, flags.resize_height), max(0, flags.resize_width))
    expected = None
    with create(database, flags.backend) as writer:
        for index, (name, label) in enumerate(lines):
            datum = read_datum(root + name, label, size, not flags.gray, _encoding(flags, name))
            if datum is None:
                continue
            if flags.check_size:
                expected = datum.channels * datum.height * datum.width if expected is None else expected
                if len(datum.data) != expected:
                    raise DataError(f"{root + name}: Incorrect data field size {len(datum.data)}, not {expected}")
            writer.put(f"{index:08d}_{name}", datum.SerializeToString())
            if writer.count % 1000 == 0:
                log.info(f"Processed {writer.count} files.")
    if writer.count % 1000:
        log.info(f"Processed {writer.count} files.")


def _encoding(flags, name):
    """File type to store, or "" for pixels."""
    if flags.encode_type or not flags.encoded:
        return flags.encode_type
    stem, dot, extension = name.rpartition(".")
    if not dot:
        log.warning(f"Failed to guess the encoding of '{name}'")
    return (extension if dot else name).lower()


def read_datum(path, label, size, color, encoding):
    """Datum of an image file, or None (and an ERROR line) where it cannot be read.

    Args:
        size: (height, width) to resize to where both are positive.
        color: three channels B, G, R; else one.
        encoding: store a file of this type (the original's bytes where it is one and nothing is resized), or "".
    """
    from torchcaffe.proto import caffe_pb2

    try:
        image = decode(read_image_file(path), "color" if color else "gray") if os.path.isfile(path) else None
    except (ImageFileError, OSError) as problem:
        log.error(f"{path}: {problem}")
        image = None
    if image is None:
        log.error(f"Could not open or find file {path}")
        return None
    height, width = size
    if height > 0 and width > 0:
        cv2 = extras.load("cv2")

        image = cv2.resize(image, (width, height))
    if encoding:
        return caffe_pb2.Datum(data=_encoded(path, image, encoding, size), label=label, encoded=True)
    planes = image if image.ndim == 3 else image[:, :, None]
    channels, (rows, columns) = planes.shape[2], planes.shape[:2]
    data = planes.transpose(2, 0, 1).tobytes()
    return caffe_pb2.Datum(channels=channels, height=rows, width=columns, data=data, label=label, encoded=False)


def _encoded(path, image, encoding, size):
    cv2 = extras.load("cv2")

    extension = os.path.splitext(path)[1][1:].lower()
    wanted = encoding.lower()
    if not any(size) and (extension == wanted or (extension, wanted) == ("jpeg", "jpg")):
        with open(path, "rb") as file:
            return file.read()
    try:
        return cv2.imencode(f".{encoding}", image)[1].tobytes()
    except cv2.error:
        raise DataError(
            f"{path}: OpenCV cannot write images of type '{encoding}'; give -encode_type png or jpg"
        ) from None
