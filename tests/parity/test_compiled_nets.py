"""The compiled training pass on the nets and layers that real Caffe is asked about, against the layer-by-layer way."""

import numpy as np
import pytest
import run_cases
from cases import CASES
from comparison import ROOT, difference
from files import prepare
from net_jobs import NETS, net_jobs

import torchcaffe
from torchcaffe.core import compiled, execution

pytestmark = pytest.mark.slow
RECURRENT = "LRCN"  # whose LSTM keeps its state from one batch to the next


def trained(job, backend, iterations=4):
    """(weights and outputs after some iterations, the solver)"""
    torchcaffe.set_compile(backend is not None, backend or "inductor")
    solver = torchcaffe.get_solver(job["solver"])
    torchcaffe.set_compile(False)
    solver.net.copy_from(job["weights"])
    solver.keep_diffs = False
    solver.step(iterations)
    arrays = {f"{name}/{i}": blob.data for name, blobs in solver.net.params.items() for i, blob in enumerate(blobs)}
    return {**arrays, **{name: solver.net.blobs[name].data for name in solver.net.outputs}}, solver


def job_of(name, tmp_path):
    if NETS[name].weights and not (ROOT / NETS[name].weights).exists():
        pytest.skip(f"needs {NETS[name].weights}: python -m detector.convert makes it")
    return net_jobs(tmp_path, "small", [name])[0]


@pytest.mark.parametrize("name", list(NETS))
def test_whole_nets_have_the_same_bits(tmp_path, quiet, name):
    job = job_of(name, tmp_path)
    (found, solver), (expected, _) = (trained(job, backend) for backend in ("eager", None))
    assert bool(solver.compiled.failed) is (name == RECURRENT)
    for what, array in expected.items():
        np.testing.assert_array_equal(found[what], array, err_msg=what)


@pytest.mark.parametrize("name", ["LeNet", "VGG-Face"])
def test_inductors_weights_are_close(tmp_path, quiet, name):
    job = job_of(name, tmp_path)
    (found, solver), (expected, _) = (trained(job, backend) for backend in ("inductor", None))
    assert not solver.compiled.failed
    for what, array in expected.items():
        assert np.abs(found[what] - array).max() <= 1e-5 * np.abs(array).max(), what


def test_layers_have_the_same_bits(tmp_path, quiet):
    """All cases with parameters: outputs and gradients of the parameters."""
    prepare(tmp_path)
    compared = 0
    for number, case in enumerate(CASES):
        if not case.backward or case.phase != "TRAIN":
            continue
        found = [layer_by_backend(tmp_path, case, number, backend) for backend in ("eager", None)]
        compared += found[0][1]
        for what, array in found[1][0].items():
            assert difference(array, found[0][0][what]) < 1e-6, (case.type, case.layer, what)
    assert compared > 100


def layer_by_backend(folder, case, number, backend):
    """(what can be seen of a case, whether it was compiled)"""
    arrays, used = {}, []

    def one(net, case, set_top_diffs):
        if backend is None or compiled.refused(net):
            whole = execution.AutogradPass(net, keep_diffs=False)
        else:
            whole = used[0] if used else compiled.CompiledPass(net, backend)
            used[:] = [whole]
        set_top_diffs()
        whole.forward()
        whole.backward()

    run_cases.run_case(torchcaffe, "torchcaffe", folder, case, number, arrays, one)
    return arrays, any(not whole.failed for whole in used)
