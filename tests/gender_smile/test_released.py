"""The nets that are released with the project: whole, small, honest about their training, and right about a photograph."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import recipe
from common.files import sha256_of

FILES = {net: recipe.absolute(recipe.step_weights(recipe.SMALL.name, net, 4)) for net in recipe.PIPELINE_NETS}


@pytest.fixture(scope="module")
def pipeline():
    from gender_smile import Pipeline

    return Pipeline.load("small", "torch")


def test_together_they_are_small_and_their_records_are_theirs():
    assert sum(os.path.getsize(path) for path in FILES.values()) <= 16e6
    listed = json.loads(open(recipe.absolute("weights/manifest.json")).read())["small/step4_gnet, step4_snet1, step4_snet2"]
    for net, path in FILES.items():
        record = json.loads(open(path + ".json").read())
        assert record["sha256"] == sha256_of(path) == listed["sha256"][net]
        assert record["drawn"] is False and record["trained_on"] == ["MTFL"]
        assert record["iteration"] == recipe.SMALL.max_iter[4] and record["seed"] == recipe.SMALL.random_seed
        assert recipe.ROOT not in json.dumps(record) and record["inputs"] and record["made_by"][1].startswith("commit ")
    assert "research" in listed["license"]


def test_weights_are_of_the_deploy_nets(pipeline):
    from torchcaffe.formats.files import read_weights

    for net, path in FILES.items():
        layers = {layer.name: [blob.shape for blob in layer.blobs] for layer in read_weights(path) if layer.blobs}
        params = pipeline.classifiers[net].net.params
        assert set(layers) == set(params)
        assert {name: [tuple(blob.data.shape) for blob in blobs] for name, blobs in params.items()} == {
            name: [tuple(shape) for shape in shapes] for name, shapes in layers.items()}


def test_a_photograph_outside_of_the_data(pipeline):
    """Eileen Collins, smiling: scikit-image's astronaut."""
    import skimage.data

    found = pipeline.predict(skimage.data.astronaut()[..., ::-1].copy(), "astronaut.png")
    assert (found.gender.label, found.smile.label) == ("female", "smiling")
    assert found.gender.probability > 0.8 and found.smile.probability > 0.8


def test_a_fresh_checkout_answers_with_them(root, tmp_path):
    """The files that git has, and what make setup adds."""
    import shutil

    import cv2
    import skimage.data

    if subprocess.run(["git", "-C", str(root), "rev-parse"], capture_output=True).returncode:
        pytest.skip("needs a git checkout")
    names = subprocess.check_output(["git", "-C", str(root), "ls-files"], text=True).splitlines()
    for name in names:
        if name.split("/")[0] in ("recipe.py", "common", "torchcaffe", "detector", "lmdb_builders", "gender_smile", "tools",
                                  "prototxt", "weights") and (root / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, tmp_path / name)
    shutil.copytree(root / "weights" / "mtcnn", tmp_path / "weights" / "mtcnn")
    cv2.imwrite(str(tmp_path / "astronaut.png"), skimage.data.astronaut()[..., ::-1])
    done = subprocess.run([sys.executable, "tools/predict.py", "astronaut.png", "--json"], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["gender"]["label"], answer["smile"]["label"]) == ("female", "smiling")
    assert answer["model"]["profile"] == "small" and answer["model"]["trained_on"] == ["MTFL"]
    assert done.stderr == ""


def test_an_answer_needs_neither_training_nor_builders(root, tmp_path):
    import cv2
    import skimage.data

    cv2.imwrite(str(tmp_path / "astronaut.png"), skimage.data.astronaut()[..., ::-1])
    code = ("import sys; from tools import predict; predict.main(['astronaut.png']); "
            "print([name for name in sys.modules if name.startswith(('gender_smile.training', 'gender_smile.evaluation')) "
            "or name in ('lmdb_builders.builder', 'lmdb_builders.manifest', 'lmdb_builders.pool')])")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(root)})
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
