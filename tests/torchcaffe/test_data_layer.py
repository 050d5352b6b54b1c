"""The Data layer on LMDBs written here with lmdb and protobuf alone: order, wrapping, transformations, mistakes.

Every test runs twice: batches made on the host, as for a net on the CPU, and on the device, as for one on a GPU.
"""

import subprocess
import sys

import cv2
import lmdb
import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core.errors import DataError, NetError
from torchcaffe.formats.files import write_blob
from torchcaffe.data.prefetch import Buffers
from torchcaffe.proto import caffe_pb2
from torchcaffe.data.transformer import Transformer

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 8), dtype=np.uint8)


@pytest.fixture(autouse=True, params=["host", "device"])
def where(request, monkeypatch):
    monkeypatch.setattr(Transformer, "finishes_on", lambda self, device: request.param == "device")
    return request.param


def write(path, datums):
    with lmdb.open(str(path), map_size=1 << 25) as environment, environment.begin(write=True) as transaction:
        for index, datum in enumerate(datums):
            transaction.put(f"{index:08d}_x".encode(), datum.SerializeToString())
    return str(path)


def raw(array, label=0):
    channels, height, width = array.shape
    pixels = {"data": array.tobytes()} if array.dtype == np.uint8 else {"float_data": array.ravel()}
    return caffe_pb2.Datum(channels=channels, height=height, width=width, label=label, **pixels)


@pytest.fixture
def database(tmp_path):
    return write(tmp_path / "lmdb", [raw(image, label) for label, image in enumerate(IMAGES)])


def data_net(path, batch=2, transform=""):
    return f"""layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }}
        data_param {{ source: "{path}" backend: LMDB batch_size: {batch} }} }}"""


def test_arrays_are_lent_again_when_the_last_tensor_on_them_is_gone():
    buffers = Buffers(pinned=False)
    first, tensor = buffers.take((4, 3), np.float32)
    tensor[2, 1] = 7
    assert first[2, 1] == 7
    view = tensor[1:].numpy()
    del tensor
    assert buffers.take((4, 3), np.float32)[0] is not first  # and is free again at once, as nothing is done with it
    del view
    assert any(buffers.take((4, 3), np.float32)[0] is first for _ in range(2))
    assert buffers.take((3, 4), np.float32)[0].shape == (3, 4)


def test_key_order_goes_on_across_batches_and_wraps_in_the_middle(make_net, database):
    net = make_net(data_net(database))
    labels = []
    for _ in range(4):
        net.forward()
        labels += list(net.blobs["label"].data)
        np.testing.assert_array_equal(net.blobs["data"].data, IMAGES[net.blobs["label"].data.astype(int)])
    assert labels == [0, 1, 2, 3, 4, 0, 1, 2]


def test_mean_scale_and_center_crop(make_net, database):
    transform = "mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5 crop_size: 4"
    net = make_net(data_net(database, 5, transform), caffe.TEST)
    net.forward()
    expected = (IMAGES[:, :, 1:5, 2:6] - np.array([1, 2, 3.0]).reshape(1, 3, 1, 1)) * 0.5
    np.testing.assert_allclose(net.blobs["data"].data, expected, rtol=1e-6)


FLOATS = np.random.default_rng(1).normal(size=(5, 3, 6, 8)).astype(np.float32)
GRAY = [image[:1] for image in IMAGES]
SIX = [np.concatenate([image, image[::-1]]) for image in IMAGES]
MIXED = [floats if index == 3 else image for index, (image, floats) in enumerate(zip(IMAGES, FLOATS))]
LIST = np.random.default_rng(2).normal(size=(5, 600, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("arrays", [IMAGES, FLOATS, GRAY, SIX, MIXED], ids=["uint8", "float", "gray", "six", "mixed"])
@pytest.mark.parametrize("mean", ["", "mean_value: 93.594", "each", "mean_file"])
@pytest.mark.parametrize("crop", ["", "crop_size: 5"])
@pytest.mark.parametrize("scale", ["", "scale: 0.017"])
def test_each_transformation_in_exact_float32(make_net, tmp_path, arrays, mean, crop, scale):
    path, channels = write(tmp_path / "lmdb", [raw(array) for array in arrays]), len(arrays[0])
    image = np.random.default_rng(3).uniform(0, 255, arrays[0].shape).astype(np.float32)
    write_blob(tmp_path / "mean.binaryproto", image[None])
    values = [10.3 * (index + 1) for index in range(channels)]
    each = "".join(f"mean_value: {value} " for value in values)
    setting = {"each": each, "mean_file": f'mean_file: "{tmp_path}/mean.binaryproto"'}.get(mean, mean)
    net = make_net(data_net(path, 5, f"mirror: true {setting} {crop} {scale}") + SILENCE, seed=5)
    net.forward()
    subtracted = {"": 0, "mean_value: 93.594": 93.594, "each": np.reshape(values, (-1, 1, 1)), "mean_file": image}[mean]
    main = np.random.RandomState(5).randint(0, 2**32, 3, dtype=np.uint32)
    draws = np.random.RandomState(main[1]).randint(0, 2**32, (5, 3 if crop else 1), dtype=np.uint32)
    expected = []
    for array, draw in zip(arrays, draws):
        whole = array.astype(np.float32) - np.asarray(subtracted, np.float32)
        if crop:
            top, left = draw[1] % 2, draw[2] % 4
            whole = whole[:, top : top + 5, left : left + 5]
        whole = whole * np.float32(0.017) if scale else whole
        expected.append(whole[:, :, ::-1] if draw[0] % 2 else whole)
    assert 0 < sum(draw[0] % 2 for draw in draws) < 5
    found = net.blobs["data"].tensor()
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_many_floats_a_record_are_a_row_of_numbers(make_net, tmp_path):
    net = make_net(data_net(write(tmp_path / "lmdb", [raw(row, -3) for row in LIST]), 5))
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, LIST)
    assert set(net.blobs["label"].data) == {-3}


@pytest.mark.parametrize("force, flag", [("", -1), ("force_color: true", 1), ("force_gray: true", 0)])
@pytest.mark.parametrize("kind", ["color", "gray"])
def test_encoded_images_are_decoded_as_opencv_does(make_net, tmp_path, force, flag, kind):
    pixels = [image.transpose(1, 2, 0) if kind == "color" else image[0] for image in IMAGES]
    encoded = [cv2.imencode(".png", image)[1] for image in pixels]
    path = write(tmp_path / "lmdb", [caffe_pb2.Datum(data=data.tobytes(), encoded=True) for data in encoded])
    net = make_net(data_net(path, 5, f"{force} crop_size: 4"), caffe.TEST)
    net.forward()
    expected = [np.atleast_3d(cv2.imdecode(data, flag))[1:5, 2:6].transpose(2, 0, 1) for data in encoded]
    np.testing.assert_array_equal(net.blobs["data"].data, expected)


def test_records_of_several_sizes_are_cropped_to_one(make_net, tmp_path):
    sizes = [(6, 8), (5, 5), (9, 6), (5, 7), (6, 8)]
    arrays = [np.random.default_rng(h).integers(0, 256, (3, h, w), dtype=np.uint8) for h, w in sizes]
    net = make_net(data_net(write(tmp_path / "lmdb", map(raw, arrays)), 5, "crop_size: 5"), caffe.TEST)
    net.forward()
    for array, found in zip(arrays, net.blobs["data"].data):
        top, left = (array.shape[1] - 5) // 2, (array.shape[2] - 5) // 2
        np.testing.assert_array_equal(found, array[:, top : top + 5, left : left + 5])
    write_blob(tmp_path / "mean.binaryproto", np.zeros((1, 3, 6, 8), np.float32))
    mean = f'crop_size: 5 mean_file: "{tmp_path}/mean.binaryproto"'
    with pytest.raises(DataError, match="record .* has shape .* build the database again"):
        make_net(data_net(str(tmp_path / "lmdb"), 5, mean), caffe.TEST).forward()


SILENCE = ' layer { name: "end" type: "Silence" bottom: "data" bottom: "label" }'


def test_memory_for_batches_is_used_again_but_not_while_somebody_holds_it(make_net, database, where):
    net, held, places = make_net(data_net(database, 4) + SILENCE), [], []
    for _ in range(60):
        net.forward()
        tensor = net.blobs["data"].tensor()
        places.append(tensor.data_ptr())
        if len(held) < 5:
            held.append((tensor[1:], tensor[1:].clone(), net.blobs["label"].data.copy()))
    for view, before, labels in held:
        assert torch.equal(view, before)
        np.testing.assert_array_equal(view.numpy(), IMAGES[labels.astype(int)][1:])
    assert not set(places[:5]) & set(places[5:])
    if where == "host":  # the device's batches are PyTorch's own memory
        assert len(set(places)) <= 13  # held: 5, ahead: 4, on the way: the rest


def test_mirror_and_random_crop_are_caffes_draws(make_net, database):
    net = make_net(data_net(database, 5, "mirror: true crop_size: 4"), caffe.TRAIN, seed=3)
    main = np.random.RandomState(3).randint(0, 2**32, 3, dtype=np.uint32)  # the layer takes three; the second is its seed
    draws = np.random.RandomState(main[1]).randint(0, 2**32, (5, 3), dtype=np.uint32)
    net.forward()
    for image, found, (mirror, top, left) in zip(IMAGES, net.blobs["data"].data, draws):
        top, left = top % 3, left % 5
        expected = image[:, top : top + 4, left : left + 4]
        np.testing.assert_array_equal(found, expected[:, :, ::-1] if mirror % 2 else expected)


def test_mistakes_are_named(make_net, database, tmp_path):
    with pytest.raises(DataError, match="nowhere: no LMDB there .*build it first"):
        make_net(data_net(tmp_path / "nowhere"))
    with pytest.raises(NetError, match="backend: LMDB must be given"):
        make_net(data_net(database).replace("backend: LMDB", ""))
    with pytest.raises(NetError, match="crop_size 7 is larger than the records' 6x8"):
        make_net(data_net(database, transform="crop_size: 7"))
    with pytest.raises(NetError, match="2 mean values do not fit 3 channels"):
        make_net(data_net(database, transform="mean_value: 1 mean_value: 2"))


def test_a_broken_record_is_named_when_it_is_reached(make_net, database):
    with lmdb.open(database) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000003_x", b"\xff\xff\xff")
    net = make_net(data_net(database))
    net.forward()
    with pytest.raises(DataError, match="record 00000003_x is not a Datum"):
        for _ in range(2):
            net.forward()


BROKEN = {
    "no Datum": b"\xff\xff\xff",
    "cut short": raw(IMAGES[0]).SerializeToString()[:-9],
    "too few values": caffe_pb2.Datum(channels=3, height=6, width=8, data=b"12").SerializeToString(),
    "no values": caffe_pb2.Datum(channels=3, height=6, width=8).SerializeToString(),
    "nothing": b"",
    "negative sides": caffe_pb2.Datum(channels=3, height=-6, width=-8, data=bytes(144)).SerializeToString(),
    "sides that overflow": caffe_pb2.Datum(channels=2**30, height=2**30, width=2**4, data=b"").SerializeToString(),
    "other shape": raw(IMAGES[0].reshape(3, 8, 6)).SerializeToString(),
    "other channels": raw(IMAGES[0].reshape(6, 8, 3)).SerializeToString(),
    "no image": caffe_pb2.Datum(encoded=True, data=b"\xff\xd8\xff no jpg").SerializeToString(),
    "an image of no bytes": caffe_pb2.Datum(encoded=True).SerializeToString(),
    "16 bits": caffe_pb2.Datum(
        encoded=True, data=cv2.imencode(".png", np.zeros((6, 8, 3), np.uint16))[1].tobytes()
    ).SerializeToString(),
}


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_broken_records_are_an_error_that_says_so(make_net, database, value):
    with lmdb.open(database) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000001_x", value)
    net = make_net(data_net(database))
    with pytest.raises(DataError, match="(record 00000001_x|has shape)"):
        net.forward()
    with pytest.raises(DataError):  # and is not forgotten
        net.forward()


def test_a_thread_that_reads_ahead_ends_with_its_net_and_with_the_process(tmp_path, where):
    if where == "device":
        pytest.skip("the same thread")
    database = write(tmp_path / "large", [raw(np.zeros((3, 300, 300), np.uint8))] * 2)
    script = f"""
import gc, tempfile, threading, torchcaffe as caffe
file = tempfile.NamedTemporaryFile("w", suffix=".prototxt")
file.write('{data_net(database, 10, "mean_value: 3").replace(chr(10), " ")}')
file.flush()
net = caffe.Net(file.name, caffe.TRAIN)
net.forward()
threads = [thread for thread in threading.enumerate() if thread.name == "prefetch"]
assert len(threads) == 1
del net
gc.collect()
threads[0].join(20)
assert not threads[0].is_alive()
kept = caffe.Net(file.name, caffe.TRAIN)
kept.forward()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
