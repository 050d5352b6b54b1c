"""What runs on GPUs only, run here on a CPU's tensors: the results are the same. tests/gpu compares real ones."""

import comparison
import numpy as np
import pytest
import run_cases
import torch
from cases import CASES

import torchcaffe
from torchcaffe.core.blob import Blob
from torchcaffe.core.errors import NetError
from torchcaffe.layers import Context, looking, pooling
from torchcaffe.proto import caffe_pb2

POOLING = [number for number, case in enumerate(CASES) if case.type in ("Pooling", "SPP")]
INDEXED = [number for number, case in enumerate(CASES) if case.type in ("Embed", "BatchReindex")]
MISSED = [[[[1.0, np.nan], [2.0, -np.inf]], [[np.nan, -np.inf], [-np.inf, np.nan]]]]  # a window with numbers, one without


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "3")


def two_by_two(*tops):
    """A Pooling layer with a kernel of 2, for blobs of MISSED's shape."""
    definition = caffe_pb2.LayerParameter(name="p", type="Pooling", top=tops)
    definition.pooling_param.kernel_size = 2
    layer = pooling.Pooling(definition, torchcaffe.TRAIN, Context(torch.device("cpu"), None))
    layer.setup([Blob(1, 2, 2, 2)], list(tops))
    return layer


def arrays(folder, numbers):
    found = {}
    for number in numbers:
        run_cases.run_case(torchcaffe, "torchcaffe", folder, CASES[number], number, found)
    return found


def apart(folder, numbers, monkeypatch, module, name, function):
    """Names of what differs by more than 1e-6 once `function` is in the place of module.name."""
    usual = arrays(folder, numbers)
    monkeypatch.setattr(module, name, function)
    changed = arrays(folder, numbers)
    assert usual and usual.keys() == changed.keys()
    return [what for what, array in usual.items() if not comparison.difference(array, changed[what]) <= 1e-6]


def test_pooling_without_the_short_way_of_a_cpu(folder, monkeypatch):
    assert apart(folder, POOLING, monkeypatch, pooling, "slices_are_faster", lambda x: False) == []


def test_pooling_in_a_compiled_or_captured_pass_which_cannot_look_at_numbers(folder, monkeypatch):
    assert apart(folder, POOLING, monkeypatch, looking, "possible", lambda x: False) == []


def test_pooling_does_not_ask_for_the_device(folder, monkeypatch):
    """Not-a-number and -infinity are no maxima on any device: nothing but slices_are_faster and the draws may ask."""
    asked = [line for line in open(pooling.__file__) if ".device.type" in line or "is_cuda" in line]
    assert len(asked) == 1 and "is_grad_enabled" in asked[0]
    for possible in (True, False):
        monkeypatch.setattr(looking, "possible", lambda x, possible=possible: possible)
        pool = two_by_two("y", "mask")
        pool.shapes(torch.tensor(MISSED).shape)
        y, mask = pool.forward(torch.tensor(MISSED))
        assert y.flatten().tolist() == [2.0, pooling.LOWEST] and mask.flatten().tolist() == [2.0, -1.0]


def test_numbers_cannot_be_looked_at_while_a_pass_is_compiled():
    x = torch.zeros(1)
    assert looking.possible(x)
    assert torch.compile(lambda x: x + (1 if looking.possible(x) else 2), fullgraph=True, backend="eager")(x).item() == 2


def test_embed_and_batch_reindex_where_a_look_waits_for_the_gpu(folder, monkeypatch):
    assert apart(folder, INDEXED, monkeypatch, looking, "waits", lambda tensor: True) == []


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("layer, settings, message", [
    ("Embed", "embed_param { input_dim: 3 num_output: 2 }", r'"l" \(Embed\): index 5 is outside 0 to 2 \(input_dim\)'),
    ("BatchReindex", "", r'"l" \(BatchReindex\): index 5 is outside 0 to 1$'),
])
def test_an_index_out_of_range_is_named_and_does_not_stop_the_gpu(tmp_path, monkeypatch, waits, layer, settings, message):
    """On a GPU it would be an assertion of the device, after which nothing runs there any more."""
    monkeypatch.setattr(looking, "waits", lambda tensor: waits)
    items = '' if layer == "Embed" else 'bottom: "items"'
    (tmp_path / "net").write_text(f"""
        layer {{ name: "items" type: "Input" top: "items" input_param {{ shape {{ dim: 2 dim: 4 }} }} }}
        layer {{ name: "index" type: "Input" top: "index" input_param {{ shape {{ dim: 2 }} }} }}
        layer {{ name: "l" type: "{layer}" {items} bottom: "index" top: "y" {settings} }}""")
    net = torchcaffe.Net(str(tmp_path / "net"), torchcaffe.TEST)
    net.blobs["index"].data[...] = [1, 5]
    with pytest.raises(NetError, match=message):
        net.forward()
    net.blobs["index"].data[...] = [1, 0]
    net.forward()


@pytest.mark.parametrize("exact", [True, False])
def test_exact_draws_are_the_generators_others_are_torchs(tmp_path, monkeypatch, exact):
    """set_exact_draws decides, not the device."""
    from torchcaffe.core import mode

    monkeypatch.setattr(mode, "exact_draws", lambda: exact)
    (tmp_path / "net").write_text("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 50 dim: 4 } } }
        layer { name: "l" type: "Dropout" bottom: "x" top: "y" }""")
    found = []
    for torch_seed in (1, 2):
        torchcaffe.set_random_seed(7)
        torch.manual_seed(torch_seed)
        net = torchcaffe.Net(str(tmp_path / "net"), torchcaffe.TRAIN)
        net.blobs["x"].data[...] = 1
        net.forward()
        found.append(np.array(net.blobs["y"].data))
    assert np.array_equal(*found) == exact
    assert set(np.unique(found[0])) == {0.0, 2.0}


def test_exact_draws_of_a_gpu():
    from torchcaffe.core import mode

    assert mode.exact_draws()
    try:
        mode._settings.gpu = True
        assert not mode.exact_draws()
        torchcaffe.set_exact_draws(True)
        assert mode.exact_draws()
    finally:
        torchcaffe.set_exact_draws(False)
        mode._settings.gpu = False
