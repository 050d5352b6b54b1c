"""tools/export.py: other programs answer as ours, from the files alone; OpenCV does from Caffe's own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from random_nets import write_random_nets
from safetensors import safe_open
from tiny_project import TINY

import recipe
from lmdb_builders.crops import crop_face, to_blob
from gender_smile.inference import export
from gender_smile.nets import prototxt
from gender_smile.inference.pipeline import Classifier
from tools import export as command
from torchcaffe.core.errors import CaffeError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose tiny profile has random weights at the end of step 4, as large as trained ones."""
    monkeypatch.setenv("GLOG_minloglevel", "2")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setitem(recipe.PROFILES, "tiny", TINY)
    prototxt.write(prototxt.generate([TINY]), str(tmp_path))
    write_random_nets("tiny")
    return tmp_path


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, TINY.crop_size, TINY.crop_size, 3), dtype=np.uint8)


def engine(net: str) -> Classifier:
    import torchcaffe as caffe

    return Classifier(caffe, "tiny", net)


def test_onnx_and_its_metadata_are_enough(project) -> None:
    for net in recipe.PIPELINE_NETS:
        written, difference = export.export("tiny", net, str(project / "out"))
        assert difference <= 1e-4
        session = onnxruntime.InferenceSession(written["onnx"], providers=["CPUExecutionProvider"])
        notes = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
        assert notes == json.loads(Path(written["json"]).read_text())
        assert notes["input"]["channel_order"] == "BGR"
        assert notes["input"]["shape"][1:] == session.get_inputs()[0].shape[1:]
        pixels = crops(4)
        blob = (pixels.astype(np.float32) - np.float32(notes["input"]["mean_subtracted"])).transpose(0, 3, 1, 2)
        theirs = session.run([notes["output"]["name"]], {notes["input"]["name"]: blob})[0]
        ours = engine(net).probabilities(pixels)
        assert np.ptp(ours) > 1e-3
        column = notes["labels"].index(recipe.TASKS[notes["task"]].classes[1])
        np.testing.assert_allclose(theirs[:, column], ours, atol=1e-4)


def test_safetensors_hold_the_same_numbers(project) -> None:
    written, _ = export.export("tiny", "snet2", str(project / "out"))
    trained = engine("snet2").net
    with safe_open(written["safetensors"], framework="numpy") as file:
        assert json.loads(file.metadata()["preprocessing"])["net"] == "SNet2"
        assert len(list(file.keys())) == 2 * len(trained.params)
        for name, blobs in trained.params.items():
            np.testing.assert_array_equal(file.get_tensor(f"{name}.weight"), blobs[0].data)
            np.testing.assert_array_equal(file.get_tensor(f"{name}.bias"), blobs[1].data)


@pytest.mark.parametrize("net", recipe.NETS)
def test_crops_can_be_cut_from_the_json(net: str) -> None:
    """Only the JSON's numbers are used here, with numpy's least squares and OpenCV's warp."""
    notes = json.loads(json.dumps(export.preprocessing("demo", net, "")))
    crop = notes["crop"]
    landmarks = np.array([[71.2, 60.4], [109.3, 71.0], [86.1, 90.9], [64.3, 104.2], [95.5, 112.8]])
    template = np.array(crop["template"])
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in template]
    (c, s, x0, y0), *_ = np.linalg.lstsq(np.concatenate(rows), landmarks.reshape(-1), rcond=None)
    unit = math.hypot(c, s)
    turn = np.array([[c, -s], [s, c]]) if crop["aligned"] else unit * np.eye(2)
    pixel = crop["side"] / crop["size"]  # in the template's units
    corner = np.array(crop["center"]) - crop["side"] / 2 + pixel / 2  # the middle of the first pixel
    back = np.column_stack([turn * pixel, turn @ corner + [x0, y0]])  # crop pixel -> photo pixel
    noise = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    photo = cv2.resize(noise, (190, 170), interpolation=cv2.INTER_CUBIC)
    warp = dict(flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    mine = cv2.warpAffine(photo, back, (crop["size"], crop["size"]), **warp).astype(int)
    ours = crop_face(photo, landmarks, recipe.CROPS[crop["scheme"]], crop["size"]).astype(int)
    assert np.abs(mine - ours).mean() < 1.5  # ours averages where it shrinks; a pixel's shift makes three times that
    assert np.abs(np.roll(mine, 1, axis=1) - ours).mean() > 3


def test_averaged_nets_name_each_other() -> None:
    assert export.preprocessing("paper", "snet1", "")["averaged_with"] == ["SNet2"]
    assert export.preprocessing("paper", "gnet", "")["averaged_with"] == []
    assert export.preprocessing("paper", "smile2", "")["averaged_with"] == []


def test_file_that_answers_otherwise_is_not_written(project, monkeypatch, capsys) -> None:
    from torchcaffe.formats.onnx_layers import WRITERS
    from torchcaffe.layers.activation import ReLU

    relu = WRITERS[ReLU]
    monkeypatch.setitem(WRITERS, ReLU, lambda graph, layer, x: x if layer.name == "relu5_3" else relu(graph, layer, x))
    monkeypatch.setattr("gender_smile.inference.classifier.choose_profile", lambda name, variant: "tiny")
    assert command.main(["--net", "gnet", "--output", str(project / "out")]) == 1
    assert "differ from the engine's" in capsys.readouterr().err
    assert list((project / "out").iterdir()) == []


def test_differences_before_a_softmax_that_hides_them_are_seen(project, monkeypatch) -> None:
    """Probabilities of 0 and 1 are the same on both sides although one's scores are 5 % larger."""
    from torchcaffe.formats.onnx_graph import Graph

    path = recipe.absolute(recipe.step_weights("tiny", "gnet", 4))
    net = engine("gnet").net
    net.params["fc8_gender"][0].data[...] *= 1e-3  # so that the bias alone decides
    net.params["fc8_gender"][1].data[...] = 0, 60
    net.save(path)
    add = Graph.add

    def larger(self, *inputs, **attributes):
        return add(self, *inputs, **attributes, **({"beta": 1.05} if self.prefix == "fc8_gender" and inputs[0] == "Gemm" else {}))

    assert export.export("tiny", "gnet", str(project / "out"))[1] <= export.TOLERANCE
    monkeypatch.setattr(Graph, "add", larger)
    with pytest.raises(CaffeError, match="differ"):
        export.export("tiny", "gnet", str(project / "out"))


def test_command(project, monkeypatch, capsys) -> None:
    monkeypatch.setattr("gender_smile.inference.classifier.choose_profile", lambda name, variant: "tiny")
    assert command.main(["--net", "snet1"]) == 0
    assert capsys.readouterr().out.startswith("SNet1: ")
    found = sorted(path.name for path in (project / "weights" / "tiny" / "export").iterdir())
    assert found == ["snet1.json", "snet1.onnx", "snet1.safetensors"]
    (project / recipe.step_weights("tiny", "gnet", 4)).unlink()
    assert command.main(["--net", "gnet"]) == 1
    assert "make step4 NET=gnet" in capsys.readouterr().err


def test_a_variant_is_exported_under_its_name(project) -> None:
    weights = project / recipe.step_weights("tiny", "gnet", 4)
    weights.rename(weights.with_name("step4_gnet-seed7.caffemodel"))
    written, _ = export.export("tiny", "gnet", str(project / "out"), "seed7")
    assert written["onnx"].endswith("/gnet-seed7.onnx")
    described = json.loads((project / "out/gnet-seed7.json").read_text())
    assert described["weights"]["file"] == "step4_gnet-seed7.caffemodel"


def test_auto_takes_the_profile_that_has_the_variant(project, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("gender_smile.inference.classifier.choose_profile", lambda *names: asked.append(names) or "tiny")
    monkeypatch.setattr(export, "export", lambda profile, net, folder, variant: ({}, 0.0))
    assert command.main(["--net", "gnet", "--variant", "seed7", "--output", str(project / "out")]) == 0
    assert asked == [("auto", "seed7")]


def test_opencv_reads_caffes_own_files(project) -> None:
    """The other way out: a deploy prototxt and a caffemodel need no export for OpenCV's dnn module (below 5)."""
    for net in recipe.PIPELINE_NETS:
        classifier = engine(net)
        theirs = cv2.dnn.readNetFromCaffe(recipe.absolute(classifier.definition), recipe.absolute(classifier.weights))
        for count in (1, 3):
            pixels = crops(count)
            theirs.setInput(to_blob(pixels))
            np.testing.assert_allclose(theirs.forward()[:, 1], classifier.probabilities(pixels), atol=1e-4)


def test_export_needs_its_packages(project, monkeypatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setattr("gender_smile.inference.classifier.choose_profile", lambda name, variant: "tiny")
    assert command.main(["--net", "gnet"]) == 1
    assert "type: pip install onnxruntime" in capsys.readouterr().err
    with pytest.raises(CaffeError):
        export.export("tiny", "gnet", str(project / "out"))
