"""Reading Datums without protobuf gives what protobuf gives, whatever the bytes."""

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from torchcaffe.data.datum import StoredDatum, read_datum
from torchcaffe.proto import caffe_pb2

FIELDS = ("channels", "height", "width", "data", "label", "encoded")
INT32 = st.integers(-(2**31), 2**31 - 1)


def protobuf(data):
    try:
        return caffe_pb2.Datum.FromString(data)
    except DecodeError:
        return None


def check(data):
    expected = protobuf(data)
    try:
        found = read_datum(memoryview(data))
    except DecodeError:
        assert expected is None
        return
    assert expected is not None
    assert [bytes(found.data) if name == "data" else getattr(found, name) for name in FIELDS] == [
        getattr(expected, name) for name in FIELDS
    ]
    np.testing.assert_array_equal(np.array(found.float_data, np.float32), np.array(expected.float_data, np.float32))


datums = st.builds(
    caffe_pb2.Datum,
    channels=INT32, height=INT32, width=INT32, label=INT32, encoded=st.booleans(), data=st.binary(max_size=300),
    float_data=st.lists(st.floats(width=32, allow_nan=False), max_size=4),
)  # fmt: skip


@given(st.lists(datums, min_size=1, max_size=2))
def test_datums_also_joined_ones_whose_last_fields_count(messages):
    check(b"".join(message.SerializeToString() for message in messages))


@settings(max_examples=300)
@given(datums, st.integers(0, 400), st.binary(max_size=12))
def test_damaged_datums(message, position, damage):
    data = bytearray(message.SerializeToString())
    data[position : position + len(damage)] = damage
    check(bytes(data))


@given(st.binary(max_size=40))
def test_any_bytes(data):
    check(data)


def test_an_image_is_not_copied():
    datum = caffe_pb2.Datum(channels=1, height=2, width=2, data=b"\1\2\3\4", label=7, encoded=False)
    record = bytearray(datum.SerializeToString())
    found = read_datum(memoryview(record))
    assert isinstance(found, StoredDatum) and found.label == 7
    record[record.index(b"\1\2\3\4")] = 9
    assert bytes(found.data) == b"\x09\2\3\4"
