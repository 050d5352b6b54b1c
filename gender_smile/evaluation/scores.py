"""Metrics of one net's answers, and paired tests of two nets on the same faces.

Answers are probabilities of class 1 ("female", "smiling"), `p_positive`; a face is answered with class 1 above 0.5.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

CALIBRATION_BINS = 15  # as Guo et al.
DRAWS = 10_000  # bootstrap samples: with another seed of ours, the interval's ends move by about 0.02 points
BOOTSTRAP_SEED = 2016
LEVEL = 0.95
MAJORITY_NOTE = "majority: accuracy of always the more common answer; balanced: mean of the two classes' accuracies"


# ---------------------------------------------------------------------------------------------- one net
def score(labels: Mapping[str, Optional[int]], p_positive: Mapping[str, Optional[float]]) -> Dict[str, Any]:
    """All metrics of one net, or of the mean of several, on one task.

    labels: image -> 0 or 1, or None where it is not known; p_positive: the same images -> probability of class 1, or None
    where there is no answer, which counts as wrong. Returns, with shares as fractions:

    "accuracy", "faces", "right", "interval" (Wilson, 95 %) over all images; "missed": images without an answer;
    "majority_class" and "majority_accuracy" of always giving the more common answer, None without a known label;
    "balanced_accuracy": mean of the two classes' accuracies; "confusion"[label][answer] (counts), "auc" and "ece" of the
    answered images. "balanced_accuracy" and "auc" are None where only one class occurs. Raises ValueError where the
    images differ, or an answer has no label.
    """
    if set(labels) != set(p_positive):
        raise ValueError(f"{len(labels)} labels but {len(p_positive)} answers, or of other images")
    answered = {name: p for name, p in p_positive.items() if p is not None}
    truth = [labels[name] for name in answered]
    if any(label not in (0, 1) for label in truth):
        raise ValueError("an answer without a label cannot be scored")
    confusion = [[0, 0], [0, 0]]
    for label, p in zip(truth, answered.values()):
        confusion[label][int(p > 0.5)] += 1
    right = confusion[0][0] + confusion[1][1]
    counts = [sum(label == number for label in labels.values()) for number in (0, 1)]
    majority = int(counts[1] > counts[0]) if any(counts) else None
    return {
        "accuracy": right / len(labels),
        "faces": len(labels),
        "right": right,
        "missed": len(labels) - len(answered),
        "interval": list(wilson_interval(right, len(labels))),
        "majority_class": majority,
        "majority_accuracy": None if majority is None else counts[majority] / sum(counts),
        "balanced_accuracy": sum(confusion[n][n] / counts[n] for n in (0, 1)) / 2 if all(counts) else None,
        "confusion": confusion,
        "auc": roc_auc(truth, list(answered.values())),
        "ece": calibration(truth, list(answered.values()))["ece"],
    }


def percent(share: Optional[float]) -> str:
    """A fraction like "91.66 %"; "-" for None."""
    return "-" if share is None else f"{100 * share:.2f} %"


def describe_majority(metrics: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The baseline beside an accuracy, like "always \"male\" 73.75 %, balanced accuracy 81.20 %"; classes: of 0 and 1."""
    if metrics["majority_class"] is None:
        return "no label is known"
    return (f"always \"{classes[metrics['majority_class']]}\" {percent(metrics['majority_accuracy'])}, "
            f"balanced accuracy {percent(metrics['balanced_accuracy'])}")


def warning(metrics: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Why an accuracy shows nothing learned: it is not above that of always giving the more common answer; else ""."""
    if metrics["majority_class"] is None or metrics["accuracy"] > metrics["majority_accuracy"]:
        return ""
    answered = [sum(column) for column in zip(*metrics["confusion"])]
    if any(answered) and not all(answered):
        return f"answers \"{classes[int(answered[1] > 0)]}\" for every face"
    return f"no more accurate than always answering \"{classes[metrics['majority_class']]}\""


def right_answers(labels: Mapping[str, int], p_positive: Mapping[str, float]) -> Dict[str, bool]:
    """image -> whether its answer is right, as score counts it."""
    return {name: (p_positive[name] > 0.5) == bool(label) for name, label in labels.items()}


def mean_probability(answers: Sequence[Mapping[str, Optional[float]]]) -> Dict[str, Optional[float]]:
    """The ensemble's answers: of each image the mean of its nets', None where one of them has no answer."""
    combined: Dict[str, Optional[float]] = {}
    for image in answers[0]:
        known = [p for net in answers if (p := net[image]) is not None]
        combined[image] = sum(known) / len(known) if len(known) == len(answers) else None
    return combined


def wilson_interval(right: int, total: int) -> Tuple[float, float]:
    """95 % interval of a share, as fractions (Wilson, 1927); unlike the normal approximation it stays within 0..1.
    Raises ValueError without observations."""
    from scipy.stats import binomtest

    if total <= 0:
        raise ValueError("no observations: an interval needs at least one")
    low, high = binomtest(right, total).proportion_ci(LEVEL, "wilson")
    return float(low), float(high)


def roc_auc(labels: Sequence[int], p_positive: Sequence[float]) -> Optional[float]:
    """Area under the ROC curve: how often a face of class 1 gets the higher probability of class 1, ties half.

    None where only one of the classes occurs.
    """
    import numpy as np
    from scipy.stats import mannwhitneyu

    positive, values = np.asarray(labels, bool), np.asarray(p_positive, np.float64)
    first, second = values[positive], values[~positive]
    if not len(first) or not len(second):
        return None
    return float(mannwhitneyu(first, second, method="asymptotic").statistic / (len(first) * len(second)))


def calibration(labels: Sequence[int], p_positive: Sequence[float], bins: int = CALIBRATION_BINS) -> Dict[str, Any]:
    """Expected calibration error of the answers, and the bins it is made of (Guo et al., ICML 2017).

    An answer's confidence is the probability of the class it names, 0.5..1; bins have equal width over 0..1. Each bin
    is {"low", "high", "faces", "confidence", "accuracy"} (means, fractions); "ece" is the mean of |accuracy -
    confidence| over faces, None without a face.
    """
    import numpy as np

    values = np.asarray(p_positive, np.float64)
    confidence = np.maximum(values, 1 - values)
    right = (values > 0.5) == np.asarray(labels, bool)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    filled: List[Dict[str, float]] = []
    error = 0.0
    for number in range(bins):
        inside = place == number
        faces = int(inside.sum())
        if faces:
            mean, share = float(confidence[inside].mean()), float(right[inside].mean())
            error += abs(share - mean) * faces / len(values)
            filled.append({"low": number / bins, "high": (number + 1) / bins, "faces": faces, "confidence": mean,
                           "accuracy": share})
    return {"ece": error if filled else None, "bins": filled}


# ---------------------------------------------------------------------------------------------- is it chance?
# `right`: bool, a row per seed and a column per face; True where the net trained from that seed answers the face rightly.
def bootstrap_interval(values, draws: int = DRAWS, seed: int = BOOTSTRAP_SEED) -> Tuple[float, float]:
    """95 % percentile interval of the mean of `values`, float or bool of shape seeds x faces.

    Resamples the faces and, independently, the seeds where there are several: a face is the same face for every seed.
    (Two or three seeds say little about how seeds differ; the interval is then too short.) Raises ValueError where
    `values` is empty.
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

    "first", "second": faces that only the first or only the second net answers rightly; "p": two-sided probability of so
    uneven a split, or a more uneven one, were both equally accurate. Raises ValueError for different numbers of faces.
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
    `better` is the more accurate; "verdict"}. The verdict is "yes" or "no, reversed" where the difference is significant
    - McNemar's p < 0.05 for one seed, an interval without 0 for several - and else "as the paper, within chance",
    "reversed, within chance" or "equal".
    """
    import numpy as np

    a, b = np.atleast_2d(np.asarray(better, bool)), np.atleast_2d(np.asarray(worse, bool))
    tests = [mcnemar(x, y) for x, y in zip(a, b)]
    gain = a.astype(np.float64) - b
    low, high = bootstrap_interval(gain)
    difference = float(gain.mean())
    significant = tests[0]["p"] < 1 - LEVEL if len(tests) == 1 else low > 0 or high < 0
    verdict = ("yes" if difference > 0 else "no, reversed") if significant else (
        "as the paper, within chance" if difference > 0 else "reversed, within chance" if difference < 0 else "equal")
    wins = sum(test["first"] > test["second"] for test in tests)
    return {"difference": difference, "interval": [low, high], "tests": tests, "wins": wins, "verdict": verdict}
