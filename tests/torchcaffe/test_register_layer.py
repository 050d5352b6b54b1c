"""Layers of one's own: registered, with settings and parameters, in everything that a layer of Caffe can do."""

import copy
import enum
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import torchcaffe as caffe
from torchcaffe.core import plugins
from torchcaffe.core.errors import NetError, PrototxtError
from torchcaffe.formats import files
from torchcaffe.layers import base
from torchcaffe.net_spec import NetSpec, layers as L, params as P
from torchcaffe.proto import caffe_pb2, extensions

NORMALIZE = {
    "across_spatial": (bool, True), "scale_filler": "FillerParameter", "channel_shared": (bool, True), "eps": (float, 1e-10),
}  # fmt: skip


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is gone after it; declared settings stay, as protobuf forgets nothing."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(extensions, "OWNERS", dict(extensions.OWNERS))


class Normalize(caffe.TorchLayer):
    """x / sqrt(sum of x^2 + eps) times a learned scale."""

    type = "Normalize"
    in_place = False
    settings = {"norm_param": NORMALIZE}
    settings_numbers = {"norm_param": 206}

    def setup(self, bottom, top):
        p = self.param.norm_param
        filler = p.scale_filler if p.HasField("scale_filler") else 1.0
        self.add_parameter(() if p.channel_shared else (bottom[0].dims[1],), filler)

    def forward(self, x):
        p = self.param.norm_param
        axes = tuple(range(1, x.dim())) if p.across_spatial else (1,)
        scale = self.weight(0).reshape(1, -1, *[1] * (x.dim() - 2))
        return x / torch.sqrt((x * x).sum(axes, keepdim=True) + p.eps) * scale


class Gain(caffe.TorchLayer):
    """x * gain + 0 * shift: own backward, parameters of other multipliers."""

    type = "Gain"
    in_place = False

    def setup(self, bottom, top):
        self.add_parameter((bottom[0].dims[1],), dict(type="constant", value=2), decay_mult=0)
        self.add_parameter((1,), 3, lr_mult=0, decay_mult=0)

    def forward(self, x):
        assert not torch.is_grad_enabled()
        return x * self.weight(0)

    def backward(self, bottoms, tops, gradients):
        (x,), (gradient,) = bottoms, gradients
        assert torch.equal(tops[0], x * self.weight(0))
        return gradient * self.weight(0), (gradient * x).sum(0)


NET = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 2 dim: 2 } } }
    layer { name: "norm" type: "Normalize" bottom: "data" top: "norm" param { lr_mult: 3 decay_mult: 0 }
            norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } channel_shared: false } }
"""


def expected(x, across_spatial, scale):
    norm = np.sqrt((x.astype(np.float64) ** 2).sum((1, 2, 3) if across_spatial else 1, keepdims=True) + 1e-10)
    return x / norm * np.reshape(scale, (1, -1, 1, 1))


@pytest.mark.parametrize("across_spatial", [True, False])
def test_a_net_runs_it_and_its_gradient_is_the_numeric_one(make_net, across_spatial):
    caffe.register_layer(Normalize)
    assert "Normalize" in caffe.layer_type_list()
    text = NET.replace("across_spatial: false", "" if across_spatial else "across_spatial: false")
    net = make_net("force_backward: true" + text)
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(net.forward(data=x)["norm"], expected(x, across_spatial, [20] * 3), rtol=1e-6)
    scale, weights = np.array([1.0, -2, 3]), np.random.default_rng(1).normal(size=x.shape)
    net.params["norm"][0].data[...] = scale
    net.forward(data=x)
    gradient = net.backward(norm=weights.astype(np.float32))["data"]

    def loss(x, scale):
        return (expected(x, across_spatial, scale) * weights).sum()

    for array, found in ((x.astype(np.float64), gradient), (scale, net.params["norm"][0].diff)):
        numeric = np.empty(array.shape)
        for index in np.ndindex(array.shape):
            step = np.zeros(array.shape)
            step[index] = 1e-5
            high, low = (loss(*((x, array + s) if array is scale else (array + s, scale))) for s in (step, -step))
            numeric[index] = (high - low) / 2e-5
        np.testing.assert_allclose(found, numeric, rtol=1e-3, atol=1e-4)


def test_own_backward_and_multipliers(make_net):
    caffe.register_layer(Gain)
    head = 'force_backward: true layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 2 } } }'
    net = make_net(head + 'layer { name: "g" type: "Gain" bottom: "d" top: "g" param { lr_mult: 5 } }')
    x = np.array([[1, 2], [3, 4]], np.float32)
    assert net.forward(d=x)["g"].tolist() == [[2, 4], [6, 8]]
    assert net.backward(g=np.array([[1, 10], [100, 1000]], np.float32))["d"].tolist() == [[2, 20], [200, 2000]]
    assert net.params["g"][0].diff.tolist() == [301, 4020] and net.params["g"][1].diff.tolist() == [0]
    given = net.layer_dict["g"].param.param
    assert [(spec.lr_mult, spec.decay_mult) for spec in given] == [(5, 1), (0, 0)]  # the prototxt's first, then the class's
    wrong = type("Gain", (Gain,), {"backward": lambda self, bottoms, tops, gradients: ()})
    wrong.__qualname__ = "Gain"
    caffe.register_layer(wrong)
    net = make_net(head + 'layer { name: "g" type: "Gain" bottom: "d" top: "g" }')
    net.forward()
    with pytest.raises(NetError, match='"g" .Gain.: backward gives 0 gradients; one is needed for each of 1 bottoms'):
        net.backward()


SOLVER = "base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 lr_policy: 'fixed' max_iter: 9 random_seed: 3 snapshot: 2 display: 0"
TRAINED = """
    layer { name: "data" type: "DummyData" top: "data" top: "y" dummy_data_param {
            shape { dim: 4 dim: 3 dim: 2 dim: 2 } shape { dim: 4 dim: 3 dim: 2 dim: 2 }
            data_filler { type: "constant" value: 0.5 } data_filler { type: "constant" value: 0.1 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
""" + NET[NET.index('layer { name: "norm"'):].replace('bottom: "data"', 'bottom: "conv"') + """
    layer { name: "loss" type: "EuclideanLoss" bottom: "norm" bottom: "y" top: "loss" include { phase: TRAIN } }
"""


def test_training_snapshot_restore_and_copy_by_name(make_solver, make_net, tmp_path):
    caffe.register_layer(Normalize)
    solver = make_solver(TRAINED, SOLVER)
    start = solver.net.params["norm"][0].data.copy()
    solver.step(2)
    scale = solver.net.params["norm"][0].data.copy()
    assert start.tolist() == [20, 20, 20] and not np.allclose(start, scale)
    model = next(tmp_path.glob("*_iter_2.caffemodel"))
    # Caffe's own update, by hand: two steps of momentum with three times the rate and no decay.
    solver.step(1)
    after = solver.net.params["norm"][0].data.copy()
    again = make_solver(TRAINED, SOLVER)
    again.restore(str(next(tmp_path.glob("*_iter_2.solverstate"))))
    assert np.array_equal(again.net.params["norm"][0].data, scale)
    again.step(1)
    assert np.array_equal(again.net.params["norm"][0].data, after)

    (layer,) = [one for one in caffe_pb2.NetParameter.FromString(model.read_bytes()).layer if one.name == "norm"]
    assert layer.norm_param.scale_filler.value == 20 and not layer.norm_param.across_spatial
    net = make_net(TRAINED, caffe.TEST, weights=str(model))
    assert "loss" not in net.blobs and np.array_equal(net.params["norm"][0].data, scale)
    net.save(str(tmp_path / "again.caffemodel.h5"))
    net = make_net(NET)
    net.copy_from(str(tmp_path / "again.caffemodel.h5"))
    assert np.array_equal(net.params["norm"][0].data, scale)


def test_lr_mult_and_decay_mult(make_solver):
    """One step from the fillers: rate 0.1 times 3, and weight decay only where decay_mult leaves some."""
    caffe.register_layer(Normalize)
    for decay in (0, 2):
        solver = make_solver(TRAINED.replace("decay_mult: 0", f"decay_mult: {decay}"), SOLVER)
        before = solver.net.params["norm"][0].data.copy()
        solver.net.clear_param_diffs()
        solver.net.forward()
        solver.net.backward()
        gradient = solver.net.params["norm"][0].diff.copy()
        solver.step(1)
        wanted = before - 0.1 * 3 * (gradient + 0.01 * decay * before)
        np.testing.assert_allclose(solver.net.params["norm"][0].data, wanted, rtol=1e-5)


def test_a_solver_trains_through_an_own_backward(make_solver):
    """As through autograd's, in the pass over the whole net that solvers use."""
    plain = type("PlainGain", (Gain,), {
        "type": "PlainGain", "backward": None, "forward": lambda self, x: x * self.weight(0)})  # fmt: skip
    caffe.register_layer(Gain)
    caffe.register_layer(plain)
    found = []
    for kind in ("Gain", "PlainGain"):
        text = TRAINED[: TRAINED.index('layer { name: "norm"')] + f"""
            layer {{ name: "g" type: "{kind}" bottom: "conv" top: "norm" }}
            layer {{ name: "loss" type: "EuclideanLoss" bottom: "norm" bottom: "y" top: "loss" }}"""
        solver = make_solver(text.replace('shape { dim: 4 dim: 3 dim: 2 dim: 2 }', "shape { dim: 4 dim: 3 dim: 1 dim: 3 }"), SOLVER)
        solver.step(3)
        found.append([solver.net.params[name][0].data.copy() for name in ("conv", "g")])
        assert solver.net.params["g"][1].data.tolist() == [3]
    for own, autograd in zip(*found):
        np.testing.assert_array_equal(own, autograd)
    assert not np.array_equal(found[0][1], [2, 2, 2])


# ---- settings
def test_settings_are_written_and_read_again(tmp_path):
    caffe.register_layer(Normalize)
    net = files.parse_net(NET)
    assert "\n  norm_param {\n    across_spatial: false\n" in str(net) and "[" not in str(net) and repr(net) == str(net)
    assert "norm_param {" in str(net.layer[1]).splitlines()
    for text in (str(net), extensions.text(net), text_format.MessageToString(net), f"{net}", NET.replace(" {", " <").replace("}", ">")):
        assert files.parse_net(text) == net
    assert files.parse_net("# norm_param {\n" + NET.replace('"norm"', '"norm_param { "')).layer[1].name == "norm_param { "
    for text in (NET.replace("norm_param {", "norm_param: {"), NET.replace("norm_param {", "norm_param # { '\n {"),
                 "layer: [" + NET.replace("layer", "", 1).replace("layer {", ", {") + "]"):  # fmt: skip
        assert files.parse_net(text) == net
    assert files.parse_solver(f"net_param {{ {NET} }}").net_param == net
    changed = copy.deepcopy(net)
    assert changed == net and pickle.loads(pickle.dumps(net)) == net
    changed.layer[1].norm_param.eps = 0.5
    assert changed != net and caffe_pb2.NetParameter.FromString(changed.SerializeToString()).layer[1].norm_param.eps == 0.5


def test_the_commands_write_them(tmp_path):
    from torchcaffe.commands import cli

    caffe.register_layer(Normalize)
    (tmp_path / "old").write_text('input: "data" input_dim: 2 input_dim: 3 input_dim: 2 input_dim: 2\n' + NET[NET.index('layer { name: "norm"'):])
    cli.main(["upgrade_net_proto_text", str(tmp_path / "old"), str(tmp_path / "new")])
    assert "  norm_param {" in (tmp_path / "new").read_text()
    assert files.read_net(tmp_path / "new").layer[1].norm_param.scale_filler.value == 20


def test_net_spec():
    caffe.register_layer(Normalize)
    net = NetSpec()
    net.data = L.Input(shape=dict(dim=[2, 3, 2, 2]))
    filler = dict(type="constant", value=20)
    net.norm = L.Normalize(net.data, param=dict(lr_mult=3, decay_mult=0),
                           norm_param=dict(across_spatial=False, scale_filler=filler, channel_shared=False))  # fmt: skip
    assert net.to_proto() == files.parse_net(NET) == files.parse_net(str(net.to_proto()))
    net.norm = L.Normalize(net.data, param=dict(lr_mult=3, decay_mult=0), across_spatial=False, scale_filler=filler, channel_shared=False)
    assert net.to_proto() == files.parse_net(NET)
    with pytest.raises(AttributeError, match="NormParameter has no field 'across'"):
        L.Normalize(net.data, norm_param=dict(across=1)).to_proto()
    with pytest.raises(AttributeError, match="no field 'across' in norm_param nor LayerParameter"):
        L.Normalize(net.data, across=1).to_proto()


class Code(enum.IntEnum):
    CORNER = 1
    CENTER_SIZE = 2


class Corners(enum.IntEnum):
    CORNER = 1


def test_all_kinds_of_fields():
    extensions.declare("all_kinds_param", {
        "flag": bool, "count": (int, -3), "rate": (float, float("inf")), "name": (str, 'a "b"'), "code": (Code, Code.CENTER_SIZE),
        "sizes": [float], "steps": [int], "fillers": ["FillerParameter"], "nms": {"top_k": (int, 7), "codes": [Code]},
    })  # fmt: skip
    layer = caffe_pb2.LayerParameter()
    p = layer.all_kinds_param
    assert (p.flag, p.count, p.rate, p.name, p.code, p.nms.top_k) == (False, -3, float("inf"), 'a "b"', 2, 7)
    text = """layer { all_kinds_param { flag: true code: CORNER sizes: [0.5, 1] sizes: 2 steps: 3 fillers { value: 3 } fillers { }
        nms { top_k: 9 codes: CORNER } } }"""
    layer = files.parse_net(text).layer[0]
    p = layer.all_kinds_param
    assert (p.flag, p.code, list(p.sizes), list(p.steps), len(p.fillers), p.nms.top_k) == (True, 1, [0.5, 1, 2], [3], 2, 9)
    assert P.AllKinds.CORNER == 1 and "code: CORNER" in str(layer)
    spec = L.Input(all_kinds_param=dict(code="CORNER", sizes=[1, 2], nms=dict(codes=["CENTER_SIZE"]))).to_proto().layer[0]
    assert spec.all_kinds_param.code == 1 and list(spec.all_kinds_param.nms.codes) == [2]
    with pytest.raises(PrototxtError, match=r"net, line 2: AllKindsParameter has no field 'flog'; did you mean flag\?.*all_kinds_param"):
        files.parse_net('layer { name: "x"\n all_kinds_param { flog: 1 } }', "net")
    with pytest.raises(PrototxtError, match="AllKindsParameter.Nms has no field 'top_q'; did you mean top_k"):
        files.parse_net("layer { all_kinds_param { nms { top_q: 1 } } }")
    with pytest.raises(PrototxtError, match="AllKindsParameter.Code has no value MIDDLE; it has CORNER, CENTER_SIZE"):
        files.parse_net("layer { all_kinds_param { code: MIDDLE } }")
    with pytest.raises(PrototxtError, match="all_kinds_param.*given twice|multiple"):
        files.parse_net("layer { all_kinds_param { flag: 1 } all_kinds_param { flag: 1 } }")


def test_only_layers_have_settings():
    """A field of another message may have the name of a layer's settings."""
    extensions.declare("norm_param", NORMALIZE, 206)
    extensions.declare("outer_param", {"norm_param": {"eps": float}, "name": str})
    p = files.parse_net('layer { outer_param { norm_param { eps: 3 } name: "a" } norm_param { eps: 4 } }').layer[0]
    assert (p.outer_param.norm_param.eps, p.norm_param.eps) == (3, 4)
    with pytest.raises(PrototxtError, match="NetParameter has no field 'norm_param'"):
        files.parse_net("norm_param { eps: 3 }")


@pytest.mark.parametrize("name, fields, number, message", [
    ("normParam", NORMALIZE, None, 'ends in "_param"'),
    ("convolution_param", NORMALIZE, None, "Caffe's LayerParameter has this field: leave it out and read self.param.conv"),
    ("wrong_a_param", NORMALIZE, 147, "a field number is from 149"),
    ("wrong_b_param", NORMALIZE, 206, '"norm_param" has the field number 206 already'),
    ("net_param", NORMALIZE, None, "caffe.proto has a message NetParameter already"),
    ("wrong_c_param", {}, None, "given as a dict of fields"),
    ("wrong_d_param", {"x": list}, None, "is no type of a field; there are bool, int"),
    ("wrong_e_param", {"x": "NoMessage"}, None, "is no type of a field"),
    ("wrong_f_param", {"x": (int, "a")}, None, "the default 'a' is no int"),
    ("wrong_g_param", {"x": ([int], 3)}, None, r"as a type, as \(type, default\) or as \[type\]"),
    ("wrong_h_param", {"no name": int}, None, "'no name' is no name of a field"),
    ("wrong_i_param", {"x": ("FillerParameter", 1)}, None, "a message has no default"),
    ("norm_param", {"eps": float}, 206, "declared already, with other fields"),
    ("wrong_j_param", {"a": Code, "b": Corners}, None, "protobuf refuses them"),
])  # fmt: skip
def test_settings_that_are_refused(name, fields, number, message):
    extensions.declare("norm_param", NORMALIZE, 206)
    with pytest.raises((ValueError, TypeError), match=message):
        extensions.declare(name, fields, number)
    assert name == "norm_param" or name not in extensions.DECLARED


# ---- what register_layer refuses
def test_a_type_has_one_class():
    caffe.register_layer(Gain)
    assert caffe.register_layer(Gain) is Gain
    other = type("Other", (Gain,), {})
    with pytest.raises(ValueError, match=r'"Gain" is registered by .*test_register_layer.Gain: .*replace=True'):
        caffe.register_layer(other)
    assert caffe.register_layer(replace=True)(other) is other and base.layer_class("Gain", "x") is other
    relu = type("Mine", (Gain,), {"type": "ReLU"})
    with pytest.raises(ValueError, match="\"ReLU\" is Caffe's own: give Mine another type"):
        caffe.register_layer(relu)
    caffe.register_layer(relu, replace=True)
    assert base.layer_class("ReLU", "x") is relu


def test_a_cell_that_runs_again_replaces_its_class():
    again = type("Gain", (caffe.TorchLayer,), {"type": "Gain", "forward": Gain.forward, "__module__": __name__, "__qualname__": "Gain"})
    caffe.register_layer(Gain)
    caffe.register_layer(again)
    assert base.layer_class("Gain", "x") is again


@pytest.mark.parametrize("members, message", [
    ({"type": ""}, 'needs a type, the name that nets call it by: type = "Wrong"'),
    ({"type": "a b"}, "needs a type"),
    ({"forward": caffe.TorchLayer.forward}, r"needs a method forward\(self, \*bottoms\)"),
    ({"works_on_blobs": True}, "needs a method forward_blobs"),
    ({"bottoms": 2}, r"Wrong.bottoms is \(minimum, maximum\)"),
    ({"settings": ["norm_param"]}, "Wrong.settings is a dict"),
    ({"settings_numbers": {"norm_param": 206}}, "names norm_param, which Wrong.settings does not have"),
])  # fmt: skip
def test_classes_that_are_refused(members, message):
    with pytest.raises(TypeError, match=message):
        caffe.register_layer(type("Wrong", (caffe.TorchLayer,), {"type": "Wrong", "forward": Gain.forward, **members}))
    assert "Wrong" not in caffe.layer_type_list()


def test_other_things_are_no_layers():
    with pytest.raises(TypeError, match="derives from torchcaffe.TorchLayer, not 3"):
        caffe.register_layer(3)
    with pytest.raises(TypeError, match='not Half: classes of caffe.Layer need no registering, nets name them in python_param'):
        caffe.register_layer(type("Half", (caffe.Layer,), {}))


# ---- what is not known, and packages that bring layers
def test_unknown_ones_are_refused_with_the_line_that_says_how():
    how = r"\na layer of your own\? .* torchcaffe.register_layer"
    with pytest.raises(PrototxtError, match=f"net, line 2: LayerParameter has no field 'nobodys_param'; .*{how}") as caught:
        files.parse_net('layer { name: "x"\n nobodys_param { eps: 1 } }', "net")
    assert '(in layer "x")' in str(caught.value)
    with pytest.raises(PrototxtError, match=f"LayerParameter has no field 'nobodys_param'.*{how}"):
        files.parse_net("layer { [caffe.nobodys_param] { eps: 1 } }")
    with pytest.raises(AttributeError, match=f"no field 'nobodys_param'.*{how}"):
        L.Nobodys(L.Input(), nobodys_param=dict(eps=1)).to_proto()
    with pytest.raises(PrototxtError) as caught:
        files.parse_net("layer { kernel_size: 3 }")
    assert "register" not in str(caught.value)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """installed(package, source): an installed distribution with an entry point for its module."""
    monkeypatch.setattr(plugins, "_loaded", set())
    monkeypatch.setattr(plugins, "problems", [])
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package, source):
        (tmp_path / f"{package}.py").write_text(source)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[torchcaffe.layers]\nall = {package}\n")

    yield install
    for name in [name for name in sys.modules if name.startswith("brought_")]:
        del sys.modules[name]


BROUGHT = """
import torchcaffe


@torchcaffe.register_layer
class Brought(torchcaffe.TorchLayer):
    type = "{0}"
    settings = {{"{1}": {{"factor": (float, 2.0)}}}}

    def forward(self, x):
        return x * self.param.{1}.factor
"""
INPUT = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 1 } } }\n'


@pytest.mark.parametrize("asks", ["type", "settings", "net_spec"])
def test_an_installed_package_brings_layers_when_a_net_asks(make_net, installed, asks):
    installed(f"brought_{asks}", BROUGHT.format(f"Times{asks}", f"times_{asks}_param"))
    make_net(INPUT)
    assert f"brought_{asks}" not in sys.modules  # nobody has asked
    if asks == "net_spec":
        spec = NetSpec()
        spec.d = L.Input(shape=dict(dim=[1, 1]))
        spec.y = L.Timesnet_spec(spec.d, factor=3)
        text = str(spec.to_proto())
    else:
        settings = "times_settings_param { factor: 3 }" if asks == "settings" else ""
        text = INPUT + f'layer {{ name: "y" type: "Times{asks}" bottom: "d" top: "y" {settings} }}'
    net = make_net(text)
    assert net.forward(d=np.ones((1, 1)))["y"].tolist() == [[2 if asks == "type" else 3]]


def test_a_package_that_cannot_be_loaded_is_named(make_net, installed):
    installed("brought_broken", "raise RuntimeError('no GPU')")
    installed("brought_fine", BROUGHT.format("TimesFine", "times_fine_param"))
    make_net(INPUT + 'layer { name: "y" type: "TimesFine" bottom: "d" top: "y" }')
    with pytest.raises(PrototxtError, match=r"no field 'nobodys_param'.*\nthe package \"brought_broken\" could not"):
        files.parse_net("layer { nobodys_param { } }")  # asked once more, after all were tried
    with pytest.raises(NetError, match=r'unknown layer type "Nobodys".*\nthe package "brought_broken" could not bring its layers '
                                       r"\(torchcaffe.layers: all = brought_broken\): RuntimeError: no GPU\n"):
        make_net(INPUT + 'layer { name: "y" type: "Nobodys" bottom: "d" top: "y" }')


def test_the_command_trains_with_a_packages_layer(tmp_path, installed, root):
    """In a process that nobody has told of the layer; the test net shares the training net's parameters."""
    settings = 'settings = {"scaled_param": {"start": (float, 2.0)}}'
    installed("brought_by_package", f"""
import torchcaffe


@torchcaffe.register_layer
class Scaled(torchcaffe.TorchLayer):
    type = "Scaled"
    in_place = False
    {settings}

    def setup(self, bottom, top):
        self.add_parameter((1,), self.param.scaled_param.start)

    def forward(self, x):
        return x * self.weight(0)
""")
    (tmp_path / "net").write_text("""
        layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 1 } data_filler { value: 1 }
                data_filler { value: 7 } } }
        layer { name: "s" type: "Scaled" bottom: "x" top: "s" scaled_param { start: 3 } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "s" bottom: "y" top: "loss" }""")
    (tmp_path / "solver").write_text(f"""net: "{tmp_path}/net" base_lr: 0.5 lr_policy: "fixed" max_iter: 30 test_iter: 1
        test_interval: 30 test_initialization: true snapshot_prefix: "{tmp_path}/s" """)
    done = subprocess.run(
        [sys.executable, "-m", "torchcaffe", "train", "-solver", str(tmp_path / "solver")], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "GLOG_minloglevel": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = re.findall(r"Test net output #0: loss = (\S+)", done.stderr)
    assert float(losses[0]) == 8 and float(losses[-1]) < 1e-4  # (7 - 3)^2 / 2, then 7 is learned
    (layer,) = [one for one in files.read_weights(tmp_path / "s_iter_30.caffemodel") if one.name == "s"]
    assert layer.type == "Scaled" and layer.blobs[0].data[0] == pytest.approx(7, abs=1e-3)


def test_asking_for_register_layer_is_all_that_loads_torch(root):
    code = "import sys, torchcaffe; print('torch' in sys.modules, 'register_layer' in dir(torchcaffe)); " \
           "torchcaffe.register_layer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
