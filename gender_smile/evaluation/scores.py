"""Figures of merit: accuracy with its interval, confusion, ROC-AUC, calibration, and the challenge organizers' error."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

CALIBRATION_BINS = 15  # as Guo et al.


def wilson_interval(right: int, total: int) -> Tuple[float, float]:
    """95 % interval of a share, as fractions (Wilson, 1927); unlike the plain one it never leaves 0..1."""
    from scipy.stats import binomtest

    if total <= 0:
        raise ValueError("no observations: an interval needs at least one")
    low, high = binomtest(right, total).proportion_ci(0.95, "wilson")
    return float(low), float(high)


def score(truth: Dict[str, Optional[int]], probability: Dict[str, Optional[float]]) -> Dict[str, Any]:
    """Accuracy, interval, confusion, AUC and ECE of one task.

    truth: image name -> 0 or 1, or None where the label is not known; probability: the same names -> probability of
    class 1, or None where no face was predicted, which counts as wrong and stands outside of `confusion[truth][answer]`
    (counts), "auc" and "ece". Raises ValueError where names differ, or an answer has no label.
    """
    if set(truth) != set(probability):
        raise ValueError(f"{len(truth)} labels but {len(probability)} answers, or of other images")
    answered = {name: value for name, value in probability.items() if value is not None}
    labels = [truth[name] for name in answered]
    if any(label not in (0, 1) for label in labels):
        raise ValueError("an answer without a label cannot be scored")
    confusion = [[0, 0], [0, 0]]
    for label, value in zip(labels, answered.values()):
        confusion[label][int(value > 0.5)] += 1
    right = confusion[0][0] + confusion[1][1]
    return {
        "accuracy": right / len(truth),
        "faces": len(truth),
        "right": right,
        "missed": len(truth) - sum(map(sum, confusion)),
        "interval": list(wilson_interval(right, len(truth))),
        "confusion": confusion,
        "auc": roc_auc(labels, list(answered.values())),
        "ece": calibration(labels, list(answered.values()))["ece"],
    }


def roc_auc(labels: List[int], ones: List[float]) -> Optional[float]:
    """Area under the ROC curve: how often a face of class 1 gets the higher probability of class 1, ties half.

    labels: 0 or 1; ones: probability of class 1. None where only one of the classes occurs.
    """
    import numpy as np
    from scipy.stats import mannwhitneyu

    positive, values = np.asarray(labels, bool), np.asarray(ones, np.float64)
    first, second = values[positive], values[~positive]
    if not len(first) or not len(second):
        return None
    return float(mannwhitneyu(first, second, method="asymptotic").statistic / (len(first) * len(second)))


def calibration(labels: List[int], ones: List[float], bins: int = CALIBRATION_BINS) -> Dict[str, Any]:
    """Expected calibration error of the answers, and the bins it is made of (Guo et al., ICML 2017).

    An answer's confidence is the probability of the class it names, 0.5..1; bins have equal width over 0..1. Each bin
    is {"low", "high", "faces", "confidence", "accuracy"} (means, fractions); "ece" is the mean of |accuracy -
    confidence| over faces, None without a face.
    """
    import numpy as np

    values = np.asarray(ones, np.float64)
    confidence = np.maximum(values, 1 - values)
    right = (values > 0.5) == np.asarray(labels, bool)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found, error = [], 0.0
    for number in range(bins):
        inside = place == number
        faces = int(inside.sum())
        if faces:
            mean, share = float(confidence[inside].mean()), float(right[inside].mean())
            error += abs(share - mean) * faces / len(values)
            found.append({"low": number / bins, "high": (number + 1) / bins, "faces": faces, "confidence": mean,
                          "accuracy": share})
    return {"ece": error if found else None, "bins": found}


def image_error(errors: Tuple[Optional[bool], ...]) -> float:
    """An image's part of the organizers' error: mean of the squared 0/1 errors of its tasks, that is 0, 1/2 or 1.

    errors: a task's answer is wrong (True), right (False) or was not given (None), which counts as wrong.
    """
    return sum(1.0 if error is None else float(error) for error in errors) / len(errors)


def challenge_error(
    truths: Tuple[Dict[str, Optional[int]], ...], probabilities: Tuple[Dict[str, Optional[float]], ...]
) -> Dict[str, Any]:
    """The organizers' "mean square error" summed over the images that have a label in every task, or were not answered.

    truths and probabilities: one dictionary a task, as for `score`. The sum is our reading (docs/fidelity.md): the
    paper's 263.5 is no mean of squared 0/1 errors.
    """
    names = set.intersection(*(set(truth) for truth in truths))
    total = 0.0
    for name in names:
        answers = [probability.get(name) for probability in probabilities]
        total += image_error(
            tuple(None if p is None else (p > 0.5) != truth[name] for truth, p in zip(truths, answers))
        )
    return {"sum": total, "images": len(names), "mean_accuracy": 1 - total / len(names) if names else None}
