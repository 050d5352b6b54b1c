"""Figures of merit by hand, against published values and by counting."""

from __future__ import annotations

import numpy as np
import pytest

from gender_smile.evaluation import report as evaluation_report, scores
from tools import evaluate


def test_wilson_interval_against_published_values():
    assert scores.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert scores.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert scores.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_score_counts_a_face_that_was_not_found_as_wrong():
    figure = scores.score({"a": 1, "b": 0, "c": 0, "d": 1}, {"a": 0.9, "b": 0.8, "c": 0.1, "d": None})
    assert (figure["accuracy"], figure["faces"], figure["missed"]) == (0.5, 4, 1)
    assert figure["confusion"] == [[1, 1], [0, 1]]
    with pytest.raises(ValueError, match="other images"):
        scores.score({"a": 1}, {"b": 0.5})


def test_organizers_error_is_0_a_half_or_1_an_image():
    truths = ({"both": 1, "one": 1, "none": 1, "lost": 1, "unlabeled": 1}, {"both": 0, "one": 0, "none": 0, "lost": 0})
    answers = (
        {"both": 0.9, "one": 0.9, "none": 0.1, "lost": None, "unlabeled": 0.1},
        {"both": 0.1, "one": 0.9, "none": 0.9, "lost": None},
    )
    assert scores.challenge_error(truths, answers)["sum"] == 0 + 0.5 + 1 + 1
    for name in ("unlisted", "unread"):  # no answer, and no label that is known
        for values in (*truths, *answers):
            values[name] = None
    assert scores.challenge_error(truths, answers) == {"sum": 4.5, "images": 6, "mean_accuracy": 0.25}


def test_auc_by_hand_and_by_counting_pairs():
    assert scores.roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75  # scikit-learn's own example
    assert scores.roc_auc([0, 1, 1], [0.5, 0.5, 0.9]) == 0.75  # a tie counts half
    assert scores.roc_auc([1, 1], [0.2, 0.7]) is None
    generator = np.random.default_rng(3)
    labels, ones = generator.integers(0, 2, 60), generator.integers(0, 8, 60) / 8
    pairs = [(a > b) + 0.5 * (a == b) for a in ones[labels == 1] for b in ones[labels == 0]]
    assert scores.roc_auc(list(labels), list(ones)) == pytest.approx(np.mean(pairs))


def test_calibration_by_hand():
    """Confidences 0.9, 0.9 (one right) and 0.6, right: |0.5 - 0.9| * 2/3 + |1 - 0.6| / 3."""
    found = scores.calibration([1, 1, 0], [0.9, 0.1, 0.4])
    assert found["ece"] == pytest.approx(0.4 * 2 / 3 + 0.4 / 3)
    assert [entry["faces"] for entry in found["bins"]] == [1, 2]
    assert scores.calibration([1, 0], [1.0, 0.0])["ece"] == 0.0
    assert scores.calibration([], [])["ece"] is None
    generator = np.random.default_rng(4)
    ones = generator.random(20_000)
    assert scores.calibration(list(generator.random(20_000) < ones), list(ones))["ece"] < 0.02  # calibrated by making


def test_the_papers_figures_are_found():
    assert [evaluation_report.paper_accuracy(*figure) for figure in evaluate.FIGURES.values()] == [91.66, 89.34, 88.79, 88.89]
