"""Caffemodels: the same bytes as protobuf writes, the same arrays back."""

import os
import re

import h5py
import numpy as np
import pytest
from google.protobuf import unknown_fields
from small_files import floats, plain_message, small_blobs, small_net

import torchcaffe as caffe
from torchcaffe.commands import cli
from torchcaffe.formats import files, wire
from torchcaffe.core.errors import WeightsError
from torchcaffe.proto import caffe_pb2


@pytest.mark.parametrize("with_diffs", [False, True])
def test_weights_have_protobufs_bytes(tmp_path, with_diffs):
    net, blobs = small_net(), small_blobs()
    blobs[3] = [np.float32(2.5).reshape(()), np.zeros((0, 3), np.float32)]  # a scalar has no shape, nothing no data
    diffs = [[2 * array for array in arrays] for arrays in blobs] if with_diffs else None
    files.write_weights(tmp_path / "w", net, blobs, diffs)
    assert (tmp_path / "w").read_bytes() == plain_message(net, blobs, diffs).SerializeToString()


def test_weights_return(tmp_path):
    blobs = small_blobs()
    files.write_weights(tmp_path / "w", small_net(), blobs, [[-a for a in arrays] for arrays in blobs])
    layers = files.read_weights(tmp_path / "w")
    assert [(layer.name, layer.type) for layer in layers] == (
        [("data", "Input"), ("conv", "Convolution"), ("fc", "InnerProduct"), ("prob", "Softmax")]
    )
    for layer, arrays in zip(layers, blobs):
        assert len(layer.blobs) == len(arrays)
        for blob, array in zip(layer.blobs, arrays):
            assert blob.shape == array.shape and not blob.legacy and blob.data.dtype == np.float32
            np.testing.assert_array_equal(blob.data, array)
            np.testing.assert_array_equal(blob.diff, -array)


def test_weights_are_not_copied_from_the_file(tmp_path):
    files.write_weights(tmp_path / "w", small_net(), small_blobs())
    blob = files.read_weights(tmp_path / "w")[1].blobs[0]
    assert not blob.data.flags.owndata and not blob.data.flags.writeable


def test_v1_weights_have_protobufs_bytes(tmp_path):
    conv, fc = floats(2, 3, 3, 3), floats(1, 1, 4, 18)
    files.write_v1_weights(
        tmp_path / "w", "VGG",
        [("conv1_1", "CONVOLUTION", [conv]), ("relu", "RELU", []), ("fc6", "INNER_PRODUCT", [fc])],
        inputs=[("data", (1, 3, 8, 8))],
    )  # fmt: skip
    message = caffe_pb2.NetParameter(name="VGG", input=["data"], input_dim=[1, 3, 8, 8])
    for name, kind, array in (("conv1_1", 4, conv), ("relu", 18, None), ("fc6", 14, fc)):
        layer = message.layers.add(name=name, type=kind)
        if array is not None:
            dims = dict(zip(("num", "channels", "height", "width"), array.shape))
            layer.blobs.add(data=array.ravel().tolist(), **dims)
    assert (tmp_path / "w").read_bytes() == message.SerializeToString()
    layers = files.read_weights(tmp_path / "w")
    assert [(layer.name, layer.type) for layer in layers] == (
        [("conv1_1", "Convolution"), ("relu", "ReLU"), ("fc6", "InnerProduct")]
    )
    assert layers[2].blobs[0].legacy and layers[2].blobs[0].shape == (1, 1, 4, 18)
    np.testing.assert_array_equal(layers[2].blobs[0].data, fc)


def test_v1_writer_refuses():
    with pytest.raises(WeightsError, match=r"no V1 type 'Convolution'; did you mean CONVOLUTION\?"):
        files.write_v1_weights("unused", "n", [("c", "Convolution", [])])
    with pytest.raises(WeightsError, match="'c': a legacy blob has four axes"):
        files.write_v1_weights("unused", "n", [("c", "CONVOLUTION", [floats(3)])])


def test_v0_weights(tmp_path):
    message = caffe_pb2.NetParameter()
    old = message.layers.add().layer
    old.name, old.type = "conv1", "conv"
    old.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    (tmp_path / "w").write_bytes(message.SerializeToString())
    (layer,) = files.read_weights(tmp_path / "w")
    assert (layer.name, layer.type, layer.blobs[0].data.tolist()) == ("conv1", "Convolution", [[[[1, 2]]]])


def field(number, wire_type, payload):
    return wire.varint(number << 3 | wire_type) + payload


def blob_file(path, content, name=b"ip"):
    layer = wire.delimited(1, [name]) + wire.delimited(7, [content])
    path.write_bytes(b"".join(wire.delimited(100, layer)))
    return path


BITS = np.array([1.5, -2.5], "<f4").tobytes()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(field(5, 5, BITS[:4]) + field(5, 5, BITS[4:]), id="unpacked floats"),
        pytest.param(field(5, 2, b"\4" + BITS[:4]) + field(5, 2, b"\4" + BITS[4:]), id="two packed pieces"),
        pytest.param(field(5, 2, b"\4" + BITS[:4]) + field(5, 5, BITS[4:]), id="packed and unpacked"),
        pytest.param(field(8, 2, b"\x10" + np.array([1.5, -2.5]).tobytes()), id="doubles"),
        pytest.param(
            field(5, 2, b"\4" + BITS[4:]) + field(8, 2, b"\x10" + np.array([1.5, -2.5]).tobytes()), id="doubles win"
        ),
        pytest.param(field(99, 2, b"\2hi") + field(5, 2, b"\x08" + BITS) + field(77, 0, b"\1"), id="unknown fields"),
    ],
)
@pytest.mark.parametrize("shape", [field(7, 2, b"\3\x0a\1\2"), field(7, 2, b"\2\x08\2")], ids=["packed", "unpacked"])
def test_blob_encodings(tmp_path, content, shape):
    (layer,) = files.read_weights(blob_file(tmp_path / "w", content + shape))
    assert layer.blobs[0].data.tolist() == [1.5, -2.5] and layer.blobs[0].data.dtype == np.float32


def test_legacy_shape_wins_by_presence(tmp_path):
    message = caffe_pb2.BlobProto(data=[1, 2], height=1)
    message.shape.dim.append(2)
    (layer,) = files.read_weights(blob_file(tmp_path / "a", caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2,
                                  data=[1, 2], shape=message.shape).SerializeToString()))  # fmt: skip
    assert layer.blobs[0].shape == (1, 1, 1, 2) and layer.blobs[0].legacy
    with pytest.raises(WeightsError, match=re.escape("shape (0, 0, 1, 0)")):
        files.read_weights(blob_file(tmp_path / "b", message.SerializeToString()))


def test_hdf5_weights(tmp_path):
    path = tmp_path / "w.caffemodel.h5"
    weight, bias = floats(4, 3), floats(4)
    files.write_weights_hdf5(path, [("relu", []), ("ip", [weight, None]), ("ip2", {1: bias})], [("ip", [weight, bias])])
    with h5py.File(path) as file:
        assert sorted(file["data"]) == ["ip", "ip2", "relu"] and not len(file["data/relu"])
        assert list(file["data/ip"]) == ["0"] and file["data/ip/0"].dtype == "<f4"
        assert sorted(file["diff/ip"]) == ["0", "1"]
    layers = {layer.name: layer.blobs for layer in files.read_weights(path)}
    np.testing.assert_array_equal(layers["ip"][0].data, weight)
    assert layers["relu"] == [] and layers["ip2"][0] is None and layers["ip2"][1].shape == (4,)


def test_hdf5_weights_of_other_number_types(tmp_path):
    with h5py.File(tmp_path / "w", "w") as file:
        file["data/a/0"], file["data/a/1"] = np.arange(3, dtype=np.int8), np.arange(2, dtype=np.float64)
    (layer,) = files.read_weights(tmp_path / "w")
    assert [blob.data.tolist() for blob in layer.blobs] == [[0, 1, 2], [0, 1]]
    assert all(blob.data.dtype == np.float32 for blob in layer.blobs)


@pytest.mark.parametrize(
    "layers, message", [([("a/b", [])], "'a/b': HDF5 allows no '/'"), ([("a", []), ("a", [])], "two layers are called")]
)
def test_hdf5_refuses_names(tmp_path, layers, message):
    with pytest.raises(WeightsError, match=message):
        files.write_weights_hdf5(tmp_path / "w", layers)
    assert not os.listdir(tmp_path)


def test_write_weights_checks_counts(tmp_path):
    with pytest.raises(WeightsError, match="4 layers, but blobs of 1"):
        files.write_weights(tmp_path / "w", small_net(), [[]])
    with pytest.raises(WeightsError, match="'conv': a blob of shape"):
        blobs = small_blobs()
        files.write_weights(tmp_path / "w", small_net(), blobs, [[], [floats(1), floats(4)], blobs[2], []])


def test_published_models(mtcnn_originals):
    for name, count in (("det1", 13), ("det2", 18), ("det3", 21)):
        path = mtcnn_originals / f"{name}.caffemodel"
        plain = caffe_pb2.NetParameter.FromString(path.read_bytes())
        layers = files.read_weights(path)
        assert [layer.name for layer in layers] == [layer.name for layer in plain.layer]
        assert sum(len(layer.blobs) for layer in layers) == count
        for layer, same in zip(layers, plain.layer):
            for blob, proto in zip(layer.blobs, same.blobs):
                np.testing.assert_array_equal(blob.data.ravel(), np.array(proto.data, np.float32))
                assert blob.shape == tuple(proto.shape.dim)


def test_opencv_reads_what_is_written(tmp_path):
    """An independent reader of Caffe's files computes with the weights written here, V2 and V1."""
    import cv2
    from google.protobuf import text_format

    net, blobs = small_net(), small_blobs()
    (conv, conv_bias), (fc, fc_bias) = blobs[1], blobs[2]
    files.write_weights(tmp_path / "v2", net, blobs)
    files.write_v1_weights(
        tmp_path / "v1", "small",
        [("conv", "CONVOLUTION", [conv, conv_bias.reshape(1, 1, 1, 4)]),
         ("fc", "INNER_PRODUCT", [fc.reshape(1, 1, 5, 64), fc_bias.reshape(1, 1, 1, 5)])],
    )  # fmt: skip
    (tmp_path / "net").write_text(text_format.MessageToString(net))
    image = floats(1, 3, 6, 6)
    windows = np.lib.stride_tricks.sliding_window_view(image[0], (3, 3), (1, 2))
    scores = fc @ (np.einsum("chwij,ocij->ohw", windows, conv) + conv_bias[:, None, None]).ravel() + fc_bias
    expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    for version in ("v1", "v2"):
        opencv = cv2.dnn.readNetFromCaffe(str(tmp_path / "net"), str(tmp_path / version))
        opencv.setInput(image)
        np.testing.assert_allclose(opencv.forward("prob").ravel(), expected, atol=1e-5)


FORKS_BLOB = np.arange(6, dtype=np.float32).reshape(2, 3)


def fork_field(number, text):
    """A field of bytes that our schema does not have, as a fork of Caffe writes it."""
    return b"".join(wire.delimited(number, [text]))


def forks_net():
    """(bytes of a caffemodel of a fork, its LayerParameter's own bytes): a layer with fields of other numbers and kinds."""
    blob = b"".join(bytes(part) for part in wire.blob_buffers(FORKS_BLOB))
    strange = [
        fork_field(306, b"\x08\x00\x12\x0a\x0a\x08constant"),  # a message
        b"".join(wire.number_field(901, 2**40)),  # a number
        wire.varint(902 << 3 | wire.FIXED32) + b"\0\0\x80\x3f", wire.varint(903 << 3 | wire.FIXED64) + b"\0" * 8,
        b"".join(wire.number_field(149, 1)),
    ]
    layer = fork_field(1, b"norm") + strange[1] + fork_field(2, b"Normalize") + b"".join(strange[:1] + strange[2:]) + fork_field(7, blob)
    return fork_field(1, b"net") + fork_field(77, b"the fork's own") + fork_field(100, layer), strange


def test_a_forks_caffemodel_loads(tmp_path):
    (tmp_path / "w").write_bytes(forks_net()[0])
    (layer,) = files.read_weights(tmp_path / "w")
    assert (layer.name, layer.type, [blob.shape for blob in layer.blobs]) == ("norm", "Normalize", [(2, 3)])
    np.testing.assert_array_equal(layer.blobs[0].data, FORKS_BLOB)


def test_a_forks_fields_are_kept_once_when_the_net_is_written(tmp_path):
    content, strange = forks_net()
    net = caffe_pb2.NetParameter.FromString(content)
    files.write_weights(tmp_path / "w", net, [[FORKS_BLOB]])
    written = (tmp_path / "w").read_bytes()
    assert [written.count(field) for field in (*strange, b"the fork's own")] == [1] * 6
    again = caffe_pb2.NetParameter.FromString(written)
    assert sorted(field.field_number for field in unknown_fields.UnknownFieldSet(again.layer[0])) == [149, 306, 901, 902, 903]
    assert (again.layer[0].name, list(again.layer[0].blobs[0].shape.dim)) == ("norm", [2, 3])


def test_upgrading_keeps_a_forks_fields(tmp_path):
    content, strange = forks_net()
    (tmp_path / "w").write_bytes(content)
    cli.main(["upgrade_net_proto_binary", str(tmp_path / "w"), str(tmp_path / "new")])
    written = (tmp_path / "new").read_bytes()
    assert [written.count(field) for field in (*strange, b"the fork's own")] == [1] * 6


def test_a_net_copies_and_saves_a_forks_weights(tmp_path):
    """By layer name, into a layer that Caffe has."""
    (tmp_path / "w").write_bytes(forks_net()[0])
    (tmp_path / "net").write_text("""layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }
        layer { name: "norm" type: "InnerProduct" bottom: "data" top: "y" inner_product_param { num_output: 2 bias_term: false } }""")
    net = caffe.Net(str(tmp_path / "net"), caffe.TEST, weights=str(tmp_path / "w"))
    assert net.forward(data=np.array([[1, 0, 0]]))["y"].tolist() == [[0, 3]]
