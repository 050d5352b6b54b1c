"""The validation faces, and what the nets answer: for the faces of LMDBs (section 4's training phase) and for whole
photos (its testing phase).

Images go by their file name without folder: the key of an LMDB's record without its number.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Container, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import recipe
from gender_smile.evaluation import scores
from gender_smile.inference.classifier import Classifier, PipelineError, load_engine, pipeline_weights, step4_weights
from gender_smile.training.fingerprints import count_records

if TYPE_CHECKING:
    import numpy as np

Labels = Dict[str, Optional[int]]  # image -> 0 or 1, None where it is not known
Probabilities = Dict[str, Optional[float]]  # image -> probability of class 1, None where there is no answer
Ensembles = Dict[str, Tuple[str, Tuple[str, ...]]]  # name in results.json -> (task, nets whose probabilities are averaged)


class EvaluationError(PipelineError):
    """Faces are missing, damaged or do not match: no score can be given."""


def ensembles(others: Sequence[str] = ()) -> Ensembles:
    """What is scored: recipe.ENSEMBLES by task, each net of those that have several, and each of `others`."""
    found: Ensembles = dict(zip(recipe.ENSEMBLES, recipe.ENSEMBLES.items()))
    members = [net for nets in recipe.ENSEMBLES.values() if len(nets) > 1 for net in nets]
    return {**found, **{net: (recipe.NETS[net].task, (net,)) for net in (*members, *others)}}


@dataclass
class Evaluation:
    """What the nets of a profile, or of a variant of it, answered for the validation faces.

    In the training phase, labels and answers are those of the faces; in the testing phase, of all photos, and one
    without a face has the answer None, which counts as wrong.
    """

    profile: str
    variant: str  # "": the chain's own trainings
    whole_photos: bool  # testing phase
    weights: Dict[str, str]  # net -> its file
    labels: Dict[str, Labels]  # by task
    p_positive: Dict[str, Probabilities]  # by the names of `ensembles`
    missed: Dict[str, str]  # image -> why it has no answer
    ensembles: Ensembles
    predictions: List[Any] = field(default_factory=list)  # Prediction of each photo, in the testing phase
    drawn: bool = False  # the faces are drawn, not photographs

    @property
    def protocol(self) -> str:
        return "testing phase, whole photos" if self.whole_photos else "training phase, faces of the LMDBs"

    def metrics(self) -> Dict[str, Dict[str, Any]]:
        """scores.score of each of `ensembles`; "missed" is the number of photos without an answer in both phases."""
        found = {}
        for name, (task, _) in self.ensembles.items():
            found[name] = scores.score(self.labels[task], self.p_positive[name])
            if not self.whole_photos:
                found[name]["missed"] = len(self.missed)
        return found


# ---------------------------------------------------------------------------------------------- training phase
def evaluate_faces(profile: str, engine: str = "auto", gpu: Optional[int] = None, variant: str = "") -> Evaluation:
    """Answers for the faces of the nets' validation LMDBs; "missed" has the photos that, by the manifest, gave no face.

    Also scores each of the recipe's other nets that is trained and has its LMDB. Raises PipelineError for a missing
    file, EvaluationError for faces that are not their manifest's, or not the same for all nets of a task.
    """
    from lmdb_builders import manifest

    weights, others = pipeline_weights(profile, variant), other_weights(profile, variant)
    weights = {**weights, **others}
    folders = {net: validation_lmdb(profile, net) for net in weights}
    caffe = load_engine(engine, gpu)
    labels: Dict[str, Dict[str, int]] = {}
    answers: Dict[str, Probabilities] = {}
    for net, folder in folders.items():
        labels[net], answers[net] = answer_lmdb(Classifier(caffe, profile, net, weights=weights[net]), folder)
        first = recipe.ENSEMBLES[recipe.NETS[net].task][0]
        check_same(first, labels[first], net, labels[net])
    by_task: Dict[str, Labels] = {task: {**labels[nets[0]]} for task, nets in recipe.ENSEMBLES.items()}
    missed = photos_without_face(next(iter(folders.values())), set().union(*by_task.values()))
    scored = ensembles(tuple(others))
    drawn = any(manifest.is_drawn(os.path.dirname(folder), recipe.target().name) for folder in folders.values())
    return Evaluation(profile, variant, False, weights, by_task, _combine(scored, answers), missed, scored, drawn=drawn)


def answer_lmdb(classifier: Classifier, folder: str) -> Tuple[Dict[str, int], Probabilities]:
    """(labels, probabilities of class 1) of all faces of an LMDB, with a progress bar.

    Raises EvaluationError where they are not the faces that its manifest lists.
    """
    labels: Dict[str, int] = {}
    p_positive: Probabilities = {}
    for name, label, crop in read_all(folder, recipe.NETS[classifier.net_key].title, classifier.task.name):
        labels[name] = label
        p_positive[name] = float(classifier.probabilities([crop])[0])
    return labels, p_positive


def other_weights(profile: str, variant: str = "") -> Dict[str, str]:
    """Net -> its step 4's weights, of those of the recipe's other nets that are trained and have their validation LMDB."""
    found = {net: step4_weights(profile, net, variant) for net in recipe.NETS if net not in recipe.PIPELINE_NETS}
    return {net: path for net, path in found.items() if os.path.isfile(recipe.absolute(path))
            and os.path.isdir(recipe.absolute(recipe.lmdb_paths(profile, net, 4)["val"]))}


def _combine(scored: Ensembles, answers: Mapping[str, Probabilities]) -> Dict[str, Probabilities]:
    return {name: scores.mean_probability([answers[net] for net in nets]) for name, (_, nets) in scored.items()}


# ---------------------------------------------------------------------------------------------- testing phase
def evaluate_photos(profile: str, folder: str, engine: str = "auto", gpu: Optional[int] = None,
                    variant: str = "") -> Evaluation:
    """Answers of the whole pipeline, for the face nearest the center of every validation photo of step 4's data set.

    folder: the data set's. A photo without an answer counts as wrong; its label is None where it could not be read
    from the data set. Raises PipelineError or BuildError for a missing or malformed file.
    """
    from lmdb_builders import readers
    from gender_smile.inference.pipeline import Pipeline
    from tqdm import tqdm

    target = recipe.target()
    dataset = readers.read(target.name, folder, ("val",))
    records = dataset.records
    columns = {task: dataset.label_names.index(target.columns[task]) for task in recipe.TASKS}
    weights = pipeline_weights(profile, variant)
    pipeline = Pipeline.load(profile, engine, gpu, variant, scoring=True)
    photos = pipeline.predict_files(os.path.join(folder, record.image) for record in records)
    predictions = list(tqdm(photos, total=len(records), unit=" photos", disable=None))
    if len(predictions) != len(records):
        raise EvaluationError(f"{len(records)} photos are listed, {len(predictions)} came back")
    labels: Dict[str, Labels] = {task: {} for task in recipe.TASKS}
    answers: Dict[str, Probabilities] = {net: {} for net in recipe.PIPELINE_NETS}
    missed: Dict[str, str] = {}
    for record, prediction in zip(records, predictions):
        image = _file_name(record.image)
        if prediction.error is not None:
            missed[image] = prediction.error
        for task, nets in recipe.ENSEMBLES.items():
            label = record.labels[columns[task]]
            if label in (0, 1):
                labels[task][image] = label
                for net in nets:
                    answers[net][image] = prediction.p_positive.get(net)
    names = {_file_name(record.image) for record in records}
    unread = list_missed((entry._asdict() for entry in dataset.skipped), names)
    missed.update(unread)
    for image in unread:
        for task, nets in recipe.ENSEMBLES.items():
            labels[task][image] = None
            for net in nets:
                answers[net][image] = None
    for task, truth in labels.items():
        if not any(label is not None for label in truth.values()):
            raise EvaluationError(f"{folder}: no validation photo has a label for {task}")
    scored = ensembles()
    return Evaluation(profile, variant, True, weights, labels, _combine(scored, answers), missed, scored, predictions,
                      dataset.drawn)


# ---------------------------------------------------------------------------------------------- faces of an LMDB
def validation_lmdb(profile: str, net: str) -> str:
    """Absolute path of a net's validation LMDB of step 4; PipelineError where it is missing."""
    folder = recipe.lmdb_paths(profile, net, 4)["val"]
    if not os.path.exists(recipe.absolute(os.path.join(folder, "data.mdb"))):
        option = "" if profile == recipe.PAPER.name else f" PROFILE={profile}"
        raise PipelineError(f"{folder} is missing: make lmdb CROP={recipe.NETS[net].crop}{option} "
                            f"{recipe.target().variable}=path makes it (or make demo, for the demo)")
    return recipe.absolute(folder)


def read_names(folder: str) -> List[str]:
    """The images of an LMDB in its order."""
    return [name for name, _ in _records(folder)]


def read_lmdb(folder: str, images: Optional[Container[str]] = None, task: str = "") -> Iterator[Tuple[str, int, "np.ndarray"]]:
    """(image, label, crop) of each face of an LMDB in its order, or of `images`; crop: size x size x 3 uint8, BGR.

    label: of `task`, 0, 1 or recipe.UNUSABLE; without a task, 0. Raises EvaluationError for a damaged LMDB or a face
    without labels.
    """
    from torchcaffe.data.datum import to_array

    labels = _task_labels(folder, task) if task else None
    for name, read in _records(folder):
        if images is None or name in images:
            with _damage_named():
                datum = read()
                planes = to_array(datum, f"{folder}: {name}", force="color")
            if labels is not None and name not in labels:
                raise EvaluationError(f"{folder}_labels has no labels of {name}; build both again: make lmdb FORCE=1")
            crop = planes.transpose(1, 2, 0).copy()  # the LMDB's memory is unmapped with its reader
            yield name, labels[name] if labels is not None else 0, crop


def _task_labels(folder: str, task: str) -> Dict[str, int]:
    """The task's label of each face of the LMDB `folder`."""
    column = recipe.DATASETS[os.path.basename(folder).split("_")[0]].column(task)
    return {name: labels[column] for name, labels in read_labels(folder + "_labels").items()}


def read_all(folder: str, title: str, task: str = "") -> Iterator[Tuple[str, int, "np.ndarray"]]:
    """read_lmdb's triples of all faces, without those whose label is unusable, with a progress bar.

    Raises EvaluationError where two faces have one name, or they are not the faces that the manifest lists.
    """
    from tqdm import tqdm

    with _damage_named():
        total = count_records(folder)
    seen = set()
    for name, label, crop in tqdm(read_lmdb(folder, task=task), total=total, desc=title, unit=" faces", disable=None):
        if name in seen:
            raise EvaluationError(f"{folder}: two faces have the name {name}; build it again (make lmdb FORCE=1)")
        seen.add(name)
        if label != recipe.UNUSABLE:
            yield name, label, crop
    check_count(folder, len(seen))


def read_labels(folder: str) -> Dict[str, List[int]]:
    """Image -> its labels (order: recipe.DataSet.labels) of a labels' LMDB: 0, 1 or recipe.UNUSABLE."""
    with _damage_named():
        return {name: [round(value) for value in read().float_data] for name, read in _records(folder)}


def _records(folder: str) -> Iterator[Tuple[str, Callable[[], Any]]]:
    """(image, function that reads its Datum) of each face, without its changed copies. EvaluationError for a damaged LMDB."""
    from torchcaffe.data.datasource import Environment

    with _damage_named():
        environment = Environment.open(folder)
        with contextlib.closing(environment.records_from(0, False, endless=False)) as records:
            for key, value in itertools.islice(records, _without_copies(folder)):
                yield _image_of(bytes(key)), functools.partial(environment.datum, key, value)


def _without_copies(folder: str) -> Optional[int]:
    """How many of an LMDB's records are faces themselves, where changed copies of them follow; None where none do."""
    from lmdb_builders import manifest

    entry, name = _manifest_entry(folder), os.path.basename(folder)
    copies = entry.get("facts", {}).get("copies", 0) if manifest.split_of(name) == "train" else 0
    return entry["images"][name.removesuffix("_labels")] // (copies + 1) if copies else None


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    """Raise EvaluationError where the engine finds an LMDB or a record of it damaged."""
    from torchcaffe.core.errors import DataError

    try:
        yield
    except DataError as error:
        raise EvaluationError(str(error)) from None


def _image_of(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace").split("_", 1)[-1]


def _file_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


# ---------------------------------------------------------------------------------------------- checks
def check_same(first: str, first_labels: Mapping[str, int], second: str, second_labels: Mapping[str, int]) -> None:
    """Raise EvaluationError where two nets' validation faces or their labels differ: no mean could be taken."""
    different = sorted(set(first_labels) ^ set(second_labels))
    if different:
        raise EvaluationError(f"the validation faces of {first} and {second} differ in {len(different)} images, such as "
                              f"{different[0]}; build both again: make lmdb FORCE=1")
    for name, label in first_labels.items():
        if second_labels[name] != label:
            raise EvaluationError(f"{name} has the label {label} for {first} but {second_labels[name]} for {second}")


def check_count(folder: str, faces: int) -> None:
    """Raise EvaluationError where an LMDB does not hold exactly the faces that its manifest lists."""
    listed = _manifest_entry(folder).get("images", {}).get(os.path.basename(folder))
    if listed != faces or not faces:
        raise EvaluationError(
            f"{folder}: {faces} faces scored, but {'no number' if listed is None else listed} in the manifest.json "
            "beside it; build it again: make lmdb FORCE=1"
        )


def photos_without_face(folder: str, answered: Container[str]) -> Dict[str, str]:
    """Validation photos that are in no LMDB, by the manifest of the LMDB `folder`, and why; `answered`: those that are."""
    return list_missed(_manifest_entry(folder).get("skipped", ()), answered)


def list_missed(skipped: Iterable[Mapping[str, Any]], answered: Container[str]) -> Dict[str, str]:
    """Validation photos without an answer and why, of rows with the fields of lmdb_builders.records.Skipped.

    A second row of an answered photo is no other photo; a row that names none is called by its file and line.
    """
    missed: Dict[str, str] = {}
    for entry in skipped:
        name = _file_name(entry["image"]) or f"{entry['file']} line {entry['line']}"
        if entry["split"] == "val" and name not in answered:
            missed.setdefault(name, entry["reason"])
    return missed


def _manifest_entry(folder: str) -> dict:
    """The part of the manifest beside the LMDB `folder` that is of its data set; empty where there is none."""
    from lmdb_builders import manifest

    return manifest.read(os.path.dirname(folder)).get(os.path.basename(folder).split("_")[0], {})
