"""Probabilities that are what they say: a temperature for the trained nets of a task, from their validation faces.

Scores are divided by the temperature that makes the validation labels most probable (Guo, Pleiss, Sun, Weinberger: On
Calibration of Modern Neural Networks, ICML 2017). Dividing the last layer's weights and biases by it does the same, so
the caffemodel stays an ordinary one. Which answer of a net is more probable does not change.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

import recipe
from common.files import read_json
from gender_smile.evaluation.faces import EvaluationError, check_same, read_all, validation_lmdb
from gender_smile.inference.classifier import Classifier, forward, load_engine
from gender_smile.training import chain, runs

if TYPE_CHECKING:
    import numpy as np

LIMITS = (0.05, 20.0)  # of a temperature; one at a limit means that the scores say nothing, or everything


def temperature(scores: "np.ndarray", labels: "np.ndarray") -> float:
    """The temperature of all nets of a task that minimizes the mean negative log-likelihood of their mean probability.

    scores: nets (each of their views) x N float64, class 1's score less class 0's; labels: N, 0 or 1. Raises
    EvaluationError where there is none: all faces are of one class, or all answers are right.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    margins = np.where(np.asarray(labels) == 1, scores, -np.asarray(scores, np.float64))  # > 0: right

    def loss(log: float) -> float:
        return -logsumexp(-np.logaddexp(0, -margins * np.exp(-log)), axis=0).mean()  # the nets' number is a constant

    found = minimize_scalar(loss, bounds=np.log(LIMITS), method="bounded", options={"xatol": 1e-6})
    value = float(np.exp(found.x))
    if not 1.01 * LIMITS[0] < value < LIMITS[1] / 1.01:
        raise EvaluationError("no temperature makes the probabilities fit: the validation faces' answers are all right or "
                              "all of one class, or the net answers at random")
    return value


def calibrate(profile: str, task: str, engine: str = "auto", gpu: Optional[int] = None) -> Tuple[float, int]:
    """Scale the last layers of a task's trained nets by one temperature, in place; (temperature, faces).

    The records beside the weights get "temperature". Raises PipelineError for missing weights, EvaluationError for missing
    faces or records.
    """
    import numpy as np

    nets, caffe = recipe.ENSEMBLES[task], load_engine(engine, gpu)
    rows = [chain.Row(recipe.PROFILES[profile], net, 4, root=recipe.ROOT) for net in nets]
    with contextlib.ExitStack() as locks:
        for row in rows:
            locks.enter_context(runs.only_one(row))
        records = [_record(row) for row in rows]
        classifiers = [Classifier(caffe, profile, net) for net in nets]
        found = [scores_of(classifier, validation_lmdb(profile, classifier.net_key)) for classifier in classifiers]
        labels = found[0][0]
        for net, (others, _) in zip(nets, found):
            check_same(nets[0], labels, net, others)
        # Nets x views x faces, as if each view were a net of its own: an answer is the mean probability of all.
        scores = np.concatenate([np.array([given[name] for name in labels]).T for _, given in found])
        value = temperature(scores, np.array(list(labels.values())))
        for row, classifier, record in zip(rows, classifiers, records):
            for blob in classifier.net.params[classifier.task.layer]:
                blob.data[...] = blob.data / np.float32(value)
            runs.place(row, classifier.net.save, {**record, "temperature": value * record.get("temperature", 1.0)})
    return value, len(labels)


def _record(row: chain.Row) -> dict:
    record = read_json(row.path(row.weights_out) + ".json")
    if record is None:
        raise EvaluationError(f"{row.weights_out}.json, the record of its training, is missing: train it again (FORCE=1)")
    return record


def scores_of(classifier: Classifier, folder: str) -> Tuple[Dict[str, int], Dict[str, List[float]]]:
    """(labels, class 1's score less class 0's of each of the classifier's views) of all faces of an LMDB.

    Raises EvaluationError for missing faces.
    """
    labels: Dict[str, int] = {}
    scores: Dict[str, List[float]] = {}
    for name, label, crop in read_all(folder, recipe.NETS[classifier.net_key].title, classifier.task.name):
        labels[name], scores[name] = label, []
        for view in classifier.views([crop]):
            forward(classifier.net, view, classifier.weights)
            output = classifier.net.blobs[classifier.task.layer].data.reshape(-1)
            scores[name].append(float(output[1]) - float(output[0]))
    return labels, scores
