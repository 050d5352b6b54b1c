"""Rank FotW's training labels by how strongly models that did not see them disagree (section 4, wrong annotations).

    make suspects PROFILE=demo               # writes runs/demo/suspects.html and suspects.csv
    make lmdb CORRECTIONS=corrections.csv PROFILE=demo FOTW=/data/FotW

Open the page, decide with one key per face, press "save": it exports corrections.csv, which make lmdb applies and counts.
Needs LMDBs (make lmdb; more crop schemes rank better) and the extra "labels" (scikit-learn). Trained nets of step 3 add
their features; nets of step 4 were trained on the labels in question and are not used.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import functools
import os
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

import recipe
from common import command, files
from common.options import add_engine, add_profile, random_seed, share, variant

FOLDS, REPEATS = 10, 2  # each label is judged by two models, each fitted to nine tenths of the others
REGULARIZATION = 0.001  # C of the logistic regressions: thousands of features for about a thousand faces
TOP = 0.06  # share of the labels that the page shows


class SuspectsError(RuntimeError):
    """The labels cannot be ranked; the message names what is missing and what makes it."""


@dataclass(frozen=True)
class Suspect:
    """A label, and its probability by models that were not fitted to it."""

    image: str  # file name, as FotW's table and the LMDBs' keys have it
    task: str
    label: int
    probability: float  # of the label, by models that did not see it


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_profile(parser)
    parser.add_argument("--top", type=share, default=TOP, metavar="SHARE", help="of the labels on the page; %(default)s")
    parser.add_argument("--variant", type=variant, nargs="+", default=[""], metavar="NAME", help="of the step-3 nets to "
                        "use, as tools/train.py named them, several seeds for instance (default: the chain's own)")
    parser.add_argument("--inject-noise", type=share, metavar="SHARE", help="only measure how well this works here: flip this "
                        "share of the labels at random, three times, and count those found among the first --top")
    parser.add_argument("--seed", type=random_seed, default=recipe.PAPER.random_seed, help="of the folds; default: %(default)s")
    add_engine(parser)
    return parser


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
        folder = recipe.absolute(f"{recipe.lmdb_folder(profile.name, crop)}/{data_set.databases('train')[task]}")
        if not os.path.isdir(folder):
            continue
        faces = sorted(read_lmdb(folder, task=task), key=lambda face: face[0])
        of_crop = {name: label for name, label, _ in faces}
        if len(of_crop) != len(faces):
            raise SuspectsError(f"{folder} holds two faces of one name; build it again: make lmdb FORCE=1")
        if labels and of_crop != labels:
            raise SuspectsError(f"{folder} does not hold the faces of the other schemes; build all again: make lmdb FORCE=1")
        labels = of_crop
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

    from gender_smile.inference.pipeline import Classifier

    classifier = Classifier(caffe, profile.name, net, weights)

    def fc7(crop):
        classifier.probabilities([crop])
        return np.array(classifier.net.blobs["fc7"].data).ravel()

    return np.stack([(fc7(crop) + fc7(crop[:, ::-1])) / 2 for crop in crops]).astype(np.float32)


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
                probabilities[held_out] += model.predict_proba(faces[held_out]) + model.predict_proba(mirrored[held_out])
    return probabilities / probabilities.sum(1, keepdims=True)


def rank(labels: Dict[str, Dict[str, int]], blocks: Mapping[str, Sequence[Tuple]], seed: int) -> List[Suspect]:
    """All labels of all tasks, the most suspect first. labels: task -> image -> 0 or 1; blocks: task -> see features.
    Raises SuspectsError where a class has too few faces."""
    import numpy as np

    suspects: List[Suspect] = []
    for task, truth in labels.items():
        images, values = list(truth), np.array(list(truth.values()))
        if min(np.bincount(values, minlength=2)) < FOLDS:
            raise SuspectsError(f"{task}: fewer than {FOLDS} faces of one class; each of the folds needs one")
        scores = out_of_fold(values, blocks[task], seed)[np.arange(len(values)), values]  # confident learning's self-confidence
        suspects += [Suspect(image, task, int(label), float(score)) for image, label, score in zip(images, values, scores)]
    return sorted(suspects, key=lambda suspect: suspect.probability)


NOISE_DRAWS = 3


def inject_noise(labels: Dict[str, Dict[str, int]], blocks: Mapping[str, Sequence[Tuple]], share: float, top: float,
                 seed: int) -> List[Dict[str, float]]:
    """Recall of label noise: flip `share` of each task's labels at random, rank, and count the flipped among the first `top`.

    One dictionary per draw, of NOISE_DRAWS: the share found of all flipped labels ("all") and of each task's.
    """
    import numpy as np

    recalls = []
    for draw in range(NOISE_DRAWS):
        generator = np.random.default_rng(seed + draw)
        flipped = {task: set(generator.choice(list(truth), max(1, round(share * len(truth))), replace=False).tolist())
                   for task, truth in labels.items()}
        noisy = {task: {image: label ^ (image in flipped[task]) for image, label in truth.items()}
                 for task, truth in labels.items()}
        ranked = rank(noisy, blocks, seed + draw)
        recall = {}
        for name in ("all", *labels):
            of_task = [suspect for suspect in ranked if name in ("all", suspect.task)]
            hits = sum(suspect.image in flipped[suspect.task] for suspect in of_task[:round(top * len(of_task))])
            recall[name] = hits / sum(len(images) for task, images in flipped.items() if name in ("all", task))
        recalls.append(recall)
    return recalls


def write_csv(path: str, suspects: Sequence[Suspect]) -> None:
    """Every label, the most suspect first: rank, image, task, label, probability of the label."""
    files.write_csv(path, ["rank", "image", "task", "label", "probability"], (
        [number, suspect.image, suspect.task, suspect.label, f"{suspect.probability:.6f}"]
        for number, suspect in enumerate(suspects, 1)))


def main(argv=None) -> int:
    """Return 0 when the page is written, 2 where something is missing."""
    options = get_parser().parse_args(argv)
    from lmdb_builders.errors import BuildError
    from gender_smile.inference.classifier import PipelineError

    folder = recipe.absolute(f"runs/{options.profile}")
    writes = () if options.inject_noise else [os.path.join(folder, f"suspects.{kind}") for kind in ("csv", "html")]
    return command.run("suspects", lambda: suspect(options), SuspectsError, PipelineError, BuildError, writes=writes)


def suspect(options: argparse.Namespace) -> int:
    """Rank the labels and write the page, or measure how well it works; the exit status."""
    from gender_smile.inference import classifier
    from gender_smile.pages import suspects_page

    _need_libraries()
    engine = functools.cache(lambda: classifier.load_engine(options.engine, options.gpu))
    if options.engine == "caffe":
        engine()  # refuse now, not after the first features
    profile = recipe.PROFILES[options.profile]
    labels, blocks = {}, {}
    for task in recipe.TASKS:
        labels[task], blocks[task] = features(profile, task, engine, options.variant)
        print(f"{task}: {len(labels[task]):,} training labels, {len(blocks[task])} kinds of features", flush=True)
    if options.inject_noise:
        recalls = inject_noise(labels, blocks, options.inject_noise, options.top, options.seed)
        print(_describe_recall(recalls, options))
        return 0
    ranked = rank(labels, blocks, options.seed)
    folder = f"runs/{profile.name}"
    write_csv(recipe.absolute(f"{folder}/suspects.csv"), ranked)
    top = ranked[:max(1, round(options.top * len(ranked)))]
    suspects_page.write(recipe.absolute(f"{folder}/suspects.html"), profile, top, len(ranked))
    print(f"{folder}/suspects.html: {len(top)} of {len(ranked):,} labels, the most suspect first; open it in a browser\n"
          f"{folder}/suspects.csv: all of them")
    return 0


def _describe_recall(recalls: Sequence[Dict[str, float]], options: argparse.Namespace) -> str:
    lines = [f"{100 * options.inject_noise:g} % of the labels flipped at random; share of them among the first "
             f"{100 * options.top:g} %:"]
    for name in recalls[0]:
        values = [100 * recall[name] for recall in recalls]
        lines.append(f"  {name:<7}{sum(values) / len(values):5.1f} %   ({', '.join(f'{value:.1f}' for value in values)})")
    return "\n".join(lines)


def _need_libraries() -> None:
    """Raise SuspectsError where the extra "labels" is not installed."""
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise SuspectsError("scikit-learn is not installed; type: .venv/bin/python -m pip install "
                            "--constraint requirements.lock --no-build-isolation --editable '.[labels]'")


if __name__ == "__main__":
    raise SystemExit(main())
