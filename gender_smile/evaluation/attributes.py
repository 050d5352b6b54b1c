"""Score step 2 (Model 1) on the forty attributes, of the faces of an LMDB: each attribute's accuracy and the mean."""

from __future__ import annotations

import os
from typing import List

import recipe
from common import files
from gender_smile.evaluation import scores
from gender_smile.training import chain
from common.files import align

PARTITION = "test"


def score(caffe, profile: recipe.Profile, crop: str, partition: str = PARTITION, batch: int = 0,
          variant: str = "") -> List[dict]:
    """One {"attribute", "accuracy", "interval", "faces", "ones"} an attribute, the least accurate first.

    "ones": share of faces that have the attribute, which answering always the same would get right at most (or its
    rest). "Female" is CelebA's Male turned, with the same accuracy. Raises PipelineError where a file is missing or the net
    answers no numbers, faces.EvaluationError where faces and labels are not those of the manifest.
    """
    from gender_smile.inference.classifier import forward, load_net
    from gender_smile.evaluation.faces import EvaluationError, check_count, read_batches, read_labels

    row = step2(profile, crop, variant)
    net = load_net(caffe, recipe.deploy_prototxt(profile.name, "attributes"), row.weights_out, row.command)
    folder = _folder(profile, crop, partition)
    labels = read_labels(folder + "_labels")
    right, ones, faces = [0] * len(recipe.LABELS), [0] * len(recipe.LABELS), 0
    for found in read_batches(folder, batch or profile.test_batch_size, f"attributes, {crop}"):
        for (name, _, _), answers in zip(found, forward(net, [pixels for _, _, pixels in found], row.weights_out)):
            if name not in labels:
                raise EvaluationError(f"{folder}_labels has no labels of {name}; build both again: make lmdb FORCE=1")
            faces += 1
            for position, label in enumerate(labels[name]):
                right[position] += int((answers[position] > 0.5) == label)
                ones[position] += int(label)
    check_count(folder, faces)
    check_count(folder + "_labels", len(labels))
    rows = [{"attribute": attribute, "accuracy": count / faces, "interval": list(scores.wilson_interval(count, faces)),
             "faces": faces, "ones": having / faces} for attribute, count, having in zip(recipe.LABELS, right, ones)]
    return sorted(rows, key=lambda row: row["accuracy"])


def mean(rows: List[dict]) -> float:
    return sum(row["accuracy"] for row in rows) / len(rows)


def table(rows: List[dict], profile: str, crop: str) -> str:
    """The scores as text, and their mean."""
    lines = [("attribute", "accuracy", "95 % interval", "always the commoner answer")]
    for row in rows:
        low, high = row["interval"]
        lines.append((row["attribute"], f"{100 * row['accuracy']:.2f} %", f"{100 * low:.2f} .. {100 * high:.2f}",
                      f"{100 * max(row['ones'], 1 - row['ones']):.2f} %"))
    lines.append(("mean", f"{100 * mean(rows):.2f} %", "", f"{100 * _commoner(rows):.2f} %"))
    where = f"{rows[0]['faces']:,} faces of {_data_set().title}'s {PARTITION} partition"
    return f"Model 1 of profile {profile}, {crop}, on {where}\n\n" + align(lines)


def _commoner(rows: List[dict]) -> float:
    return sum(max(row["ones"], 1 - row["ones"]) for row in rows) / len(rows)


def write(rows: List[dict], profile: str, crop: str, variant: str = "") -> str:
    """runs/<profile>/attributes_<crop>.csv (of a variant, with its name); returns its path."""
    path = f"runs/{profile}/attributes_{'-'.join(filter(None, (crop, variant)))}.csv"
    files.write_csv(recipe.absolute(path), ["attribute", "faces", "accuracy", "low", "high", "ones"], (
        [row["attribute"], row["faces"], *(f"{number:.6f}" for number in (row["accuracy"], *row["interval"], row["ones"]))]
        for row in rows))
    return path


def step2(profile: recipe.Profile, crop: str, variant: str = "") -> chain.Row:
    """The training of a crop scheme's step 2. Raises PipelineError for a scheme that no net of the recipe has."""
    from gender_smile.inference.classifier import PipelineError

    nets = [net.key for net in recipe.NETS.values() if net.crop == crop]
    if not nets:
        raise PipelineError(f"{crop} is a crop without a net, so it has no step 2: add a Net of it to recipe.NETS, then make "
                            "prototxt")
    return chain.Row(profile, nets[0], 2, variant=variant)


def trained(profile: recipe.Profile, variant: str = "") -> List[str]:
    """The crop schemes whose step 2 is trained."""
    crops = {net.crop for net in recipe.NETS.values()}
    return [crop for crop in recipe.CROPS
            if crop in crops and os.path.isfile(recipe.absolute(step2(profile, crop, variant).weights_out))]


def _data_set() -> recipe.DataSet:
    """The one whose forty attributes step 2 learns."""
    return recipe.DATASETS[recipe.STEPS[2].dataset or ""]


def _folder(profile: recipe.Profile, crop: str, partition: str) -> str:
    from gender_smile.inference.classifier import PipelineError

    data_set = _data_set()
    if partition not in data_set.splits:
        raise PipelineError(f"{data_set.title} has no {partition} partition (recipe.DATASETS)")
    folder = f"{recipe.lmdb_folder(profile.name, crop)}/{data_set.name}_{partition}"
    if not os.path.isdir(recipe.absolute(folder)):
        raise PipelineError(f"{folder} is missing: make lmdb TEST_SPLIT=1 CROP={crop} PROFILE={profile.name} "
                            f"{data_set.variable}=path")
    return recipe.absolute(folder)
