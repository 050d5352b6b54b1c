"""to_torch on every case of every layer: the forward of both phases, the gradients, torch.export and torch.jit.trace."""

import io

import exporting
import numpy as np
import pytest
import run_cases
import torch

import torchcaffe as caffe

pytestmark = pytest.mark.usefixtures("quiet")

LIMIT = 1e-6


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


@exporting.SHARES
@pytest.mark.parametrize("phase", ["TEST", "TRAIN"])
def test_forward(folder, phase, most):
    for number, case in exporting.some(exporting.layer_cases(phase), most):
        if draws(case) or "phase: TRAIN" in case.layer:
            continue
        run = exporting.Run(folder, case, number)
        module = caffe.to_torch(exporting.Run(folder, case, number).net if phase == "TRAIN" else run.net)
        check(run.tops, as_dict(module, module(*run.tensors())), f"{number} {case.type} {case.layer}")
        if case.second and case.type not in ("RNN", "LSTM"):
            run.forward(1)
            check(run.tops, as_dict(module, module(*run.tensors())), f"{number} {case.type} {case.layer} second")


@exporting.SHARES
def test_gradients(folder, most):
    """By autograd through the module as by the net's backward, of parameters and of inputs that get one."""
    parameters = inputs = 0
    for number, case in exporting.some(exporting.layer_cases("TRAIN"), most):
        if draws(case) or not case.backward or not case.weights or case.before:  # before: there may be another loss
            continue
        what = f"{number} {case.type} {case.layer}"
        run = exporting.Run(folder, case, number)
        module = caffe.to_torch(run.net)
        for layer in run.net.built_layers:
            layer.state = None  # of a recurrent layer
        run.forward(0)
        run_cases.set_top_diffs(run.net, case, run.random)
        diffs = {name: torch.from_numpy(run.net.blobs[name].diff.copy()) for name in case.tops if name in run.net.outputs}
        run.net.clear_param_diffs()
        run.net.backward()
        tensors = [tensor.requires_grad_() for tensor in run.tensors()]
        found = module(*tensors)
        found = found if isinstance(found, dict) else {module.outputs[0]: found}
        objective = sum((found[name] * diff).sum() for name, diff in diffs.items() if found[name].requires_grad)
        if not isinstance(objective, torch.Tensor):
            continue
        objective.backward()
        for name, blobs in run.net.params.items():
            learned = dict(module.get_submodule(name).named_parameters(recurse=False)).values()
            for blob, parameter in zip(blobs, learned):
                if parameter.grad is not None:
                    check({"": blob.diff.copy()}, {"": parameter.grad.numpy()}, f"{what} {name}", 1e-5)
                    parameters += 1
        forced = run.net.nodes[-1].bottom_needs_backward
        for name, tensor in zip(run.net.inputs, tensors):
            if case.force and tensor.grad is not None and all(forced):
                check({"": run.net.blobs[name].diff.copy()}, {"": tensor.grad.numpy()}, f"{what} {name}", 1e-5)
                inputs += 1
    assert min(parameters, inputs) > (30 if most < 10 else 300), (parameters, inputs)


@pytest.mark.filterwarnings("ignore")
def test_others_follow_it(folder):
    """torch.export, and torch.jit.trace where TorchScript has an answer, give what the module gives."""
    seen = {}
    for number, case in exporting.layer_cases("TEST"):
        seen.setdefault(case.type, (number, case))
    for number, case in seen.values():
        run = exporting.Run(folder, case, number)
        module = caffe.to_torch(run.net)
        ours = as_dict(module, module(*run.tensors()))
        program = torch.export.export(module, tuple(run.tensors())).module()
        check(ours, as_dict(module, program(*run.tensors())), case.type)
        if ours and case.type not in ("Parameter", "Accuracy"):  # errors inside torch.jit
            traced = torch.jit.trace(module, tuple(run.tensors()), strict=False, check_trace=False)
            file = io.BytesIO()
            torch.jit.save(traced, file)
            file.seek(0)
            check(ours, as_dict(module, torch.jit.load(file)(*run.tensors())), case.type)
