"""Legacy nets and solvers become what Caffe makes of them, or are refused with the place named."""

import re

import pytest

from torchcaffe.core.errors import NetError, SolverError
from torchcaffe.formats.files import parse_net, parse_solver, read_solver
from torchcaffe.formats.upgrade import V1_TYPES
from torchcaffe.formats.upgrade_v0 import V0_TYPES


def test_v1_types_are_the_formats(shared):
    text = (shared / "caffe-facts.md").read_text()
    part = text[text.index("### A.4") : text.index("### A.5")]
    rows = re.findall(r'\| (\d+) \| [A-Z0-9_]+ \| (""|\w+) ', part)
    assert V1_TYPES == {int(number): name.strip('"') for number, name in rows}


def test_v0_types_lead_to_todays_names():
    today = {name: V1_TYPES[number] for name, number in V0_TYPES.items()}
    assert len(today) == 24
    assert today["conv"] == "Convolution" and today["innerproduct"] == "InnerProduct" and today["pool"] == "Pooling"
    assert today["images"] == "ImageData" and today["softmax_loss"] == "SoftmaxWithLoss"
    assert today["im2col"] == "Im2col" and today["hdf5_output"] == "HDF5Output"


V1 = """
name: "old"
layers { name: "data" type: DATA top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "db" batch_size: 8 backend: LMDB scale: 0.5 mean_file: "m" crop_size: 20 mirror: true } }
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" param: "w" param: "b" blob_share_mode: PERMISSIVE
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 convolution_param { num_output: 3 kernel_size: 5 } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "conv" bottom: "label" loss_weight: 2 softmax_param { engine: CAFFE } }
"""


def test_v1_net():
    net = parse_net(V1)
    data, conv, loss = net.layer
    assert not net.layers and net.name == "old"
    assert (data.type, conv.type, loss.type) == ("Data", "Convolution", "SoftmaxWithLoss")
    assert list(data.top) == ["data", "label"] and data.include[0].phase == 0
    moved = data.transform_param
    assert (moved.scale, moved.mean_file, moved.crop_size, moved.mirror) == (0.5, "m", 20, True)
    assert not any(data.data_param.HasField(name) for name in ("scale", "mean_file", "crop_size", "mirror"))
    assert data.data_param.batch_size == 8
    assert [(spec.name, spec.lr_mult, spec.decay_mult) for spec in conv.param] == [("w", 1, 1), ("b", 2, 0)]
    assert conv.param[0].share_mode == 1 and not conv.param[1].HasField("share_mode")
    assert conv.convolution_param.kernel_size == [5]
    assert loss.loss_weight == [2] and loss.softmax_param.engine == 1


def test_v2_data_layer_keeps_its_ignored_fields():
    net = parse_net('layer { name: "d" type: "Data" data_param { scale: 2 crop_size: 3 } }')
    assert net.layer[0].data_param.scale == 2 and not net.layer[0].HasField("transform_param")


V0 = """
name: "older" input: "image" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "image" top: "padded" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 5 stride: 2 group: 1 biasterm: false
  weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 3 weight_decay: 0.5 } bottom: "padded" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.3 } bottom: "norm1" top: "norm1" }
layers { layer { name: "ip" type: "innerproduct" num_output: 7 } bottom: "norm1" top: "ip" }
"""


def test_v0_net():
    net = parse_net(V0)
    assert [layer.type for layer in net.layer] == (
        ["Input", "Convolution", "Pooling", "LRN", "Dropout", "InnerProduct"]
    )
    _, conv, pool, norm, drop, inner = net.layer
    assert conv.bottom == ["image"] and conv.convolution_param.pad == [2] and conv.convolution_param.stride == [2]
    assert conv.convolution_param.weight_filler.type == "gaussian" and not conv.convolution_param.bias_term
    assert (conv.param[0].lr_mult, conv.param[0].decay_mult) == (3, 0.5)
    assert pool.pooling_param.pool == 1 and pool.pooling_param.kernel_size == 2
    assert (norm.lrn_param.local_size, norm.lrn_param.k) == (3, 2)
    assert drop.dropout_param.dropout_ratio == pytest.approx(0.3) and inner.inner_product_param.num_output == 7


def test_v0_data_layers():
    net = parse_net(
        """layers { layer { name: "d" type: "images" source: "list" batchsize: 4 new_height: 9 new_width: 8 scale: 0.5
        meanfile: "m" cropsize: 6 mirror: true shuffle_images: true rand_skip: 2 } top: "d" top: "l" }
        layers { layer { name: "w" type: "window_data" source: "win" det_fg_threshold: 0.7 det_crop_mode: "square" } }
        layers { layer { name: "o" type: "hdf5_output" hdf5_output_param { file_name: "o.h5" } } }"""
    )
    images, windows, output = net.layer
    settings = images.image_data_param
    assert (settings.source, settings.batch_size, settings.new_height, settings.new_width) == ("list", 4, 9, 8)
    assert settings.shuffle and settings.rand_skip == 2
    assert (images.transform_param.mean_file, images.transform_param.crop_size) == ("m", 6)
    assert windows.window_data_param.fg_threshold == pytest.approx(0.7)
    assert windows.window_data_param.crop_mode == "square"
    assert output.hdf5_output_param.file_name == "o.h5"


def test_v0_field_of_another_type_is_logged_and_left_out(capfd, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    net = parse_net('layers { layer { name: "r" type: "relu" kernelsize: 3 } bottom: "x" top: "x" } input: "x"')
    assert net.layer[0].type == "ReLU"
    assert "'kernelsize' means nothing to the type 'relu'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text, message",
    [
        (V1 + 'layer { name: "new" }', "both 'layer' and 'layers'"),
        ('layers { layer { name: "x" type: "convolution" } }', "'x': no V0 type 'convolution'"),
        ('layers { layer { name: "x" type: "relu" } bottom: "y" }', "'x' reads 'y'"),
        (V0.replace('type: "conv"', 'type: "lrn"'), "reads the padding layer 'pad1'"),
        ('input: "a" input_dim: 1 input_dim: 3', "'a' has 2 input_dim of 4"),
        ('input: "a" input: "b" input_shape { dim: 1 }', "'b' has no input_shape"),
    ],
)
def test_refused(text, message):
    with pytest.raises(NetError, match=re.escape(message)):
        parse_net(text, "net.prototxt")


def test_input_fields_become_a_layer():
    net = parse_net('input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layer { name: "n" type: "ReLU" }')
    first = net.layer[0]
    assert (first.name, first.type, list(first.top)) == ("input", "Input", ["a", "b"])
    assert [list(shape.dim) for shape in first.input_param.shape] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert not (net.input or net.input_dim) and net.layer[1].name == "n"


def test_input_shape_wins_and_names_without_dims_are_dropped():
    net = parse_net('input: "a" input_dim: [1, 2, 3, 4] input_shape { dim: 9 }')
    assert list(net.layer[0].input_param.shape[0].dim) == [9]
    assert not parse_net('input: "a"').layer and not parse_net('input: "a"').input


def test_batch_norm_statistics_are_not_learned():
    net = parse_net('layer { type: "BatchNorm" param {} param {} param { lr_mult: 5 } } layer { type: "BatchNorm" }')
    assert [(spec.lr_mult, spec.decay_mult) for spec in net.layer[0].param] == [(0, 0)] * 3
    assert not net.layer[1].param


def test_solver_type():
    names = "SGD NESTEROV ADAGRAD RMSPROP ADADELTA ADAM".split()
    solvers = [parse_solver(f"solver_type: {name}") for name in names]
    assert [solver.type for solver in solvers] == ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]
    assert not any(solver.HasField("solver_type") for solver in solvers)
    with pytest.raises(SolverError, match="remove solver_type"):
        parse_solver('type: "Adam" solver_type: ADAM')


def test_nets_inside_a_solver_are_upgraded():
    solver = parse_solver('net_param { layers { name: "r" type: RELU } } test_net_param { input: "a" input_dim: 1 }'
                          .replace("input_dim: 1", "input_dim: [1, 1, 1, 1]"))  # fmt: skip
    assert solver.net_param.layer[0].type == "ReLU" and solver.test_net_param[0].layer[0].type == "Input"


def test_snapshot_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    path = tmp_path / "nets" / "my.solver.prototxt"
    for text, prefix in [
        ("base_lr: 1", "nets/my.solver"),
        ('snapshot_prefix: "nets"', "nets/my.solver"),
        ('snapshot_prefix: "elsewhere/x"', "elsewhere/x"),
    ]:
        path.write_text(text)
        assert read_solver("nets/my.solver.prototxt").snapshot_prefix == prefix
