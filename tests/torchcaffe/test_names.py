"""Lists of names in messages are short, and begin with what was probably meant."""

import pytest

from torchcaffe.core import names
from torchcaffe.core.errors import NetError
from torchcaffe.core.net import Net


def test_a_list_is_cut_after_eight():
    assert names.listed("abc") == "a, b, c" and names.listed([]) == "none"
    assert names.listed(map(str, range(8))) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert names.listed(map(str, range(1234))) == "0, 1, 2, 3, 4, 5, 6, 7 and 1,226 more"


def test_similar_names_come_first_whatever_their_case():
    known = [f"blob{index}" for index in range(20)] + ["TanH", "conv5_1", "conv5_2"]
    assert names.nearest("Tanh", known) == "TanH and 22 more"
    assert names.nearest("conv5_3", known).startswith("conv5_2, conv5_1")
    assert names.nearest("zzz", known) == names.listed(known)
    assert names.nearest("zzz", ["a", "b"]) == "a, b"


def test_unknown_bottom_of_a_net_of_ten_thousand_blobs(tmp_path):
    layers = ['layer { name: "in" type: "Input" top: "t0" input_param { shape { dim: 1 } } }']
    layers += [f'layer {{ name: "l{i}" type: "ReLU" bottom: "t{i}" top: "t{i + 1}" }}' for i in range(9_999)]
    (tmp_path / "net.prototxt").write_text("\n".join([*layers, 'layer { name: "last" type: "ReLU" bottom: "T99_99" top: "x" }']))
    with pytest.raises(NetError, match=r'"last": unknown bottom blob "T99_99" .*: t9999, \S+, \S+ and 9,997 more$') as caught:
        Net(str(tmp_path / "net.prototxt"), 1)
    assert len(str(caught.value)) < 200


def test_unknown_layer_type_names_the_near_ones(tmp_path):
    (tmp_path / "net.prototxt").write_text('layer { name: "x" type: "Convolutions" }')
    with pytest.raises(NetError, match=r'unknown layer type "Convolutions"; known types: Convolution, Deconvolution.* more\n'):
        Net(str(tmp_path / "net.prototxt"), 1)


def test_only_the_beginning_of_a_name_of_a_megabyte_is_compared():
    assert names.similar("x" * 1_000_000, ["x" * 999_999, "y" * 1_000_000]) == ["x" * 999_999]
