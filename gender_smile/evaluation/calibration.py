"""Probabilities that are what they say: a temperature and a shift for the trained nets of a task, from validation faces.

The score of class 1 less that of class 0 is divided by a temperature and shifted, both such that the validation labels are
most probable (Platt 1999; a temperature alone: Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML
2017). The validation faces of all data sets count, so that the shift does not follow one of them: FotW shows few women.
Changing the last layer's weights and biases does the same, so the caffemodel stays an ordinary one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

import recipe
from common.files import read_json
from gender_smile.evaluation.faces import EvaluationError, check_same, read_all, validation_lmdb
from gender_smile.inference.classifier import Classifier, forward, load_engine
from gender_smile.training import chain, runs

if TYPE_CHECKING:
    import numpy as np

LIMITS = (0.05, 20.0)  # of a temperature; one at a limit means that the scores say nothing, or everything
MOST_SHIFT = 10.0  # of scores


def fit(scores: "np.ndarray", labels: "np.ndarray") -> Tuple[float, float]:
    """(temperature, shift) of all nets of a task that minimize the mean negative log-likelihood of their mean probability.

    A score s becomes s / temperature + shift. scores: nets (each of their views) x N float64, class 1's score less class
    0's; labels: N, 0 or 1. Raises EvaluationError where there is none: all faces are of one class, or all answers are right.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import log_expit, logsumexp

    scores, signs = np.asarray(scores, np.float64), np.where(np.asarray(labels) == 1, 1.0, -1.0)

    def loss(numbers: "np.ndarray") -> float:
        changed = scores * np.exp(-numbers[0]) + numbers[1]
        return -logsumexp(log_expit(signs * changed), axis=0).mean()  # the nets' number is a constant

    bounds = [tuple(np.log(LIMITS)), (-MOST_SHIFT, MOST_SHIFT)]
    found = minimize(loss, (0.0, 0.0), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
    value, shift = float(np.exp(found.x[0])), float(found.x[1])
    if not 1.01 * LIMITS[0] < value < LIMITS[1] / 1.01 or abs(shift) > 0.99 * MOST_SHIFT or len(set(signs)) < 2:
        raise EvaluationError("no temperature and shift make the probabilities fit: the validation faces' answers are all "
                              "right or all of one class, or the net answers at random")
    return value, shift


def calibrate(profile: str, task: str, engine: str = "auto", gpu: Optional[int] = None) -> Tuple[float, float, int]:
    """Change the last layers of a task's trained nets by one temperature and shift, in place; (temperature, shift, faces).

    The records beside the weights get "temperature" and "shift", of all calibrations so far. Raises PipelineError for
    missing weights, EvaluationError for missing faces or records.
    """
    import numpy as np

    nets, caffe = recipe.ENSEMBLES[task], load_engine(engine, gpu)
    rows = [chain.Row(recipe.PROFILES[profile], net, 4, root=recipe.ROOT) for net in nets]
    with contextlib.ExitStack() as locks:
        for row in rows:
            locks.enter_context(runs.only_one(row))
        records = [_record(row) for row in rows]
        classifiers = [Classifier(caffe, profile, net) for net in nets]
        found = [scores_of(classifier, validation_lmdbs(profile, classifier.net_key)) for classifier in classifiers]
        labels = found[0][0]
        for net, (others, _) in zip(nets, found):
            check_same(nets[0], labels, net, others)
        # Nets x views x faces, as if each view were a net of its own: an answer is the mean probability of all.
        scores = np.concatenate([np.array([given[name] for name in labels]).T for _, given in found])
        value, shift = fit(scores, np.array(list(labels.values())))
        for row, classifier, record in zip(rows, classifiers, records):
            weights, biases = classifier.net.params[classifier.task.layer]
            weights.data[...] = weights.data / np.float32(value)
            biases.data[...] = biases.data / np.float32(value) + np.array([-shift / 2, shift / 2], np.float32)
            changed = {"temperature": value * record.get("temperature", 1.0), "shift": record.get("shift", 0.0) / value + shift}
            runs.place(row, classifier.net.save, {**record, **changed})
    return value, shift, len(labels)


def _record(row: chain.Row) -> dict:
    record = read_json(row.path(row.weights_out) + ".json")
    if record is None:
        raise EvaluationError(f"{row.weights_out}.json, the record of its training, is missing: train it again (FORCE=1)")
    return record


def validation_lmdbs(profile: str, net: str) -> List[str]:
    """The validation LMDBs of a net's scheme, step 4's first. Raises PipelineError where that one is missing."""
    first = validation_lmdb(profile, net)
    names = [data_set.database("val") for data_set in recipe.DATASETS.values()]
    folders = [os.path.join(os.path.dirname(first), name) for name in names if name != os.path.basename(first)]
    return [first, *(folder for folder in folders if os.path.isdir(folder))]


def scores_of(classifier: Classifier, folders: Sequence[str]) -> Tuple[Dict[str, int], Dict[str, List[float]]]:
    """(labels, class 1's score less class 0's of each of the classifier's views) of the faces of LMDBs.

    Of the first all, of the others at most as many. Raises EvaluationError for missing faces.
    """
    labels: Dict[str, int] = {}
    scores: Dict[str, List[float]] = {}
    most = None
    for folder in folders:
        faces = read_all(folder, recipe.NETS[classifier.net_key].title, classifier.task.name)
        for image, label, crop in itertools.islice(faces, most):
            name = f"{os.path.basename(folder)}/{image}"
            labels[name], scores[name] = label, []
            for view in classifier.views([crop]):
                forward(classifier.net, view, classifier.weights)
                output = classifier.net.blobs[classifier.task.layer].data.reshape(-1)
                scores[name].append(float(output[1]) - float(output[0]))
        most = most or len(labels)
    return labels, scores
