"""Step 1: a V1 file becomes one of the current format with the same numbers, for both engines."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
from tiny_project import TINY

import recipe
from common import engine
from gender_smile.nets import prototxt
from gender_smile.nets.vgg_face import check_vgg_face, expected_shapes, write_random_vgg_face
from gender_smile.training import adopt, chain
from torchcaffe.core.errors import WeightsError
from torchcaffe.formats import files as caffe_files

LOAD = """
import sys, numpy as np, caffe
net = caffe.Net(sys.argv[1], caffe.TEST, weights=sys.argv[2])
np.savez(sys.argv[3], **{"%s_%d" % (name, i): blob.data for name, blobs in net.params.items() for i, blob in enumerate(blobs)})
"""


@pytest.fixture
def row(tmp_path):
    prototxt.write(prototxt.generate([TINY]), str(tmp_path))
    return chain.rows(TINY, ["gnet"], [1], root=str(tmp_path))[0]


def test_the_numbers_stay_and_blobs_get_their_own_axes(row):
    assert adopt.adopt(row, say=lambda line: None)
    before = {layer.name: layer.blobs for layer in caffe_files.read_weights(row.path(row.weights_in))}
    after = {layer.name: layer for layer in caffe_files.read_weights(row.path(row.weights_out)) if layer.blobs}
    shapes = expected_shapes(TINY.width, TINY.crop_size)
    assert list(after) == list(shapes) and len(after) == 16
    for name, layer in after.items():
        assert tuple(blob.shape for blob in layer.blobs) == shapes[name] and not any(blob.legacy for blob in layer.blobs)
        for old, new in zip(before[name], layer.blobs):
            assert np.array_equal(np.ravel(old.data), np.ravel(new.data)) and np.any(old.data) == (new is layer.blobs[0])


def test_real_caffe_reads_the_result(row, tmp_path):
    if not os.path.exists(recipe.absolute(".caffe/python")):
        pytest.skip("real Caffe is not installed: make caffe")
    adopt.adopt(row, say=lambda line: None)
    python = engine.interpreter("caffe")
    subprocess.run([*python.command, "-c", LOAD, row.path(row.definition), row.path(row.weights_out), tmp_path / "theirs.npz"],
                   env=python.environ(), check=True, capture_output=True)
    arrays = check_vgg_face(row.path(row.weights_in), TINY.width, TINY.crop_size)
    with np.load(tmp_path / "theirs.npz") as theirs:
        assert len(theirs.files) == 32
        for name in theirs.files:
            layer, number = name.rsplit("_", 1)
            assert np.array_equal(theirs[name], arrays[layer][int(number)])


def test_a_result_stays_when_the_source_does_not_fit(row):
    adopt.adopt(row, say=lambda line: None)
    with open(row.path(row.weights_out), "rb") as stream:
        content = stream.read()
    write_random_vgg_face(row.path("other.caffemodel"), width=TINY.width / 2, input_size=TINY.crop_size)
    other = chain.Row(TINY, "gnet", 1, root=row.root, start="other.caffemodel")
    with pytest.raises(WeightsError, match="other.caffemodel: layer conv1_1 has shapes"):
        adopt.adopt(other, force=True, say=lambda line: None)
    with open(row.path(row.weights_out), "rb") as stream:
        assert stream.read() == content
    assert os.path.exists(row.path(row.weights_out + ".json"))
