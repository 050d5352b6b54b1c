"""The Data layer on LMDBs written here with lmdb and protobuf alone: order, wrapping, transformations, mistakes."""

import lmdb
import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.errors import DataError, NetError
from torchcaffe.proto import caffe_pb2

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 8), dtype=np.uint8)


@pytest.fixture
def database(tmp_path):
    path = str(tmp_path / "lmdb")
    with lmdb.open(path) as environment, environment.begin(write=True) as transaction:
        for index, image in enumerate(IMAGES):
            datum = caffe_pb2.Datum(channels=3, height=6, width=8, data=image.tobytes(), label=index)
            transaction.put(f"{index:08d}_x".encode(), datum.SerializeToString())
    return path


def data_net(path, batch=2, transform=""):
    return f"""layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }}
        data_param {{ source: "{path}" backend: LMDB batch_size: {batch} }} }}"""



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
