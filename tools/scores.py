"""Figures of merit: accuracy with its interval, confusion, and the challenge organizers' error."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

NORMAL_95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


def wilson_interval(right: int, total: int, z: float = NORMAL_95) -> Tuple[float, float]:
    """95 % interval of a share, as fractions (Wilson, 1927); unlike the plain one it never leaves 0..1."""
    if total <= 0:
        raise ValueError("no observations: an interval needs at least one")
    share = right / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


def score(truth: Dict[str, int], probability: Dict[str, Optional[float]]) -> Dict[str, Any]:
    """Accuracy, interval and confusion of one task.

    truth: image name -> 0 or 1; probability: the same names -> probability of class 1, or None where no face was
    predicted, which counts as wrong and stands outside of the confusion matrix. `confusion[truth][answer]` are counts.
    """
    if set(truth) != set(probability):
        raise ValueError(f"{len(truth)} labels but {len(probability)} answers, or of other images")
    confusion = [[0, 0], [0, 0]]
    for name, label in truth.items():
        if probability[name] is not None:
            confusion[label][int(probability[name] > 0.5)] += 1
    right = confusion[0][0] + confusion[1][1]
    return {
        "accuracy": right / len(truth),
        "faces": len(truth),
        "right": right,
        "missed": len(truth) - sum(map(sum, confusion)),
        "interval": list(wilson_interval(right, len(truth))),
        "confusion": confusion,
    }


def image_error(errors: Tuple[Optional[bool], ...]) -> float:
    """An image's part of the organizers' error: mean of the squared 0/1 errors of its tasks, that is 0, 1/2 or 1.

    errors: a task's answer is wrong (True), right (False) or was not given (None), which counts as wrong.
    """
    return sum(1.0 if error is None else float(error) for error in errors) / len(errors)


def challenge_error(
    truths: Tuple[Dict[str, int], ...], probabilities: Tuple[Dict[str, Optional[float]], ...], missed: int = 0
) -> Dict[str, Any]:
    """The organizers' "mean square error" summed over the images that have a label in every task.

    truths and probabilities: one dictionary a task, as for `score`; missed: further images, whose face was not found.
    The sum is our reading (docs/fidelity.md): the paper's 263.5 is no mean of squared 0/1 errors.
    """
    names = set.intersection(*(set(truth) for truth in truths))
    total = 0.0
    for name in names:
        answers = [probability.get(name) for probability in probabilities]
        total += image_error(
            tuple(None if p is None else (p > 0.5) != truth[name] for truth, p in zip(truths, answers))
        )
    total, images = total + missed, len(names) + missed
    return {"sum": total, "images": images, "mean_accuracy": 1 - total / images if images else None}
