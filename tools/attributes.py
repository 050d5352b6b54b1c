"""Score step 2 (Model 1) on CelebA's forty attributes, of the faces of an LMDB: each attribute's accuracy and the mean."""

from __future__ import annotations

import csv
import os
from typing import List

import recipe
from tools import scores
from tools.status import align

PARTITION = "test"


def score(caffe, profile: recipe.Profile, crop: str, partition: str = PARTITION, batch: int = 0) -> List[dict]:
    """One {"attribute", "accuracy", "interval", "faces", "ones"} an attribute, the least accurate first.

    "ones": share of faces that have the attribute, which answering always the same would get right at most (or its
    rest). "Female" is CelebA's Male turned, with the same accuracy. Raises pipeline.PipelineError where a file is missing.
    """
    from tqdm import tqdm

    from tools.faces import read_labels

    net, folder = _net(caffe, profile, crop), _folder(profile, crop, partition)
    labels = read_labels(caffe, folder + "_labels")
    right, ones, faces = [0] * len(recipe.LABELS), [0] * len(recipe.LABELS), 0
    progress = tqdm(total=len(labels), desc=f"attributes, {crop}", unit=" faces", disable=None)
    for names, crops in _batches(caffe, folder, batch or profile.test_batch_size):
        for name, answers in zip(names, _forward(net, crops)):
            faces += 1
            for position, label in enumerate(labels[name]):
                right[position] += int((answers[position] > 0.5) == label)
                ones[position] += int(label)
        progress.update(len(names))
    progress.close()
    _check(folder, faces, len(labels))
    found = [{"attribute": attribute, "accuracy": count / faces, "interval": list(scores.wilson_interval(count, faces)),
              "faces": faces, "ones": having / faces} for attribute, count, having in zip(recipe.LABELS, right, ones)]
    return sorted(found, key=lambda row: row["accuracy"])


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
    return (f"Model 1 of profile {profile}, {crop}, on {rows[0]['faces']:,} faces of CelebA's {PARTITION} partition\n\n"
            + align(lines))


def _commoner(rows: List[dict]) -> float:
    return sum(max(row["ones"], 1 - row["ones"]) for row in rows) / len(rows)


def write(rows: List[dict], profile: str, crop: str) -> str:
    """runs/<profile>/attributes_<crop>.csv; returns its path."""
    path = f"runs/{profile}/attributes_{crop}.csv"
    os.makedirs(os.path.dirname(recipe.absolute(path)), exist_ok=True)
    with open(recipe.absolute(path), "w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["attribute", "faces", "accuracy", "low", "high", "ones"])
        for row in rows:
            numbers = (row["accuracy"], *row["interval"], row["ones"])
            out.writerow([row["attribute"], row["faces"], *(f"{number:.6f}" for number in numbers)])
    return path


def _net(caffe, profile: recipe.Profile, crop: str):
    """The trained net of a crop scheme in its deploy form."""
    from tools.pipeline import PipelineError

    net = next(net.key for net in recipe.NETS.values() if net.crop == crop)
    definition, weights = recipe.deploy_prototxt(profile.name, "attributes"), recipe.step_weights(profile.name, net, 2)
    for path, command in ((definition, "make prototxt"), (weights, f"make step2 NET={net} PROFILE={profile.name}")):
        if not os.path.isfile(recipe.absolute(path)):
            raise PipelineError(f"{path} is missing: {command} makes it")
    return caffe.Net(recipe.absolute(definition), caffe.TEST, weights=recipe.absolute(weights))


def _folder(profile: recipe.Profile, crop: str, partition: str) -> str:
    from tools.pipeline import PipelineError

    folder = f"{recipe.lmdb_folder(profile.name, crop)}/celeba_{partition}"
    if not os.path.isdir(recipe.absolute(folder)):
        raise PipelineError(f"{folder} is missing: make lmdb TEST_SPLIT=1 CROP={crop} PROFILE={profile.name} CELEBA=path")
    return recipe.absolute(folder)


def _batches(caffe, folder: str, size: int):
    """(names, crops) of the faces of an LMDB, at most `size` at a time."""
    from tools.faces import read_lmdb

    names, crops = [], []
    for name, _, crop in read_lmdb(caffe, folder):
        names.append(name)
        crops.append(crop)
        if len(names) == size:
            yield names, crops
            names, crops = [], []
    if names:
        yield names, crops


def _forward(net, crops):
    """Probabilities of the forty labels, faces x 40."""
    import numpy as np

    from lmdb_builders.preprocess import to_blob

    data = net.blobs["data"]
    blob = to_blob(np.asarray(crops), data.data.shape[-1])
    if tuple(data.data.shape) != blob.shape:
        data.reshape(*blob.shape)
    data.data[...] = blob
    return net.forward()["prob"].reshape(len(blob), -1)


def _check(folder: str, scored: int, labeled: int) -> None:
    """Raise EvaluationError where faces and labels are not those of the manifest."""
    from tools.faces import EvaluationError, manifest_entry

    listed = manifest_entry(folder, "celeba").get("images", {}).get(os.path.basename(folder))
    if not scored or scored != listed or labeled != listed:
        raise EvaluationError(f"{folder}: {scored} faces scored, {labeled} labeled, but "
                              f"{'no number' if listed is None else listed} in the manifest.json beside it; build it again")
