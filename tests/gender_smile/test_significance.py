"""Intervals and paired tests against published values, textbook formulas and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from gender_smile.evaluation import significance


def pair(both: int, first: int, second: int, neither: int):
    """Answers of two nets with so many faces that both, only the first, only the second or neither answers rightly."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(a), np.array(b)


def test_mcnemar_against_a_textbook():
    """Agresti, Categorical Data Analysis: approval ratings, 86 and 150 discordant pairs; z = 4.17, p = 3e-5."""
    found = significance.mcnemar(*pair(794, 86, 150, 570))
    assert (found["first"], found["second"]) == (86, 150)
    assert found["p"] == pytest.approx(3.1e-5, rel=0.3)
    # By hand: 1 against 5 of 6: 2 * (1 + 6) / 2**6.
    assert significance.mcnemar(*pair(10, 1, 5, 3))["p"] == pytest.approx(14 / 64)
    assert significance.mcnemar(*pair(10, 0, 0, 3))["p"] == 1.0
    with pytest.raises(ValueError, match="same faces"):
        significance.mcnemar([True], [True, False])


def test_bootstrap_interval_of_one_seed_is_that_of_a_share():
    """800 of 1000: 0.8 +- 1.96 sqrt(0.8 * 0.2 / 1000)."""
    low, high = significance.bootstrap_interval(np.arange(1000) < 800)
    half = 1.96 * (0.8 * 0.2 / 1000) ** 0.5
    assert (low, high) == (pytest.approx(0.8 - half, abs=2e-3), pytest.approx(0.8 + half, abs=2e-3))
    assert significance.bootstrap_interval([True, True]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        significance.bootstrap_interval([])


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        low, high = significance.bootstrap_interval(generator.random(300) < 0.85, draws=500)
        inside += low <= 0.85 <= high
    assert 180 <= inside <= 199  # 95 % of 200, give or take three standard errors


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not_narrow_it():
    face = np.arange(500) < 400
    one = np.subtract(*significance.bootstrap_interval(face))
    three = np.subtract(*significance.bootstrap_interval([face, face, face]))
    assert three == pytest.approx(one, abs=3e-3)  # the same faces thrice are not three times the faces
    differing = np.subtract(*significance.bootstrap_interval([np.arange(500) < n for n in (300, 400, 500)]))
    assert abs(differing) > 2 * abs(one)


@pytest.mark.parametrize("counts, verdict", [
    ((400, 40, 5, 50), "yes"), ((400, 5, 40, 50), "no, reversed"), ((400, 12, 10, 50), "as the paper, within chance"),
    ((400, 10, 12, 50), "reversed, within chance"), ((400, 9, 9, 50), "equal")])
@pytest.mark.parametrize("seeds", [1, 3])
def test_verdicts(counts, verdict, seeds):
    first, second = pair(*counts)
    found = significance.compare([first] * seeds, [second] * seeds)
    assert found["verdict"] == verdict and len(found["tests"]) == seeds
    assert found["difference"] == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]
    assert found["wins"] == (seeds if counts[1] > counts[2] else 0)
