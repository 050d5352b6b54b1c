"""Every layer type against real Caffe: the same nets on the same numbers, everything that can be seen of them."""

import json
import re

import comparison  # noqa: E402
import numpy as np  # noqa: E402
import pytest
import run_cases
from cases import ABORTS, CASES  # noqa: E402

import torchcaffe
from torchcaffe.core import execution
from torchcaffe.core.errors import CaffeError, PrototxtError
from torchcaffe.layers import layer_types

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def ours(folder):
    """(arrays, structures) of all cases, layer after layer."""
    return comparison.our_own(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    if not comparison.CAFFE_PYTHON.exists():
        pytest.skip("needs real Caffe: type `make caffe`")
    return comparison.real_caffe(folder)


def names_of(case):
    return f"{case.type} {case.layer} {case.bottoms} {case.phase}"


def test_every_type_has_cases():
    assert {case.type for case in CASES} == set(layer_types())


def test_numbers_equal_caffes(ours, theirs):
    apart = {}
    for number, what, difference in comparison.differences(theirs[0], ours[0]):
        if difference > comparison.LIMIT:
            apart.setdefault(f"{number}: {names_of(CASES[number])}", []).append((what, difference))
    assert not apart, json.dumps(apart, indent=1)[:4000]


def test_nets_describe_themselves_as_caffes_do(ours, theirs):
    wrong = [names_of(CASES[int(number)]) for number, found in theirs[1].items() if ours[1][number] != found]
    assert not wrong


def test_hdf5_output_writes_caffes_file(folder, ours, theirs):
    import h5py

    with h5py.File(folder / "caffe_output.h5") as expected, h5py.File(folder / "torchcaffe_output.h5") as found:
        assert set(found) == set(expected) == {"data", "label"}
        for name in expected:
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], expected[name])


def test_caffe_stops_where_we_raise(theirs):
    assert [f"{abort.type}: {abort.message}" for abort, end in zip(ABORTS, theirs[2]) if end != "aborts"] == []


@pytest.mark.parametrize("abort", ABORTS, ids=lambda abort: f"{abort.type}-{abort.message}")
def test_what_caffe_stops_for_is_an_exception_with_the_layers_name(folder, abort):
    with pytest.raises(CaffeError) as raised:
        run_cases.attempt(torchcaffe, "torchcaffe", folder, abort)
    assert re.search(abort.message, str(raised.value))
    assert '"l"' in str(raised.value) or isinstance(raised.value, PrototxtError)


@pytest.mark.slow
def test_one_sweep_equals_layer_after_layer(folder, ours):
    """Training without an onlooker runs the net as one graph: the same numbers, parameter gradients included."""

    def sweep(net, case, set_top_diffs):
        assert not net.works_layerwise()
        one = execution.AutogradPass(net, keep_diffs=True)
        one.forward()
        if case.backward:
            set_top_diffs()
            one.backward()

    cases = [case for case in CASES if case.type not in ("Python", "HDF5Data", "ImageData", "Data", "HDF5Output")]
    numbers = [CASES.index(case) for case in cases]
    arrays = {}
    for number, case in zip(numbers, cases):
        run_cases.run_case(torchcaffe, "torchcaffe", folder, case, number, arrays, sweep)
    compared = {}
    for name, values in arrays.items():
        if (
            "/diff" in name
            and "[" not in name
            and (not name.endswith("/b0/diff") or CASES[int(name.split("/")[0])].in_place)
        ):
            continue  # the diff of a loss stays what it was
        compared[name] = comparison.difference(ours[0][name], values)
    apart = {name: value for name, value in compared.items() if value > comparison.LIMIT}
    assert not apart, {names_of(CASES[int(name.split("/")[0])]): (name, value) for name, value in apart.items()}


def test_a_difference_is_seen():
    a = np.array([1.0, 2.0, 3.0], np.float32)
    assert comparison.difference(a, a + 1e-6) < comparison.LIMIT
    assert comparison.difference(a, a * np.array([1, 1, 1.001])) > comparison.LIMIT
    assert comparison.difference(a, np.array([1, 2, np.nan])) == np.inf
    assert comparison.difference(a, a[:2]) == np.inf
    assert comparison.difference(np.array([np.nan, -3.4e38, 1]), np.array([np.nan, -3.4e38, 1.01])) > comparison.LIMIT
