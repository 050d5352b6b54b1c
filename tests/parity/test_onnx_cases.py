"""Every layer as ONNX, on the cases of all layers: onnxruntime beside torchcaffe, at the net's batch size and another."""

import collections

import comparison
import exporting
import numpy as np
import pytest
from cases import CASES

from torchcaffe.core.errors import ExportError
from torchcaffe.formats import export
from torchcaffe.formats.onnx_layers import WRITERS
from torchcaffe.layers import base

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
LIMIT = 1e-5
MEASURES = ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "InfogainLoss", "MultinomialLogisticLoss", "EuclideanLoss", "HingeLoss",
            "ContrastiveLoss", "Accuracy")  # fmt: skip
EMPTY = ("Silence", "Input")  # nets of these alone compute nothing


@pytest.fixture(scope="module", autouse=True)
def quiet_runtime(quiet):
    onnxruntime.set_default_logger_severity(3)


def compare(session, run, what, limit=LIMIT):
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, run.arrays)))
    assert found, what
    for name, array in found.items():
        ours = run.tops[name.split("/")[0] if name not in run.tops else name]
        assert array.shape == ours.shape, (what, name)
        scale = max(1.0, float(np.abs(ours[np.isfinite(ours)]).max(initial=0)))
        np.testing.assert_allclose(array, ours, rtol=limit, atol=limit * scale, err_msg=f"{what} {name}")


def tripled(run, free):
    """The same net with three times as many items in its free inputs."""
    for name, array in run.arrays.items():
        if name in free:
            run.net.blobs[name].reshape(3 * array.shape[0], *array.shape[1:])
            run.arrays[name] = np.concatenate([array, array[::-1], array])
        run.net.blobs[name].data[...] = run.arrays[name]
    run.net.forward()
    run.tops = {name: np.array(run.net.blobs[name].data) for name in run.net.outputs}


@exporting.SHARES
def test_onnxruntime_agrees(folder, most):
    written, refused = collections.Counter(), collections.Counter()
    for number, case in exporting.some(exporting.layer_cases("TEST"), most):
        what = f"{number}: {case.type} {case.layer} {case.bottoms}"
        run = exporting.Run(folder, case, number)
        try:
            model = export.to_onnx(run.net)
        except ExportError as problem:
            refused[case.type] += 1
            nothing = "computes nothing" in str(problem) and (case.type in EMPTY or case.in_place)
            assert nothing or case.type in (*MEASURES, "Filter") or "phase: TRAIN" in case.layer, problem
            continue
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version == export.OPSET
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        compare(session, run, what)
        written[case.type] += 1
        axes = [blob.name for blob in model.graph.input if blob.type.tensor_type.shape.dim and blob.type.tensor_type.shape.dim[0].dim_param]
        if axes:
            tripled(run, axes)
            compare(session, run, f"{what}, three times as many")
    known = {cls.type for cls in WRITERS} - {"Silence", "Filter"}
    assert set(written) == known
    assert set(refused) <= {*MEASURES, *EMPTY, "Filter", "Dropout"}
    assert set(base.layer_types()) - known >= set(MEASURES)


@pytest.mark.slow
def test_onnxruntime_agrees_with_real_caffe(folder):
    """Without torchcaffe between: the numbers of real Caffe's first forward, where the phase does not matter."""
    if not comparison.CAFFE_PYTHON.exists():
        pytest.skip("needs real Caffe: type `make caffe`")
    theirs, _, _ = comparison.real_caffe(folder)
    compared = collections.Counter()
    for number, case in exporting.layer_cases("TEST"):
        drawn = case.parameters is None or CASES[number].phase == "TRAIN" and case.type in ("Dropout", "BatchNorm")
        run = exporting.Run(folder, case, number)
        if drawn or case.type in (*MEASURES, *EMPTY, "Filter", "Dropout"):
            continue
        model = export.to_onnx(run.net)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        run.tops = {name: theirs[f"{number}/0/{name}/data"] for name in run.tops}
        compare(session, run, f"{number}: {case.type} {case.layer} {case.bottoms}", limit=comparison.LIMIT)
        compared[case.type] += 1
    print(sum(compared.values()), dict(compared))
    assert len(compared) > 35
