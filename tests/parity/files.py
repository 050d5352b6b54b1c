"""Files that the data layers of the cases read: LMDBs, images, HDF5, means. Runs in the project's environment."""

import os

import cv2
import h5py
import lmdb
import numpy as np

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
    (folder / "broken.txt").write_text("missing.png 1\n")


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
