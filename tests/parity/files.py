"""Files that the data layers of the cases read: LMDBs, images, HDF5, means. Runs in the project's environment."""

import os

import cv2
import h5py
import lmdb
import numpy as np  # noqa: E402

from torchcaffe.formats.files import write_blob
from torchcaffe.proto import caffe_pb2


def prepare(folder):
    """Fill `folder` (pathlib.Path)."""
    random = np.random.RandomState(7)
    photos = [random.randint(0, 256, (8, 7, 3)).astype(np.uint8) for _ in range(7)]
    raw = [
        caffe_pb2.Datum(channels=3, height=8, width=7, data=p.transpose(2, 0, 1).tobytes(), label=i)
        for i, p in enumerate(photos)
    ]
    database(folder / "lmdb", raw)
    values = random.normal(size=(5, 2 * 3 * 4))
    database(
        folder / "floats", [caffe_pb2.Datum(channels=2, height=3, width=4, float_data=row, label=-1) for row in values]
    )
    encoded = [
        caffe_pb2.Datum(data=cv2.imencode(".png", photo)[1].tobytes(), encoded=True, label=3) for photo in photos
    ]
    database(folder / "encoded", encoded)
    write_blob(folder / "mean.binaryproto", random.uniform(0, 255, (1, 3, 8, 7)).astype(np.float32))
    write_blob(folder / "infogain4.binaryproto", random.uniform(0, 2, (1, 1, 4, 4)).astype(np.float32))
    images(folder, photos)
    tables(folder, random)


def database(path, datums):
    environment = lmdb.open(os.fspath(path), map_size=2**22)
    with environment.begin(write=True) as transaction:
        for index, datum in enumerate(datums):
            transaction.put(b"%08d_item" % index, datum.SerializeToString())
    environment.close()


def images(folder, photos):
    names = ["photo %d.png" % index for index in range(len(photos))]
    for name, photo in zip(names, photos):
        cv2.imwrite(os.fspath(folder / name), photo)
    labels = ["3", "-2", "abc", "7x", "0", "12", "5"]
    (folder / "images.txt").write_text("".join("%s %s\n" % pair for pair in zip(names, labels)))
    windows(folder)
    (folder / "broken.txt").write_text("missing.png 1\n")


def windows(folder):
    """Lists of windows: objects and background, some at the edges of their images; and lists that are wrong."""
    random = np.random.RandomState(5)
    larger = random.randint(0, 256, (40, 60, 3)).astype(np.uint8)
    cv2.imwrite(os.fspath(folder / "large.png"), larger)
    cv2.imwrite(os.fspath(folder / "gray.png"), larger[..., 0])
    lines = []
    for index, (name, height, width) in enumerate((("large.png", 40, 60), ("gray.png", 40, 60), ("tall.jpg", 33, 21))):
        lines += ["# %d" % index, name, "3 %d %d" % (height, width), "12"]
        for number in range(12):
            x1, y1 = random.randint(0, width - 3), random.randint(0, height - 3)
            x2, y2 = random.randint(x1, width), random.randint(y1, height)
            if number < 2:  # the whole image, and one pixel in its corner
                x1, y1, x2, y2 = (0, 0, width - 1, height - 1) if number else (width - 1, 0, width - 1, 0)
            lines.append("%d %.2f %d %d %d %d" % (random.randint(1, 20), random.rand(), x1, y1, x2, y2))
    cv2.imwrite(os.fspath(folder / "tall.jpg"), larger[:33, :21])
    (folder / "windows.txt").write_text("\n".join(lines) + "\n")
    (folder / "no_object.txt").write_text("# 0 large.png 3 40 60 1 0 0.1 3 4 5 6\n")
    (folder / "outside.txt").write_text("# 0 large.png 3 40 60 1 4 0.9 3 4 5 60\n")
    (folder / "gone.txt").write_text("# 0 gone.png 3 40 60 2 1 0.9 3 4 5 6 1 0.1 3 4 5 6\n")
    (folder / "one_channel.txt").write_text("# 0 gray.png 1 40 60 1 1 0.9 3 4 5 6\n")
    (folder / "class0.txt").write_text("# 0 large.png 3 40 60 1 0 0.9 3 4 5 6\n")
    (folder / "no_background.txt").write_text("# 0 large.png 3 40 60 1 1 0.9 3 4 5 6\n")
    write_blob(folder / "window_mean.binaryproto", random.uniform(0, 255, (1, 3, 20, 20)).astype(np.float32))


def tables(folder, random):
    paths = []
    for index, rows in enumerate((5, 3, 4)):
        paths.append(os.fspath(folder / ("table%d.h5" % index)))
        with h5py.File(paths[-1], "w") as file:
            file["data"] = random.normal(size=(rows, 2, 3)).astype(np.float32)
            file["label"] = random.normal(size=(rows,))
            file["whole"] = random.randint(0, 100, (rows, 2)).astype(np.int32)
    (folder / "one.txt").write_text(paths[0] + "\n")
    (folder / "three.txt").write_text("\n".join(paths))
