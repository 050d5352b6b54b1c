"""Metrics, intervals and paired tests: by hand, by counting, against published values and textbook formulas."""

from __future__ import annotations

import numpy as np
import pytest

from gender_smile.evaluation import challenge, report, scores
from gender_smile.evaluation.faces import ensembles


def test_wilson_interval_against_published_values():
    assert scores.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert scores.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert scores.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_score_counts_a_face_that_was_not_found_as_wrong():
    metrics = scores.score({"a": 1, "b": 0, "c": 0, "d": 1}, {"a": 0.9, "b": 0.8, "c": 0.1, "d": None})
    assert (metrics["accuracy"], metrics["faces"], metrics["missed"]) == (0.5, 4, 1)
    assert metrics["confusion"] == [[1, 1], [0, 1]]
    assert metrics["balanced_accuracy"] == 0.5 and metrics["majority_accuracy"] == 0.5
    with pytest.raises(ValueError, match="other images"):
        scores.score({"a": 1}, {"b": 0.5})


def test_organizers_error_is_0_a_half_or_1_an_image():
    labels = {"gender": {"both": 1, "one": 1, "none": 1, "lost": 1, "unlabeled": 1},
              "smile": {"both": 0, "one": 0, "none": 0, "lost": 0}}
    answers = {"gender": {"both": 0.9, "one": 0.9, "none": 0.1, "lost": None, "unlabeled": 0.1},
               "smile": {"both": 0.1, "one": 0.9, "none": 0.9, "lost": None}}
    assert challenge.organizers_error(labels, answers)["sum"] == 0 + 0.5 + 1 + 1
    for name in ("unlisted", "unread"):  # no answer, and no label that is known
        for values in (*labels.values(), *answers.values()):
            values[name] = None
    assert challenge.organizers_error(labels, answers) == {"sum": 4.5, "images": 6, "mean_accuracy": 0.25}


def test_auc_by_hand_and_by_counting_pairs():
    assert scores.roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75  # scikit-learn's own example
    assert scores.roc_auc([0, 1, 1], [0.5, 0.5, 0.9]) == 0.75  # a tie counts half
    assert scores.roc_auc([1, 1], [0.2, 0.7]) is None
    generator = np.random.default_rng(3)
    labels, p_positive = generator.integers(0, 2, 60), generator.integers(0, 8, 60) / 8
    pairs = [(a > b) + 0.5 * (a == b) for a in p_positive[labels == 1] for b in p_positive[labels == 0]]
    assert scores.roc_auc(list(labels), list(p_positive)) == pytest.approx(np.mean(pairs))


def test_calibration_by_hand():
    """Confidences 0.9, 0.9 (one right) and 0.6, right: |0.5 - 0.9| * 2/3 + |1 - 0.6| / 3."""
    found = scores.calibration([1, 1, 0], [0.9, 0.1, 0.4])
    assert found["ece"] == pytest.approx(0.4 * 2 / 3 + 0.4 / 3)
    assert [entry["faces"] for entry in found["bins"]] == [1, 2]
    assert scores.calibration([1, 0], [1.0, 0.0])["ece"] == 0.0
    assert scores.calibration([], [])["ece"] is None
    generator = np.random.default_rng(4)
    p_positive = generator.random(20_000)
    assert scores.calibration(list(generator.random(20_000) < p_positive), list(p_positive))["ece"] < 0.02  # calibrated by making


def test_the_papers_accuracies_are_found():
    assert [report.paper_accuracy(*ensemble) for ensemble in ensembles().values()] == [91.66, 89.34, 88.79, 88.89]


def test_balanced_accuracy_and_majority_against_a_case_by_hand():
    """Of eight faces six are men; one woman and five men are answered rightly."""
    labels = {str(number): int(number >= 6) for number in range(8)}
    answers = {str(number): [0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9][number] for number in range(8)}
    metrics = scores.score(labels, answers)
    assert (metrics["majority_class"], metrics["majority_accuracy"]) == (0, 0.75)
    assert metrics["balanced_accuracy"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    classes = ("male", "female")
    assert scores.describe_majority(metrics, classes) == 'always "male" 75.00 %, balanced accuracy 66.67 %'
    assert scores.warning(metrics, classes) == 'no more accurate than always answering "male"'  # 6 of 8, too
    assert scores.warning(scores.score(labels, {**answers, "0": 0.1}), classes) == ""
    assert scores.warning(scores.score(labels, dict.fromkeys(labels, 0.9)), classes) == 'answers "female" for every face'
    alone = scores.score({"a": 1}, {"a": 0.2})
    assert alone["balanced_accuracy"] is None and alone["majority_accuracy"] == 1
    assert scores.score({"a": None}, {"a": None})["majority_class"] is None


def test_the_mean_of_several_nets():
    assert scores.mean_probability([{"a": 0.25, "b": None}, {"a": 0.75, "b": 0.5}]) == {"a": 0.5, "b": None}


# ------------------------------------------------------------------------------------------ paired tests
def pair(both: int, first: int, second: int, neither: int):
    """Answers of two nets with so many faces that both, only the first, only the second or neither answers rightly."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(a), np.array(b)


def test_mcnemar_against_a_textbook():
    """Agresti, Categorical Data Analysis: approval ratings, 86 and 150 discordant pairs; z = 4.17, p = 3e-5."""
    found = scores.mcnemar(*pair(794, 86, 150, 570))
    assert (found["first"], found["second"]) == (86, 150)
    assert found["p"] == pytest.approx(3.1e-5, rel=0.3)
    # By hand: 1 against 5 of 6: 2 * (1 + 6) / 2**6.
    assert scores.mcnemar(*pair(10, 1, 5, 3))["p"] == pytest.approx(14 / 64)
    assert scores.mcnemar(*pair(10, 0, 0, 3))["p"] == 1.0
    with pytest.raises(ValueError, match="same faces"):
        scores.mcnemar([True], [True, False])


def test_bootstrap_interval_of_one_seed_is_that_of_a_share():
    """800 of 1000: 0.8 +- 1.96 sqrt(0.8 * 0.2 / 1000)."""
    low, high = scores.bootstrap_interval(np.arange(1000) < 800)
    half = 1.96 * (0.8 * 0.2 / 1000) ** 0.5
    assert (low, high) == (pytest.approx(0.8 - half, abs=2e-3), pytest.approx(0.8 + half, abs=2e-3))
    assert scores.bootstrap_interval([True, True]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        scores.bootstrap_interval([])


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        low, high = scores.bootstrap_interval(generator.random(300) < 0.85, draws=500)
        inside += low <= 0.85 <= high
    assert 180 <= inside <= 199  # 95 % of 200, give or take three standard errors


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not_narrow_it():
    face = np.arange(500) < 400
    one = np.subtract(*scores.bootstrap_interval(face))
    three = np.subtract(*scores.bootstrap_interval([face, face, face]))
    assert three == pytest.approx(one, abs=3e-3)  # the same faces thrice are not three times the faces
    differing = np.subtract(*scores.bootstrap_interval([np.arange(500) < n for n in (300, 400, 500)]))
    assert abs(differing) > 2 * abs(one)


@pytest.mark.parametrize("counts, verdict", [
    ((400, 40, 5, 50), "yes"), ((400, 5, 40, 50), "no, reversed"), ((400, 12, 10, 50), "as the paper, within chance"),
    ((400, 10, 12, 50), "reversed, within chance"), ((400, 9, 9, 50), "equal")])
@pytest.mark.parametrize("seeds", [1, 3])
def test_verdicts(counts, verdict, seeds):
    first, second = pair(*counts)
    found = scores.compare([first] * seeds, [second] * seeds)
    assert found["verdict"] == verdict and len(found["tests"]) == seeds
    assert found["difference"] == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    assert found["wins"] == (seeds if counts[1] > counts[2] else 0)
