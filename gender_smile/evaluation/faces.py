"""The faces of an LMDB, read, scored and compared with what its manifest lists. Keys are an image's name without number."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any, Callable, Container, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import recipe
from gender_smile.inference.classifier import PipelineError
from gender_smile.training.chain import count_records

if TYPE_CHECKING:
    import numpy as np


class EvaluationError(PipelineError):
    """Faces are missing, damaged or do not match: no score can be given."""


def validation_lmdb(profile: str, net: str) -> str:
    """Absolute path of a net's validation LMDB of step 4; PipelineError where it is missing."""
    from gender_smile.inference.pipeline import PipelineError

    folder = recipe.lmdb_paths(profile, net, 4)["val"]
    if not os.path.isdir(recipe.absolute(folder)):
        option = "" if profile == recipe.PAPER.name else f" PROFILE={profile}"
        raise PipelineError(f"{folder} is missing: make lmdb{option} makes it (or make demo, for the demo)")
    return recipe.absolute(folder)


def read_names(folder: str) -> List[str]:
    """The faces' names of an LMDB in its order."""
    return [name for name, _ in _records(folder)]


def read_lmdb(folder: str, wanted: Optional[Container[str]] = None, task: str = "") -> Iterator[Tuple[str, int, "np.ndarray"]]:
    """(name, label, crop) of each face of an LMDB in its order, or of the `wanted`; crop: size x size x 3 uint8, BGR.

    label: the Datum's; of `task`, also where the data set keeps its labels in an LMDB of their own (recipe.DataSet).
    """
    from torchcaffe.data.datum import to_array

    apart = _labels_apart(folder, task) if task else None
    for name, datum in _records(folder):
        if wanted is None or name in wanted:
            with _whole():
                found = datum()
                planes = to_array(found, f"{folder}: {name}", force="color")
            if apart is not None and name not in apart:
                raise EvaluationError(f"{folder}_labels has no labels of {name}; build both again: make lmdb FORCE=1")
            label = found.label if apart is None else apart[name]
            yield name, label, planes.transpose(1, 2, 0).copy()  # the LMDB's own memory goes with its reader


def _labels_apart(folder: str, task: str) -> Optional[Dict[str, int]]:
    """The task's label of each face, where the labels of the LMDB `folder` lie beside it; else None."""
    if not os.path.isdir(folder + "_labels"):
        return None
    column = recipe.LABELS.index(recipe.TASKS[task].label)
    return {name: int(labels[column]) for name, labels in read_labels(folder + "_labels").items()}


def read_batches(folder: str, size: int, title: str, task: str = ""):
    """Lists of at most `size` of read_lmdb's triples, of all faces of an LMDB, with a progress bar. Raises
    EvaluationError where two faces have one name."""
    from tqdm import tqdm

    with _whole():
        total = count_records(folder)
    seen, faces = set(), read_lmdb(folder, task=task)
    with tqdm(total=total, desc=title, unit=" faces", disable=None) as progress:
        while batch := list(itertools.islice(faces, size)):
            for name, _, _ in batch:
                if name in seen:
                    raise EvaluationError(f"{folder}: two faces have the name {name}; build it again (make lmdb FORCE=1)")
                seen.add(name)
            yield batch
            progress.update(len(batch))


def read_labels(folder: str) -> Dict[str, List[bool]]:
    """The forty labels of each face of a labels' LMDB, by the image's name."""
    with _whole():
        return {name: [one > 0.5 for one in datum().float_data] for name, datum in _records(folder)}


def _records(folder: str) -> Iterator[Tuple[str, Callable[[], Any]]]:
    """Name and Datum, which is read when it is asked for, of each record. Raises EvaluationError for a damaged LMDB."""
    from torchcaffe.data.datasource import Environment

    with _whole():
        environment = Environment.open(folder)
        with contextlib.closing(environment.records_from(0, False, endless=False)) as records:
            for key, value in records:
                yield _name(bytes(key)), functools.partial(environment.datum, key, value)


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Raise EvaluationError where the engine finds an LMDB or a record of it damaged."""
    from torchcaffe.core.errors import DataError

    try:
        yield
    except DataError as error:
        raise EvaluationError(str(error)) from None


def _name(key: bytes) -> str:
    """The image's name of a record's key."""
    return key.decode("utf-8", "backslashreplace").split("_", 1)[-1]


def score_lmdb(classifier, folder: str) -> Tuple[Dict[str, int], Dict[str, float]]:
    """Labels and probabilities of class 1, by the image's name, of a whole LMDB, with a progress bar."""
    labels: Dict[str, int] = {}
    ones: Dict[str, float] = {}
    for batch in read_batches(folder, classifier.batch, recipe.NETS[classifier.net_key].title, classifier.task.name):
        names, found, crops = zip(*batch)
        labels.update(zip(names, map(int, found)))
        ones.update(zip(names, map(float, classifier.probabilities(crops))))
    return labels, ones


def check_same(first: str, first_labels: dict, second: str, second_labels: dict) -> None:
    """Raise EvaluationError where two nets' validation faces or their labels differ: no mean could be taken."""
    different = sorted(set(first_labels) ^ set(second_labels))
    if different:
        raise EvaluationError(
            f"the validation faces of {first} and {second} differ in {len(different)} images, {different[0]} for one; "
            "build both again: make lmdb FORCE=1"
        )
    for name, label in first_labels.items():
        if second_labels[name] != label:
            raise EvaluationError(f"{name} has the label {label} for {first} but {second_labels[name]} for {second}")


def manifest_entry(folder: str) -> dict:
    """Part of the manifest beside the LMDB `folder` that is of its data set; empty where there is none."""
    from lmdb_builders import manifest

    return manifest.read(os.path.dirname(folder)).get(os.path.basename(folder).split("_")[0], {})


def check_count(folder: str, scored: int) -> None:
    """Raise EvaluationError where an LMDB did not hold exactly the faces that its manifest lists."""
    listed = manifest_entry(folder).get("images", {}).get(os.path.basename(folder))
    if listed != scored or not scored:
        raise EvaluationError(
            f"{folder}: {scored} faces scored, but {'no number' if listed is None else listed} in the manifest.json "
            "beside it; build it again: make lmdb FORCE=1"
        )


def list_missed(skipped: Iterable[Mapping[str, Any]], answered: Container[str]) -> Dict[str, str]:
    """Validation photos without an answer and why, of skipped rows (records.Skipped's fields): an answered photo's second
    row is no other photo, and a row that names none is called by its file and line."""
    found: Dict[str, str] = {}
    for entry in skipped:
        name = entry["image"].rsplit("/", 1)[-1] or f"{entry['file']} line {entry['line']}"  # as LMDBs' keys name it
        if entry["split"] == "val" and name not in answered:
            found.setdefault(name, entry["reason"])
    return found
