"""Is one net more accurate than another, or is it chance? Intervals and paired tests over the same validation faces.

An array `right` has a row a seed and a column a face: True where the net trained from that seed answers that face rightly.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence, Tuple

DRAWS = 10_000  # bootstrap samples: the interval's ends then move by about 0.02 points from one seed of ours to the next
BOOTSTRAP_SEED = 2016
LEVEL = 0.95


def bootstrap_interval(values, draws: int = DRAWS, seed: int = BOOTSTRAP_SEED) -> Tuple[float, float]:
    """95 % percentile interval of the mean of `values`, float or bool of shape seeds x faces.

    Faces are drawn anew, and with more than one seed the seeds too, each independently of the other: a face is the same
    face for every seed. (Two or three seeds tell little of how seeds differ; the interval is then rather too short.)
    Raises ValueError where there is nothing to draw from.
    """
    import numpy as np

    values = np.atleast_2d(np.asarray(values, np.float64))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"an interval needs seeds x faces, at least one of each, not {values.shape}")
    generator = np.random.default_rng(seed)
    seeds, faces = values.shape
    means = np.empty(draws)
    for start in range(0, draws, 1000):
        count = min(1000, draws - start)
        of_faces = generator.multinomial(faces, np.full(faces, 1.0 / faces), size=count)
        of_seeds = generator.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=count)
        means[start:start + count] = ((of_seeds @ values) * of_faces).sum(1) / (seeds * faces)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Dict[str, float]:
    """McNemar's exact test (1947) of two nets on the same faces: {"first", "second", "p"}.

    first, second: faces that only the one or only the other answers rightly; p: two-sided probability of so uneven a
    split, or a more uneven one, were both equally accurate (binomial). Raises ValueError for different numbers of faces.
    """
    import numpy as np
    from scipy.stats import binomtest

    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired test needs the same faces twice, not {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"first": only_a, "second": only_b, "p": p}


def compare(better, worse) -> Dict[str, Any]:
    """Does `better` beat `worse`? Both `right` of the same seeds and faces.

    {"difference", "interval": of the mean accuracies, as fractions; "tests": mcnemar of each seed; "wins": seeds in which
    `better` is the more accurate; "verdict"}. The verdict is "yes" or "no, reversed" where the difference is more than
    chance - McNemar's p < 0.05 for one seed, an interval without 0 for several - and else "as the paper, within chance",
    "reversed, within chance" or "equal".
    """
    import numpy as np

    a, b = np.atleast_2d(np.asarray(better, bool)), np.atleast_2d(np.asarray(worse, bool))
    tests = [mcnemar(x, y) for x, y in zip(a, b)]
    gain = a.astype(np.float64) - b
    low, high = bootstrap_interval(gain)
    difference = float(gain.mean())
    sure = tests[0]["p"] < 1 - LEVEL if len(tests) == 1 else low > 0 or high < 0
    verdict = ("yes" if difference > 0 else "no, reversed") if sure else (
        "as the paper, within chance" if difference > 0 else "reversed, within chance" if difference < 0 else "equal")
    wins = sum(test["first"] > test["second"] for test in tests)
    return {"difference": difference, "interval": [low, high], "tests": tests, "wins": wins, "verdict": verdict}
