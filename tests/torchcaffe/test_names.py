"""Lists of names in messages are short, and begin with what was probably meant."""

import pickle
from collections import OrderedDict

import pytest

import torchcaffe as caffe
from torchcaffe.core import names
from torchcaffe.core.errors import NetError
from torchcaffe.core.net import Net

NET = """name: "n" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "fc7" type: "InnerProduct" bottom: "conv1" top: "fc7" inner_product_param { num_output: 3 } }
layer { name: "fc8" type: "InnerProduct" bottom: "fc7" top: "fc8" inner_product_param { num_output: 4 } }
layer { name: "probability" type: "Softmax" bottom: "fc8" top: "probability" }
"""


def test_a_list_is_cut_after_eight():
    assert names.listed("abc") == "a, b, c" and names.listed([]) == "none"
    assert names.listed(map(str, range(8))) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert names.listed(map(str, range(1234))) == "0, 1, 2, 3, 4, 5, 6, 7 and 1,226 more"


def test_similar_names_are_suggested_whatever_their_case():
    known = [f"blob{index}" for index in range(20)] + ["TanH", "Tan", "conv5_1", "conv5_2", "fc8_gender_of_a_face"]
    assert names.suggestion("tanh", known) == "did you mean TanH?"
    assert names.suggestion("tanh ", known) == "did you mean TanH or Tan?"
    assert names.suggestion("conv5_3", known) == "did you mean conv5_1 or conv5_2?"
    assert names.suggestion("FC", known) == "did you mean fc8_gender_of_a_face?"  # its beginning
    assert names.suggestion("zzz", known) == "it has " + names.listed(known)
    assert names.suggestion("b", ["fc8", "blob"], "known:") == "known: fc8, blob"  # one letter begins too many
    assert names.suggestion("", []) == names.suggestion("x", []) == "it has none"


def test_a_nets_dictionaries_suggest_names_and_are_dictionaries(make_net):
    net = make_net(NET, caffe.TEST)
    for container, name, message in (
        (net.blobs, "dat", 'the net has no blob "dat"; did you mean data?'),
        (net.blobs, "DATA", 'the net has no blob "DATA"; did you mean data?'),
        (net.blobs, "zzz", 'the net has no blob "zzz"; it has data, conv1, fc7, fc8, probability'),
        (net.blobs, 7, 'the net has no blob "7"; it has data, conv1, fc7, fc8, probability'),
        (net.blobs, "a\nb", 'the net has no blob "a\\nb"; it has data, conv1, fc7, fc8, probability'),
        (net.params, "fc", 'the net has no layer "fc" with parameters; did you mean fc7 or fc8?'),
        (net.params, "probability", 'the net has no layer "probability" with parameters; it has conv1, fc7, fc8'),
        (net.layer_dict, "conv", 'the net has no layer "conv"; did you mean conv1?'),
        (net.top_names, "prob", 'the net has no layer "prob"; did you mean probability?'),
        (net.bottom_names, "prob", 'the net has no layer "prob"; did you mean probability?'),
        (net.blob_loss_weights, "prob", 'the net has no blob "prob"; did you mean probability?'),
    ):
        with pytest.raises(KeyError) as caught:
            container[name]
        assert str(caught.value) == message and caught.value.args == (name,)
        assert str(pickle.loads(pickle.dumps(caught.value))) == message
        assert name not in container and container.get(name) is None and container.get(name, 3) == 3
        assert isinstance(container, OrderedDict) and container._ipython_key_completions_() == list(container)
        assert list(container.copy().items()) == list(container.items())
        with pytest.raises(KeyError):
            del container[name]
        assert container.pop(name, 5) == 5 and container.setdefault(name, 6) == 6 and container.pop(name) == 6
    assert repr(net.blobs) == "<5 blobs: data, conv1, fc7, fc8, probability>"
    assert repr(net.params) == str(net.params) == "<3 layers with parameters: conv1, fc7, fc8>"
    assert dict(net.top_names) == {name: [name] for name in ("data", "conv1", "fc7", "fc8", "probability")}


def test_layers_to_run_from_and_to_are_suggested(make_net):
    net = make_net(NET, caffe.TEST)
    for run in (lambda: net.forward(end="fc"), lambda: net.forward(start="Fc"), lambda: net.backward(end="fc")):
        with pytest.raises(ValueError, match=r'^the net has no layer "[Ff]c"; did you mean fc7 or fc8\?$'):
            run()
    with pytest.raises(KeyError, match=r'no blob "fc"; did you mean fc7 or fc8\?'):
        net.forward(blobs=["fc"])


@pytest.mark.parametrize("change, message", [
    (('bottom: "conv1"', 'bottom: "Conv_1"'), 'layer "fc7": unknown bottom blob "Conv_1" (bottom 0); did you mean conv1?'),
    (('bottom: "conv1"', 'bottom: "x"'), 'layer "fc7": unknown bottom blob "x" (bottom 0); blobs so far: data, conv1'),
    (('type: "Softmax"', 'type: "Tanh"'), 'layer "probability": unknown layer type "Tanh"; did you mean TanH?\n'),
    (('type: "Softmax"', 'type: "softmaxloss"'), "did you mean SoftmaxWithLoss or Softmax?\n"),
    (('type: "Softmax"', 'type: "Zzz"'), 'unknown layer type "Zzz"; known types: AbsVal, Accuracy, '),
    (("num_output: 4", 'num_output: 4 weight_filler { type: "Xavier" }'), 'unknown filler type "Xavier"; did you mean xavier?'),
])
def test_misspelled_names_in_prototxts(make_net, change, message):
    assert change[0] in NET
    with pytest.raises(NetError) as caught:
        make_net(NET.replace(*change), caffe.TEST)
    assert message in str(caught.value)


def test_unknown_bottom_of_a_net_of_ten_thousand_blobs(tmp_path):
    layers = ['layer { name: "in" type: "Input" top: "t0" input_param { shape { dim: 1 } } }']
    layers += [f'layer {{ name: "l{i}" type: "ReLU" bottom: "t{i}" top: "t{i + 1}" }}' for i in range(9_999)]
    (tmp_path / "net.prototxt").write_text("\n".join([*layers, 'layer { name: "last" type: "ReLU" bottom: "T99_99" top: "x" }']))
    with pytest.raises(NetError, match=r'"last": unknown bottom blob "T99_99" .*; did you mean t9999 or \S+ or \S+\?$') as caught:
        Net(str(tmp_path / "net.prototxt"), 1)
    assert len(str(caught.value)) < 200


def test_unknown_layer_type_names_the_near_ones(tmp_path):
    (tmp_path / "net.prototxt").write_text('layer { name: "x" type: "Convolutions" }')
    with pytest.raises(NetError, match=r'unknown layer type "Convolutions"; did you mean Convolution or Deconvolution\?\n'):
        Net(str(tmp_path / "net.prototxt"), 1)


def test_only_the_beginning_of_a_name_of_a_megabyte_is_compared():
    assert names.similar("x" * 1_000_000, ["x" * 999_999, "y" * 1_000_000]) == ["x" * 999_999]
