"""Files of Caffe's formats: the same bytes as protobuf writes, the same arrays back, and errors that help."""

import errno
import os
import re

import h5py
import numpy as np
import pytest

from torchcaffe import files, storage, wire
from torchcaffe.errors import CaffeError, DataError, NetError, PrototxtError, SolverError, WeightsError
from torchcaffe.proto import caffe_pb2

random = np.random.default_rng(5)


def floats(*shape):
    return random.standard_normal(shape).astype(np.float32)


def small_net():
    return files.parse_net(
        """name: "small"
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 6, 6] } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 } include { phase: TEST }
          phase: TEST convolution_param { num_output: 4 kernel_size: 3 } }
        layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
        layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }"""
    )


def small_blobs():
    return [[], [floats(4, 3, 3, 3), floats(4)], [floats(5, 64), floats(5)], []]


def plain_message(net, blobs, diffs=None):
    """The same net through protobuf alone."""
    message = caffe_pb2.NetParameter()
    message.CopyFrom(net)
    for layer, arrays, gradients in zip(message.layer, blobs, diffs or [[None] * len(a) for a in blobs]):
        for array, gradient in zip(arrays, gradients):
            blob = layer.blobs.add(data=array.ravel().tolist())
            if array.ndim:
                blob.shape.dim.extend(array.shape)
            if gradient is not None:
                blob.diff.extend(gradient.ravel().tolist())
    return message


# ---- weights ----


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
    with pytest.raises(WeightsError, match="no V1 type 'Convolution'; NONE, "):
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


# ---- solver states and arrays ----


@pytest.mark.parametrize("name", ["s.solverstate", "s.solverstate.h5"])
def test_solver_state_returns(tmp_path, name):
    state = files.SolverState(120, "runs/m_iter_120.caffemodel", 2, [floats(4, 3, 3, 3), floats(4), floats()])
    files.write_solver_state(tmp_path / name, state)
    back = files.read_solver_state(tmp_path / name)
    assert (back.iter, back.learned_net, back.current_step) == (120, "runs/m_iter_120.caffemodel", 2)
    for old, new in zip(state.history, back.history, strict=True):
        np.testing.assert_array_equal(old, new)


def test_solver_state_has_protobufs_bytes(tmp_path):
    history = [floats(2, 3)]
    files.write_solver_state(tmp_path / "s", files.SolverState(7, "m", 0, history))
    message = caffe_pb2.SolverState(iter=7, learned_net="m", current_step=0)
    message.history.add(data=history[0].ravel().tolist()).shape.dim.extend((2, 3))
    assert (tmp_path / "s").read_bytes() == message.SerializeToString()


def test_hdf5_solver_state_layout(tmp_path):
    files.write_solver_state(tmp_path / "s.h5", files.SolverState(7, "m.caffemodel", 1, [floats(2) for _ in range(12)]))
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["iter"].shape == (1,) and file["iter"].dtype == np.int32
        kind = file["learned_net"].id.get_type()
        assert (kind.get_size(), kind.get_strpad(), file["learned_net"].shape) == (13, h5py.h5t.STR_NULLTERM, ())
        assert sorted(file["history"], key=int) == [str(index) for index in range(12)]


def test_blob_files(tmp_path):
    mean = floats(1, 3, 4, 5)
    for legacy in (False, True):
        files.write_blob(tmp_path / "mean.binaryproto", mean, legacy)
        np.testing.assert_array_equal(files.read_blob(tmp_path / "mean.binaryproto"), mean)
    message = caffe_pb2.BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    assert (message.num, message.width, message.HasField("shape")) == (1, 5, False)
    with pytest.raises(DataError, match="four axes"):
        files.write_blob(tmp_path / "x", floats(2), legacy=True)


# ---- wrong files ----


@pytest.fixture
def wrong(tmp_path):
    """One file of each kind, and broken ones."""
    files.write_weights(tmp_path / "weights", small_net(), small_blobs())
    files.write_solver_state(tmp_path / "state", files.SolverState(3, "m", 0, [floats(3, 3)]))
    files.write_weights_hdf5(tmp_path / "weights.h5", [("a", [floats(3)])])
    files.write_solver_state(tmp_path / "state.h5", files.SolverState(3, "m", 0, []))
    files.write_blob(tmp_path / "mean", floats(1, 3, 2, 2))
    for name in ("weights", "state", "weights.h5", "mean"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[:-5] if name != "weights.h5" else content[:600])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text('name: "net"\nlayer { type: "ReLU" }\n')
    (tmp_path / "page").write_text("\n<!DOCTYPE html><html><body>404</body></html>")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "archive").write_bytes(b"PK\3\4rest")
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "nothing_in_it").write_bytes(caffe_pb2.NetParameter(name="x").SerializeToString())
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "reader, error, name, message",
    [
        (files.read_weights, WeightsError, "missing", "no such weights file"),
        (files.read_weights, WeightsError, "folder", "is a folder"),
        (files.read_weights, WeightsError, "empty", "is empty"),
        (files.read_weights, WeightsError, "page", "is a web page"),
        (files.read_weights, WeightsError, "pointer", "git lfs pull"),
        (files.read_weights, WeightsError, "archive", "compressed archive"),
        (files.read_weights, WeightsError, "noise", "is no .caffemodel"),
        (files.read_weights, WeightsError, "nothing_in_it", "holds no layers"),
        (files.read_weights, WeightsError, "text", "is text, such as a net's"),
        (files.read_weights, WeightsError, "state", "is a solver state .* not weights"),
        (files.read_weights, WeightsError, "state.h5", "a solver state; give the .caffemodel.h5"),
        (files.read_weights, WeightsError, "mean", "is a single array"),
        (files.read_weights, WeightsError, "cut_weights", "truncated after layer 'fc': .* bytes are there"),
        (files.read_weights, WeightsError, "cut_weights.h5", "HDF5 cannot read it"),
        (files.read_solver_state, SolverError, "weights", "is weights .* not a solver state"),
        (files.read_solver_state, SolverError, "weights.h5", "it is weights; give the .solverstate.h5"),
        (files.read_solver_state, SolverError, "cut_state", "truncated: .* earlier snapshot"),
        (files.read_solver_state, SolverError, "noise", "is no .solverstate"),
        (files.read_solver_state, SolverError, "missing", "no such solver state"),
        (files.read_blob, DataError, "weights", "is weights"),
        (files.read_blob, DataError, "cut_mean", "truncated"),
        (files.read_net, PrototxtError, "weights", "is weights .* not text"),
        (files.read_net, PrototxtError, "missing", "no such net definition"),
        (files.read_net, PrototxtError, "empty", "is empty"),
        (files.read_solver, PrototxtError, "weights.h5", "is HDF5, not text"),
    ],
)
def test_wrong_files_are_named_in_one_line(wrong, reader, error, name, message):
    with pytest.raises(error, match=message) as raised:
        reader(wrong / name)
    assert str(wrong / name) in str(raised.value) and "\n" not in str(raised.value)


def test_every_truncation_of_weights_is_noticed(tmp_path):
    """Wherever the file is cut, reading raises an error of ours, or gives whole layers where the cut is between two."""
    path = tmp_path / "w"
    files.write_weights(path, small_net(), [[], [floats(1, 1, 2, 2), floats(1)], [floats(2, 3)], []])
    content = path.read_bytes()
    whole = []
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            whole.append(len(files.read_weights(path)))
        except WeightsError:
            pass
    assert whole == [1, 2, 3]


def test_mixed_layer_forms_are_refused(tmp_path):
    message = caffe_pb2.NetParameter()
    message.layer.add(name="a")
    message.layers.add(name="b")
    (tmp_path / "w").write_bytes(message.SerializeToString())
    with pytest.raises(NetError, match="both 'layer' and 'layers'"):
        files.read_weights(tmp_path / "w")


# ---- text ----


@pytest.mark.parametrize(
    "text, message",
    [
        ('layer {\n nam: "x" }', "n, line 2: LayerParameter has no field 'nam'; did you mean name?"),
        ("layer { kernel_size: 3 }", "line 1: LayerParameter has no field 'kernel_size'; it belongs inside conv"),
        ("layer { pooling_param { pool: AVG } }", "PoolingParameter.PoolMethod has no value AVG; did you mean AVE?"),
        ("layer { pooling_param { pool: 9 } }", "PoolMethod has no value 9; it has MAX, AVE, STOCHASTIC"),
        ("state { phase: test }", "Phase has no value test; did you mean TEST?"),
        ("\n\nbase_lr: 1", "line 3: NetParameter has no field 'base_lr', but a solver has"),
        ('layer { name: "a"\nname: "b" }', "line 2: name of LayerParameter is given twice"),
        ("layer { dropout_param { x: 1 } }", "DropoutParameter has no field 'x'; it has dropout_ratio"),
        ("layer { clip_param { min: 1 } }", "required fields are missing: layer[0].clip_param.max"),
        ("layer { type: Pooling }", "line 1: Expected string but found: 'Pooling'"),
        ("layer {", 'line 1: Expected "}"'),
        ("input_dim: 99999999999", "line 1: Value out of range"),
    ],
)
def test_text_errors(text, message):
    with pytest.raises(PrototxtError) as raised:
        files.parse_net(text, "n")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_text_forms(tmp_path):
    (tmp_path / "n").write_bytes(b"\xef\xbb\xbf# caf\xe9\r\nname: 'x'; state < phase: 1 > layer: { phase: TRAIN },\n")
    net = files.read_net(tmp_path / "n")
    assert net.name == "x" and net.state.phase == 1 and net.layer[0].HasField("phase")


def test_net_given_as_solver(tmp_path):
    (tmp_path / "n").write_text('layer { name: "x" }')
    with pytest.raises(PrototxtError, match="but a net has: is this a net's definition"):
        files.read_solver(tmp_path / "n")


# ---- whole or not at all ----


def test_atomic_write(tmp_path):
    path = tmp_path / "file.bin"
    with files.atomic_write(path) as temporary:
        assert os.path.dirname(temporary) == str(tmp_path) and temporary.endswith(".bin")
        with open(temporary, "w") as file:
            file.write("new")
        assert not path.exists()
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("problem", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_failed_write_changes_nothing(tmp_path, problem):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CaffeError if isinstance(problem, OSError) else type(problem)):
        with files.atomic_write(path) as temporary:
            with open(temporary, "w") as file:
                file.write("half")
            raise problem
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_flush", full)
    with pytest.raises(CaffeError, match="No space left on device; what was there before"):
        files.write_blob(tmp_path / "mean", floats(2))
    assert not os.listdir(tmp_path)


def test_write_through_a_link_and_into_no_folder(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.write_blob(tmp_path / "link", floats(2))
    assert (tmp_path / "link").is_symlink() and files.read_blob(tmp_path / "real").shape == (2,)
    with pytest.raises(CaffeError, match="folder .* does not exist; create it first"):
        files.write_blob(tmp_path / "none" / "x", floats(2))
    with pytest.raises(CaffeError, match="no regular file"):
        files.write_blob(tmp_path, floats(2))


def test_large_files_are_refused_before_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("torchcaffe.weights._LIMIT", 100)
    with pytest.raises(WeightsError, match="more than protobuf reads; use HDF5"):
        files.write_weights(tmp_path / "w", small_net(), small_blobs())
    assert not os.listdir(tmp_path)
