"""crops.to_blob is what Caffe's Data layer computes from the Datum."""

from __future__ import annotations

import numpy as np
import pytest

import recipe
from lmdb_builders.crops import to_blob, to_planes


def test_blob_is_planes_minus_mean():
    crops = np.random.RandomState(0).randint(0, 256, (2, 5, 5, 3), np.uint8)
    blob = to_blob(crops)
    assert blob.shape == (2, 3, 5, 5) and blob.dtype == np.float32 and blob.flags.c_contiguous
    for channel in range(3):  # B, G, R
        assert np.allclose(blob[:, channel], crops[..., channel] - np.float32(recipe.MEAN_BGR[channel]))
    assert np.array_equal(to_planes(crops[1]), to_planes(crops)[1])


@pytest.mark.parametrize("crops", [np.zeros((2, 3, 5, 5), np.uint8), np.zeros((2, 5, 5, 3), np.float32)])
def test_other_layouts_are_refused(crops):
    with pytest.raises(ValueError, match="expected"):
        to_blob(crops)


def test_one_crop_is_no_batch():
    with pytest.raises(ValueError, match="crops"):
        to_blob(np.zeros((5, 5, 3), np.uint8))
