"""Score step 2 (Model 1) on the forty attributes, of the faces of an LMDB: each attribute's accuracy and the mean."""

from __future__ import annotations

import os
from typing import Any, Dict, List

import recipe
from common import files
from gender_smile.evaluation import scores
from gender_smile.evaluation.faces import EvaluationError, check_count, read_all, read_labels
from gender_smile.inference.classifier import PipelineError, forward, load_net
from gender_smile.training import chain

PARTITION = "test"
SHARES = ("accuracy", "balanced_accuracy", "majority_accuracy")


def score(caffe: Any, profile: recipe.Profile, crop: str, partition: str = PARTITION, variant: str = "") -> List[Dict[str, Any]]:
    """scores.score of each attribute, with its name as "attribute"; the least accurate first.

    "Female" is CelebA's Male negated, with the same accuracy. Raises PipelineError where a file is missing or the net
    outputs NaN or Inf, EvaluationError where faces and labels are not those of the manifest.
    """
    import numpy as np

    row = step2(profile, crop, variant)
    net = load_net(caffe, recipe.deploy_prototxt(profile.name, "attributes"), row.weights_out, row.command)
    folder = _folder(profile, crop, partition)
    labels = read_labels(folder + "_labels")
    answers: Dict[str, Any] = {}  # image -> forty float32
    for name, _, pixels in read_all(folder, f"attributes, {crop}"):
        if name not in labels:
            raise EvaluationError(f"{folder}_labels has no labels of {name}; build both again: make lmdb FORCE=1")
        answers[name] = np.array(forward(net, [pixels], row.weights_out)[0])
    check_count(folder + "_labels", len(labels))
    rows = []
    for position, attribute in enumerate(recipe.LABELS):
        truth = {name: int(labels[name][position]) for name in answers}
        p_positive = {name: float(values[position]) for name, values in answers.items()}
        rows.append({"attribute": attribute, **scores.score(truth, p_positive)})
    return sorted(rows, key=lambda own: own["accuracy"])


def mean(rows: List[Dict[str, Any]], key: str = "accuracy") -> float:
    """Of a metric over the attributes that have it."""
    known = [row[key] for row in rows if row[key] is not None]
    return sum(known) / len(known) if known else float("nan")


def as_text(rows: List[Dict[str, Any]], profile: str, crop: str) -> str:
    """The scores as an aligned table, and their mean."""
    lines = [("attribute", "accuracy", "95 % interval", "majority", "balanced")]
    for row in rows:
        low, high = row["interval"]
        lines.append((row["attribute"], scores.percent(row["accuracy"]), f"{100 * low:.2f} .. {100 * high:.2f}",
                      scores.percent(row["majority_accuracy"]), scores.percent(row["balanced_accuracy"])))
    accuracy, balanced, majority = (scores.percent(mean(rows, key)) for key in SHARES)
    lines.append(("mean", accuracy, "", majority, balanced))
    where = f"{rows[0]['faces']:,} faces of {_data_set().title}'s {PARTITION} partition"
    below = sum(row["accuracy"] <= row["majority_accuracy"] for row in rows)
    note = f"\nWarning: {below} of {len(rows)} attributes: no more accurate than the majority" if below else ""
    return f"Model 1 of profile {profile}, {crop}, on {where}\n\n{files.align(lines)}\n\n{scores.MAJORITY_NOTE}{note}"


def write(rows: List[Dict[str, Any]], profile: str, crop: str, variant: str = "") -> str:
    """runs/<profile>/attributes_<crop>.csv (of a variant, with its name); returns its path."""
    path = f"runs/{profile}/attributes_{'-'.join(filter(None, (crop, variant)))}.csv"
    files.write_csv(recipe.absolute(path), ["attribute", "faces", "accuracy", "low", "high", *SHARES[1:]], (
        [row["attribute"], row["faces"], *("" if value is None else f"{value:.6f}" for value in (
            row["accuracy"], *row["interval"], *(row[key] for key in SHARES[1:])))] for row in rows))
    return path


def step2(profile: recipe.Profile, crop: str, variant: str = "") -> chain.Row:
    """The training of a crop scheme's step 2. Raises PipelineError for a scheme that no net of the recipe has."""
    nets = [net.key for net in recipe.NETS.values() if net.crop == crop]
    if not nets:
        raise PipelineError(f"{crop} is a crop without a net, so it has no step 2: add a Net of it to recipe.NETS, then make "
                            "prototxt")
    return chain.Row(profile, nets[0], 2, variant=variant)


def trained(profile: recipe.Profile, variant: str = "") -> List[str]:
    """The crop schemes whose step 2 is trained. Raises PipelineError where none is."""
    crops = {net.crop for net in recipe.NETS.values()}
    found = [crop for crop in recipe.CROPS
             if crop in crops and os.path.isfile(recipe.absolute(step2(profile, crop, variant).weights_out))]
    if not found:
        raise PipelineError(f"no step 2 of profile {profile.name} is trained: make step2 PROFILE={profile.name}")
    return found


def _data_set() -> recipe.DataSet:
    """The one whose forty attributes step 2 learns."""
    return recipe.DATASETS[recipe.STEPS[2].dataset or ""]


def _folder(profile: recipe.Profile, crop: str, partition: str) -> str:
    data_set = _data_set()
    if partition not in data_set.splits:
        raise PipelineError(f"{data_set.title} has no {partition} partition (recipe.DATASETS)")
    folder = f"{recipe.lmdb_folder(profile.name, crop)}/{data_set.name}_{partition}"
    if not os.path.isdir(recipe.absolute(folder)):
        raise PipelineError(f"{folder} is missing: make lmdb TEST_SPLIT=1 CROP={crop} PROFILE={profile.name} "
                            f"{data_set.variable}=path")
    return recipe.absolute(folder)
