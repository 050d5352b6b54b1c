"""Nets as Python expressions give the nets pycaffe's net_spec gives."""

import copy

import numpy as np
import pytest

from torchcaffe.formats.files import parse_net
from torchcaffe.net_spec import Function, NetSpec, Top, layers as L, params as P, to_proto


def test_a_net():
    net = NetSpec()
    net.data, net.label = L.Data(ntop=2, source="db", backend=P.Data.LMDB, transform_param=dict(mean_value=[1, 2, 3]))
    net.conv = L.Convolution(
        net.data, num_output=4, kernel_size=3, weight_filler=dict(type="xavier"),
        param=[dict(lr_mult=1), dict(lr_mult=2, decay_mult=0)], include=dict(phase=0, stage=["a", "b"]),
    )  # fmt: skip
    net.relu = L.ReLU(net.conv, in_place=True)
    net["pool"] = L.Pooling(net.relu, pool=P.Pooling.AVE, kernel_size=2, stride=2)
    net.loss = L.SoftmaxWithLoss(net.pool, net.label, loss_weight=3, loss_param=dict(ignore_label=7))
    net.nothing = L.Silence(net.label, ntop=0)
    expected = """
    layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mean_value: [1, 2, 3] }
      data_param { source: "db" backend: LMDB } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 }
      param { lr_mult: 2 decay_mult: 0 } include { phase: TRAIN stage: "a" stage: "b" }
      convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
      pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "pool" bottom: "label" top: "loss" loss_weight: 3
      loss_param { ignore_label: 7 } }
    layer { name: "nothing" type: "Silence" bottom: "label" }"""
    assert net.to_proto() == parse_net(expected)


def test_names_are_counted_by_type():
    data = L.DummyData(shape=dict(dim=[1, 2]))
    first, second = L.ReLU(data), L.ReLU(data, name="mine")
    net = to_proto(first, L.Eltwise(first, second))
    assert [layer.name for layer in net.layer] == ["DummyData1", "ReLU1", "mine", "Eltwise1"]
    assert list(net.layer[3].bottom) == ["ReLU1", "ReLU2"]
    assert first.to_proto() == to_proto(first)


def test_call_results():
    assert isinstance(L.Input(), Top) and isinstance(L.Silence(L.Input(), ntop=0), Function)
    assert [type(top) for top in L.Slice(L.Input(), ntop=3)] == [Top] * 3


def test_values():
    layer = L.Reshape(L.Input(), shape=dict(dim=np.array([0, -1])), phase="TEST").to_proto().layer[1]
    assert list(layer.reshape_param.shape.dim) == [0, -1] and layer.phase == 1
    layer = L.Convolution(L.Input(), num_output=np.int64(3), kernel_size=(3, 5), pad=1).to_proto().layer[1]
    assert (layer.convolution_param.kernel_size, layer.convolution_param.pad) == ([3, 5], [1])
    layer = L.Python(module="m", layer="C", param_str="{}").to_proto().layer[0]
    assert (layer.python_param.module, layer.python_param.layer) == ("m", "C")
    assert P.Loss.BATCH_SIZE == 2 and P.ReLU.CUDNN == 2


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: L.ReLU(L.Input(), kernel=3).to_proto(), AttributeError, "ReLU1.*no field 'kernel' in relu_param nor"),
        (lambda: L.Deconvolution(L.Input(), group=3).to_proto(), AttributeError, r"convolution_param=dict\(group"),
        (lambda: L.ReLU(L.Input(), relu_param=dict(slope=3)).to_proto(), AttributeError, "ReLUParameter has no field"),
        (lambda: L.Pooling(L.Input(), pool="AVG").to_proto(), ValueError, "pool has no value AVG; it has MAX, AVE"),
        (lambda: L.ReLU("data"), TypeError, "ReLU input 0 is not a Top .type is <class 'str'>"),
        (lambda: L.ReLU(L.Slice(L.Input(), ntop=2)), TypeError, "ReLU input 0 is not a Top .type is <class 'tuple'>"),
        (lambda: to_proto(L.Silence(L.Input(), ntop=0)), TypeError, "attribute of a NetSpec"),
        (lambda: P.Nothing, AttributeError, "NothingParameter"),
        (lambda: NetSpec().conv, AttributeError, "no blob 'conv'; it has none"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_net_spec_is_a_mapping_that_copies():
    net = NetSpec()
    net["a"] = L.Input()
    assert "a" in net and net.a is net["a"] and copy.copy(net).a is net.a
    del net["a"]
    assert "a" not in net
