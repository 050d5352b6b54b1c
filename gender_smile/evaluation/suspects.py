"""Training labels ranked by how strongly models that did not see them disagree (section 4, wrong annotations).

The features are histograms of oriented gradients, and fc7 of the nets of step 3, which have learned on CelebA. Nets of
step 4 have learned the labels in question and are not used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

import recipe
from common import files

FOLDS, REPEATS = 10, 2  # each label is judged by two models, each fitted to nine tenths of the others
TRIALS = 3  # of injected noise
REGULARIZATION = 0.001  # C of the logistic regressions: thousands of features for about a thousand faces


class SuspectsError(RuntimeError):
    """The labels cannot be ranked; the message names what is missing and what makes it."""


@dataclass(frozen=True)
class Suspect:
    """A label and what models that did not see it say."""

    image: str  # file name, as FotW's table and the LMDBs' keys have it
    task: str
    label: int
    probability: float  # of the label, by models that did not see it


# ------------------------------------------------------------------------------------------ features
def features(profile: recipe.Profile, task: str, load_engine,
             variants: Sequence[str] = ("",)) -> Tuple[Dict[str, int], List[Tuple]]:
    """(labels by image, blocks) of a task's training faces; a block is (faces, mirrored faces), float32, rows as labels.

    Each scheme whose LMDB is there gives a block of histograms of oriented gradients (Dalal and Triggs, 2005), and one of
    fc7 for each step 3 that is trained on it. load_engine(): a module that speaks pycaffe.
    """
    import numpy as np

    from gender_smile.training import chain
    from gender_smile.evaluation.faces import read_lmdb

    labels: Dict[str, int] = {}
    blocks: List[Tuple] = []
    data_set = recipe.target()
    for crop in recipe.CROPS:
        folder = recipe.absolute(f"{recipe.lmdb_folder(profile.name, crop)}/{data_set.database('train')}")
        if not os.path.isdir(folder):
            continue
        stored = sorted(read_lmdb(folder, task=task), key=lambda face: face[0])
        faces = [face for face in stored if face[1] != recipe.UNUSABLE]
        by_name = {name: label for name, label, _ in faces}
        if len(by_name) != len(faces):
            raise SuspectsError(f"{folder} holds two faces of one name; build it again: make lmdb FORCE=1")
        if labels and by_name != labels:
            raise SuspectsError(f"{folder} does not hold the faces of the other schemes; build all again: make lmdb FORCE=1")
        labels = by_name
        crops = np.stack([crop for _, _, crop in faces])
        blocks.append((gradients(crops), gradients(crops[:, :, ::-1])))
        for net in recipe.NETS.values():
            for name in variants if net.crop == crop and net.task == task else ():
                weights = chain.Row(profile, net.key, 3, variant=name).weights_out
                if os.path.isfile(recipe.absolute(weights)):
                    learned = activations(load_engine(), profile, net.key, weights, crops)
                    blocks.append((learned, learned))
    if not blocks:
        raise SuspectsError(f"no LMDB of {data_set.title}'s training faces: make lmdb PROFILE={profile.name} "
                            f"{data_set.variable}=path")
    return labels, blocks


def gradients(crops):
    """Histograms of oriented gradients, N x features float32, of N x H x W x 3 uint8 BGR crops."""
    import cv2
    import numpy as np

    size, cell = 64, 8
    histogram = cv2.HOGDescriptor((size, size), (2 * cell, 2 * cell), (cell, cell), (cell, cell), 9)
    gray = (cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_BGR2GRAY) for crop in crops)
    return np.stack([histogram.compute(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)).ravel()
                     for image in gray]).astype(np.float32)


def activations(caffe, profile: recipe.Profile, net: str, weights: str, crops):
    """fc7 of a trained net, N x units float32: the mean of the faces and of their mirror images."""
    import numpy as np

    from gender_smile.inference.classifier import Classifier, forward

    classifier = Classifier(caffe, profile.name, net, weights)
    parts = []
    for start in range(0, len(crops), classifier.batch):
        part = crops[start:start + classifier.batch]
        sides = []
        for side in (part, part[:, :, ::-1]):
            forward(classifier.net, side, classifier.weights)
            sides.append(np.array(classifier.net.blobs["fc7"].data).reshape(len(part), -1))
        parts.append((sides[0] + sides[1]) / 2)
    return np.concatenate(parts).astype(np.float32)


# ------------------------------------------------------------------------------------------ ranking
def out_of_fold(labels, blocks: Sequence[Tuple], seed: int):
    """Probabilities of the classes, N x 2, each face's by models that were fitted to the other folds only.

    The mean of a logistic regression a block, each over standardized features.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    truth = np.asarray(labels)
    probabilities = np.zeros((len(truth), 2))
    splits = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=seed).split(truth, truth)
    with threadpool_limits(1):  # so few faces take longer with several threads, much longer beside other work
        for fitted, held_out in splits:
            for faces, mirrored in blocks:
                model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=40, tol=1e-3))
                model.fit(np.concatenate([faces[fitted], mirrored[fitted]]), np.tile(truth[fitted], 2))
                probabilities[held_out] += (model.predict_proba(faces[held_out])
                                            + model.predict_proba(mirrored[held_out]))
    return probabilities / probabilities.sum(1, keepdims=True)


def rank(labels: Dict[str, Dict[str, int]], blocks: Mapping[str, Sequence[Tuple]], seed: int) -> List[Suspect]:
    """All labels of all tasks, the most suspect first. labels: task -> image -> 0 or 1; blocks: task -> see features."""
    import numpy as np

    suspects = []
    for task, truth in labels.items():
        images, values = list(truth), np.array(list(truth.values()))
        if min(np.bincount(values, minlength=2)) < FOLDS:
            raise SuspectsError(f"{task}: fewer than {FOLDS} faces of one class; there is nothing to compare with")
        scores = out_of_fold(values, blocks[task], seed)[np.arange(len(values)), values]  # confident learning's self-confidence
        suspects += [Suspect(image, task, int(label), float(score)) for image, label, score in zip(images, values, scores)]
    return sorted(suspects, key=lambda suspect: suspect.probability)


def recall_of_injected_noise(labels: Dict[str, Dict[str, int]], blocks: Mapping[str, Sequence[Tuple]], share: float,
                             top: float, seed: int) -> List[Dict[str, float]]:
    """How many wrong labels a ranking finds: flips `share` of each task's labels at random, ranks all, and returns the share
    of the flipped ones among the first `top`, for all labels together ("all") and for each task's alone.

    labels, blocks: as rank takes them; share, top: 0..1. One dictionary for each of TRIALS trials, of seeds seed, seed + 1, ...
    """
    import numpy as np

    results = []
    for trial in range(TRIALS):
        generator = np.random.default_rng(seed + trial)
        flipped = {task: set(generator.choice(list(truth), max(1, round(share * len(truth))), replace=False).tolist())
                   for task, truth in labels.items()}
        noisy = {task: {image: label ^ (image in flipped[task]) for image, label in truth.items()}
                 for task, truth in labels.items()}
        ranked = rank(noisy, blocks, seed + trial)
        recall = {}
        for name in ("all", *labels):
            of_task = [suspect for suspect in ranked if name in ("all", suspect.task)]
            hits = sum(suspect.image in flipped[suspect.task] for suspect in of_task[:round(top * len(of_task))])
            recall[name] = hits / sum(len(images) for task, images in flipped.items() if name in ("all", task))
        results.append(recall)
    return results


def write_csv(path: str, suspects: Sequence[Suspect]) -> None:
    """Every label, the most suspect first: rank, image, task, label, probability of the label."""
    files.write_csv(path, ["rank", "image", "task", "label", "probability"], (
        [number, suspect.image, suspect.task, suspect.label, f"{suspect.probability:.6f}"]
        for number, suspect in enumerate(suspects, 1)))


def check_libraries() -> None:
    """Raise SuspectsError where the extra "labels" is not installed."""
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise SuspectsError("scikit-learn is not installed; type: .venv/bin/python -m pip install "
                            "--constraint requirements.lock --no-build-isolation --editable '.[labels]'")
