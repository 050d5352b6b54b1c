"""Overlaps, codes and non-maximum suppression by themselves."""

import numpy as np
import pytest
import torch


@pytest.fixture
def boxes(contrib):
    from torchcaffe.contrib import boxes

    return boxes


def test_overlaps(boxes):
    some = np.array([[0, 0, 2, 1], [0.4, 0.4, 0.2, 0.2], [0.4, 0.1, 0.2, 0.9], [5, 5, 5, 5]], np.float32)
    others = np.array([[0, 0, 1, 1], [1, 0, 3, 1], [5, 5, 6, 6]], np.float32)
    expected = [[0.5, 1 / 3, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    for convert in (np.asarray, torch.from_numpy):
        np.testing.assert_allclose(boxes.overlaps(convert(some), convert(others)), expected, rtol=1e-6)
    pixels = np.array([[0, 0, 1, 0]]), np.array([[0, 0, 0, 0], [2, 0, 3, 0]])
    np.testing.assert_allclose(boxes.overlaps(*pixels, border=1), [[0.5, 0]])


def test_suppression_is_above_the_threshold(boxes):
    half = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [9, 0, 10, 1]], np.float32)
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    assert boxes.suppress(half, scores, 0.5).tolist() == [1, 2, 0]
    assert boxes.suppress(half, scores, 0.49).tolist() == [1, 2]
    assert boxes.suppress(half, scores, 0.5, limit=2).tolist() == [1, 2]
    assert boxes.suppress(half, scores, 0.5, top_k=1).tolist() == [1]
    assert boxes.suppress(half[:0], scores[:0], 0.5).tolist() == []


@pytest.mark.parametrize("code", [1, 2, 3])
@pytest.mark.parametrize("with_variances", [True, False])
def test_codes_are_undone(boxes, code, with_variances):
    rng = np.random.default_rng(code)
    some, priors = (torch.tensor(np.concatenate([corner, corner + rng.uniform(0.1, 1, (5, 2))], 1))
                    for corner in rng.uniform(size=(2, 5, 2)))  # fmt: skip
    variances = torch.tensor([0.1, 0.1, 0.2, 0.2]).expand(5, 4) if with_variances else None
    codes = boxes.encode(some, priors, variances, code)
    assert not np.allclose(codes, some)
    np.testing.assert_allclose(boxes.decode(codes, priors, variances, code), some)
