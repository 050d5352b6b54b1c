"""lmdb_writer.py: what another reader finds, a map that fills, a disk that fills."""

from __future__ import annotations

import cv2
import lmdb
import numpy as np
import pytest

from lmdb_builders.errors import BuildError
from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, labels_datum, record_key, stored_bytes
from torchcaffe.data import database
from torchcaffe.core.errors import DataError
from torchcaffe.proto import caffe_pb2

CROP = np.random.RandomState(1).randint(0, 256, (8, 8, 3), np.uint8)


def test_raw_datum():
    datum = caffe_pb2.Datum.FromString(image_datum(encode_crop(CROP, "raw"), 8, "raw", 1))
    assert (datum.channels, datum.height, datum.width, datum.label) == (3, 8, 8, 1)
    assert datum.HasField("encoded") and not datum.encoded
    planes = np.frombuffer(datum.data, np.uint8).reshape(3, 8, 8)
    for channel in range(3):  # B, G, R, as OpenCV reads photos
        assert np.array_equal(planes[channel], CROP[:, :, channel])


@pytest.mark.parametrize("encode, difference", [("png", 0), ("jpg", 12)])
def test_encoded_datum(encode, difference):
    smooth = cv2.resize(CROP, (64, 64), interpolation=cv2.INTER_CUBIC)
    datum = caffe_pb2.Datum.FromString(image_datum(encode_crop(smooth, encode), 64, encode, 1))
    assert datum.encoded and datum.label == 1 and not datum.HasField("height")
    decoded = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - smooth).mean() <= difference


def test_labels_datum():
    datum = caffe_pb2.Datum.FromString(labels_datum(bytes([1, 0, 1])))
    assert (datum.channels, datum.height, datum.width) == (3, 1, 1) and not datum.data
    assert list(datum.float_data) == [1.0, 0.0, 1.0]


def test_keys_sort_as_they_are_numbered():
    keys = [record_key(number, f"folder/{10 - number}.jpg") for number in range(11)]
    assert keys == sorted(keys) and keys[3] == b"00000003_7.jpg"


@pytest.mark.parametrize("size", [100, 5_000])
def test_map_grows_and_order_is_kept(tmp_path, size, monkeypatch):
    monkeypatch.setattr(database, "COMMIT_BYTES", 20_000)
    writer = LmdbWriter(str(tmp_path / "db"), map_size=32 << 10)
    values = [bytes([number % 256]) * size for number in range(600)]
    for number, value in enumerate(values):
        writer.put(record_key(number, "x"), value)
    writer.close()
    with lmdb.open(str(tmp_path / "db"), readonly=True) as environment, environment.begin() as transaction:
        found = list(transaction.cursor())
    assert [key for key, _ in found] == [record_key(number, "x") for number in range(600)]
    assert [value for _, value in found] == values
    estimate = 600 * stored_bytes(size)
    assert 0.6 * estimate < (tmp_path / "db/data.mdb").stat().st_size < 1.1 * estimate + 65_536


def test_key_out_of_order_is_refused(tmp_path):
    writer = LmdbWriter(str(tmp_path / "db"))
    writer.put(b"2", b"")
    writer.put(b"1", b"")
    with pytest.raises(DataError, match="not greater"):
        writer.close()


def test_full_disk_is_one_line(tmp_path):
    """A limit on the size of files makes the system refuse the write, as a full disk does."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = LmdbWriter(str(tmp_path / "db"))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        for number in range(100):
            writer.put(record_key(number, "x"), bytes(10_000))
        with pytest.raises(BuildError, match=r"db: the disk is full .* free space, or build one scheme"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert writer._lmdb is None
