"""Targets of lmdb_builders: the data sets' tables, detections, manifests and photos."""

from __future__ import annotations

import io
import json
import os

import numpy as np
from fuzz_target import target
from PIL import Image

import recipe
from lmdb_builders import detections, manifest
from lmdb_builders.celeba import BOX_COLUMNS, LANDMARK_COLUMNS, read_celeba
from lmdb_builders.detections import read_detections
from lmdb_builders.errors import BuildError, ImageError
from lmdb_builders.fotw import read_fotw
from lmdb_builders.images import read_with_orientation

SEPARATOR = b"\n=====\n"  # between the files of a target that reads several
NAMES = ("000001.jpg", "000002.jpg", "folder/a.jpg")
CELEBA_FILES = ("list_attr_celeba.txt", "list_eval_partition.txt", "list_landmarks_celeba.txt", "list_bbox_celeba.txt")


def check_dataset(dataset, folder):
    """What every reader promises of its records: images inside the folder, labels of a byte, a readable report."""
    root = os.path.realpath(folder)
    for record in dataset.records:
        assert os.path.realpath(os.path.join(root, record.image)).startswith(root + os.sep), record.image
        assert len(record.labels) == len(dataset.label_names) and set(record.labels) <= {0, 1, 2}
        assert record.landmarks is None or record.landmarks.shape == (5, 2)
    json.dumps([entry._asdict() for entry in dataset.skipped] + dataset.notes)


def celeba_seeds(folder):
    labels = list(recipe.LABELS)
    turned = ["Male" if name == "Female" else name for name in labels]
    rows = [f"{name} " + " ".join(["1"] * 20 + ["-1"] * 20) for name in NAMES]
    attributes = "\n".join(["3", " ".join(turned), *rows])
    partition = "\n".join(f"{name} {index}" for index, name in enumerate(NAMES))
    points = "\n".join(["3", " ".join(LANDMARK_COLUMNS), *(f"{n} 30 40 60 40 45 55 33 70 58 70" for n in NAMES)])
    boxes = "\n".join(["3", "image_id " + " ".join(BOX_COLUMNS), *(f"{n} 10 20 80 90" for n in NAMES)])
    yield SEPARATOR.join(text.encode() for text in (attributes, partition, points, boxes))
    commas = attributes.replace(" ", ",").replace(turned[0], "image_id," + turned[0], 1)
    texts = (text.replace("\n", "\r\n").encode() for text in (commas, partition, points, boxes))
    yield SEPARATOR.join(texts)


@target(celeba_seeds, [BuildError], [b"image_id", b"../../x.jpg", b"/etc/passwd", SEPARATOR])
def celeba(data, folder):
    photos = folder / "img_celeba"
    if not photos.exists():
        (photos / "folder").mkdir(parents=True)
        for name in NAMES:
            (photos / name).touch()
    for name, part in zip(CELEBA_FILES, [*data.split(SEPARATOR), b"", b"", b""]):
        (folder / name).write_bytes(part)
    check_dataset(read_celeba(str(folder), splits=("train", "val", "test")), folder)


def fotw_seeds(folder):
    yield (
        b"image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile\r\n000001.jpg,10,20,80.5,90,0,1\r\n"
        b"000002.jpg,-3,0,1e3,9,2,0\r\nfolder/a.jpg,1,1,1,1,1,1\r\n../out.jpg,1,1,1,1,1,1\r\n"
    )


@target(fotw_seeds, [BuildError], [b"../../x.jpg", b"/etc/passwd"])
def fotw(data, folder):
    photos = folder / "smiles_trset"
    if not photos.exists():
        (photos / "folder").mkdir(parents=True)
        for name in NAMES:
            (photos / name).touch()
    (photos / "gender_fex_trset.csv").write_bytes(data)
    check_dataset(read_fotw(str(folder), ("train",)), folder)


def detection_seeds(folder):
    detections.rewrite(str(folder / "seed.csv"), {
        "a.jpg": detections.Detection("ok", tuple(map(float, range(15)))),
        'b "x".jpg': detections.Detection("ok", (None,) * 5 + (1.5,) * 10),
        "c.jpg": detections.Detection("unreadable: file is empty (0 bytes)"),
    })
    yield (folder / "seed.csv").read_bytes()


@target(detection_seeds, [BuildError], [name.encode() for name in detections.COLUMNS])
def detection_table(data, folder):
    (folder / "detections.csv").write_bytes(data)
    found = read_detections(str(folder / "detections.csv"))
    for image, detection in found.items():
        assert isinstance(image, str) and isinstance(detection.status, str)
        if detection.status == detections.OK:
            assert detection.landmarks.shape == (5, 2)
    detections.rewrite(str(folder / "again.csv"), found)
    assert list(read_detections(str(folder / "again.csv"))) == list(found)


@target(lambda folder: [b'{"landmarks": "dataset", "sources": {"a": "b"}, "sha256": null}'], [BuildError])
def detection_mark(data, folder):
    (folder / "mark.json").write_bytes(data)
    origin = detections._read_origin(str(folder / "mark.json"))
    (folder / "table.csv").touch()
    detections._is_users(str(folder / "table.csv"), origin)
    detections._same_origin(origin, {"landmarks": "dataset", "sources": {"a": "c"}})


MANIFESTS = [
    b'{"fotw": {"facts": {"a": 1}, "split_facts": {"val": {"b": 2}}, "images": {"x": 3}, "rows": {"val": 3}, '
    b'"unusable_labels": {}, "skipped": []}, "scheme": "scheme1"}',
    b'{"fotw": {"facts": {"a": 1}, "images": {"x": 3}, "rows": {}, "skipped": []}, "scheme": "scheme1"}',
    b'{"fotw": {"facts": {"a": 1}, "images": 3}}',
    b'{"fotw": 1}',
    b"[]",
]


@target(lambda folder: MANIFESTS, [BuildError])
def build_manifest(data, folder):
    (folder / manifest.FILE).write_bytes(data)
    wanted = manifest.Facts({"a": 1}, {"val": {"b": 2}})
    assert manifest.missing_splits(str(folder), "fotw", wanted, lambda split: ["x"]) in ([], ["val"])


def photo_seeds(folder):
    y, x = np.mgrid[0:24, 0:20]
    colors = Image.fromarray(np.stack([x * 12, y * 10, 255 - x * 5 - y], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for picture, kind, options in (
        (colors, "JPEG", {"exif": exif}), (colors, "JPEG", {"progressive": True}), (colors.convert("CMYK"), "JPEG", {}),
        (colors, "PNG", {"exif": exif}), (colors.convert("I;16"), "PNG", {}), (colors.quantize(16), "PNG", {"transparency": 3}),
        (colors, "BMP", {}), (colors.quantize(16), "GIF", {"save_all": True, "append_images": [colors.quantize(8)]}),
        (colors, "TIFF", {}), (colors, "TIFF", {"compression": "tiff_lzw"}), (colors.convert("F"), "TIFF", {}),
        (colors, "TIFF", {"compression": "jpeg"}), (colors, "WEBP", {}), (colors, "WEBP", {"lossless": True}),
        (colors, "PPM", {}), (colors, "JPEG2000", {}), (colors, "MPO", {"save_all": True, "append_images": [colors]}),
        (colors.convert("1"), "TIFF", {"compression": "group4"}),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        yield file.getvalue()


@target(photo_seeds, [ImageError], [b"\xff\xd8\xff", b"\xff\xda", b"IHDR", b"IDAT", b"VP8L", b"\x00\x00\xea\x60"])
def photo(data, folder):
    path = folder / "photo.jpg"
    path.write_bytes(data)
    try:
        image, orientation = read_with_orientation(path)
    except ImageError as refusal:
        assert "not enough memory" not in str(refusal), refusal
        raise
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size
    assert sorted(image.shape[:2]) == sorted((orientation.height, orientation.width))

