"""Build the LMDBs of one data set for several crop schemes. Each photo is decoded once and cropped once per scheme; for each
changed copy of its face, again."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

import numpy as np

import recipe
from lmdb_builders import manifest
from lmdb_builders.crops import crop_face
from lmdb_builders.detections import OK, Detection, detect, make_detector
from lmdb_builders.errors import BuildError, CropError, ImageError
from lmdb_builders.images import read_with_orientation
from lmdb_builders.jitter import Jitter
from lmdb_builders.lmdb_writer import (
    COMPRESSED_SHARE, LmdbWriter, encode_crop, image_datum, labels_datum, record_key, stored_bytes,
)
from lmdb_builders.pool import ordered_map
from lmdb_builders.records import DataSet, FaceRecord, Skipped
from common.files import write_csv


@dataclass(frozen=True)
class Settings:
    """Options of a build."""

    profile: recipe.Profile
    crops: Tuple[str, ...]  # schemes
    output: str  # the profile's data folder
    splits: Tuple[str, ...] = ("train", "val")
    encode: str = "raw"
    seed: int = 2016
    landmarks: str = "dataset"  # its own five points where it has them; or "detector"
    workers: int = 1
    max_lost: float = 0.02  # share of a split's rows
    force: bool = False
    detector: Callable = make_detector
    gpu: Optional[int] = None  # for the detector, whose factory then takes its number
    say: Callable = print
    progress: Callable = lambda answers, total, title: answers


class Listed(NamedTuple):
    """A face that goes into the LMDBs of its split."""

    record: FaceRecord
    landmarks: np.ndarray
    key: bytes
    copy: int = 0  # 0: the face itself; 1, 2, ...: changed at random (recipe.Profile.copies)


def lmdb_names(dataset: DataSet, split: str) -> Tuple[str, str]:
    """The LMDBs of a split: of the faces, and of their labels."""
    entry = recipe.DATASETS[dataset.name]
    return entry.database(split), entry.labels_database(split)


def build_dataset(dataset: DataSet, settings: Settings, staging: str) -> None:
    """Build the LMDBs of `settings.crops` that are missing or out of date.

    Raises BuildError when too many faces are lost, a split is empty, or the disk is too small or full.
    """
    started = time.monotonic()
    path = os.path.join(settings.output, "detections", f"{dataset.name}.csv")
    has_landmarks = recipe.DATASETS[dataset.name].landmarks and dataset.has_landmarks
    use_dataset = has_landmarks and settings.landmarks == "dataset"
    on_gpu = settings.gpu is not None
    factory = functools.partial(settings.detector, settings.gpu) if on_gpu else settings.detector
    detections, origin = detect(
        dataset, path, use_dataset, settings.workers, factory, settings.force, settings.progress, on_gpu
    )
    settings.say(f"{dataset.name}: {len(dataset.records)} faces listed; landmarks {origin}")
    facts = manifest.facts(dataset, settings, detections)
    for warning in dict.fromkeys(text for crop in settings.crops for text in manifest.warnings(dataset, crop)):
        settings.say(f"{dataset.name}: warning: {warning}")
    crops_of = missing_lmdbs(dataset, settings, facts)
    if not crops_of:
        return
    lost = [entry for entry in dataset.skipped if entry.split in crops_of] + [
        dataset.skip(record, detections[record.image].status if record.image in detections else "not in detections.csv")
        for record in dataset.records
        if record.split in crops_of and (record.image not in detections or detections[record.image].status != OK)
    ]
    check_lost(dataset, lost, crops_of, settings)
    plan = {split: list_faces(dataset, split, detections, settings.seed, copies(settings, split)) for split in crops_of}
    check_disk(dataset, plan, crops_of, settings)
    counts: Dict[str, Counter] = {crop: Counter() for crop in settings.crops}
    for split, crops in crops_of.items():
        write_split(dataset, split, plan[split], crops, settings, staging, counts, lost)
    check_lost(dataset, lost, crops_of, settings)
    remove_lost_list(dataset, settings)
    for crop in settings.crops:
        built = [split for split, crops in crops_of.items() if crop in crops]
        if built:
            lost_here = [entry for entry in lost if entry.split in built]
            names = manifest.publish(dataset, crop, settings, staging, counts[crop], lost_here, built, facts[crop], started)
            settings.say(f"{dataset.name}: {os.path.join(settings.output, crop)} " + ", ".join(names))


def missing_lmdbs(dataset: DataSet, settings: Settings, facts: Dict[str, manifest.Facts]) -> Dict[str, List[str]]:
    """Split -> schemes for which its LMDBs must be built. Prints which are complete."""
    crops_of: Dict[str, List[str]] = {split: [] for split in settings.splits}
    for crop in settings.crops:
        folder = os.path.join(settings.output, crop)
        names = functools.partial(lmdb_names, dataset)
        missing = settings.splits if settings.force else manifest.missing_splits(folder, dataset.name, facts[crop], names)
        complete = [split for split in settings.splits if split not in missing]
        if complete:
            what = folder if not missing else f"{folder} ({', '.join(complete)})"
            settings.say(f"{dataset.name}: {what} is complete for these sources and settings (FORCE=1 builds again)")
        for split in missing:
            crops_of[split].append(crop)
    return {split: crops for split, crops in crops_of.items() if crops}


def copies(settings: Settings, split: str) -> int:
    """How many changed copies of a face the LMDBs of a split hold beside it: none but for training."""
    return settings.profile.copies if split == "train" else 0


def list_faces(dataset: DataSet, split: str, detections: Dict[str, Detection], seed: int, copies: int = 0) -> List[Listed]:
    """The split's faces in LMDB order: shuffled once, the same for every scheme and every rebuild; then all again, `copies`
    times.

    A key's number is the face's position among those that have a label. A face that fails later leaves a gap, as with
    Caffe's converter; other keys do not change.
    """
    records = [record for record in dataset.records if record.split == split]
    number, faces = 0, []
    for position in np.random.RandomState(seed).permutation(len(records)):
        record = records[position]
        if all(label == recipe.UNUSABLE for label in record.labels):
            continue
        detection = detections.get(record.image)
        if detection is not None and detection.status == OK:
            faces.append(Listed(record, detection.landmarks, record_key(number, record.image)))
        number += 1

    def again(face: Listed, copy: int) -> Listed:
        return face._replace(key=record_key(int(face.key[:8]) + copy * number, face.record.image), copy=copy)

    return faces + [again(face, copy) for copy in range(1, copies + 1) for face in faces]


def write_split(dataset, split, faces, crops, settings, staging, counts, lost: List[Skipped]) -> None:
    """Write a split's LMDBs of all `crops` below `staging`; adds the faces that could not be cropped to `lost`."""
    size, encode = settings.profile.stored_size, settings.encode
    names, entry = lmdb_names(dataset, split), recipe.DATASETS[dataset.name]
    writers: Dict[Tuple[str, str], LmdbWriter] = {}
    work = functools.partial(crop_photo, dataset.folder, crops, size, encode, settings.seed)
    tasks = ((face.record.image, face.landmarks, face.copy) for face in faces)
    answers = ordered_map(work, tasks, settings.workers)
    labeled: Counter = Counter()  # task -> faces that have its label
    try:
        for crop in crops:
            for name in names:
                writers[crop, name] = LmdbWriter(os.path.join(staging, crop, name))
        title = f"{dataset.name} {split}"
        for face, answer in zip(faces, settings.progress(answers, len(faces), title)):
            if isinstance(answer, str):
                if not face.copy:
                    lost.append(dataset.skip(face.record, answer))
                continue
            for crop, data in zip(crops, answer):
                writers[crop, names[0]].put(face.key, image_datum(data, size, encode))
                writers[crop, names[1]].put(face.key, labels_datum(face.record.labels))
            labeled.update(task for task in recipe.TASKS if face.record.labels[entry.column(task)] != recipe.UNUSABLE)
        for (crop, name), writer in writers.items():
            writer.close()
            counts[crop][name] = writer.count
        for task in recipe.TASKS:
            if not labeled[task]:
                raise no_face(dataset, split, task, lost, settings)
    finally:
        answers.close()  # ends the worker processes
        for writer in writers.values():
            writer.abandon()


def crop_photo(folder: str, crops, size: int, encode: str, seed: int, task) -> Union[List[bytes], str]:
    """Crop one photo, or a changed copy of it: the data of each scheme's Datum, or the reason why it failed."""
    image, landmarks, copy = task
    try:
        pixels, orientation = read_with_orientation(os.path.join(folder, image))
        landmarks = orientation.upright_points(landmarks)
        change = Jitter.draw(image, copy, seed) if copy else None
        motion = change.motion(size) if change else None
        cut = (crop_face(pixels, landmarks, recipe.CROPS[crop], size, motion) for crop in crops)
        return [encode_crop(change.develop(crop) if change else crop, encode) for crop in cut]
    except CropError as error:
        return str(error)
    except ImageError as error:
        return f"unreadable: {error}"


def reasons(lost: List[Skipped]) -> str:
    """'12 image file is missing (as train.csv line 3: a.jpg); ...': the most frequent reasons, each with an example."""
    kinds: Counter = Counter()
    examples: Dict[str, str] = {}
    for entry in lost:
        own_place, kind = re.fullmatch(r"(?:(\S+ line \d+): )?(.*)", entry.reason, re.DOTALL).groups()
        kinds[kind] += 1
        examples.setdefault(kind, f"{own_place or f'{entry.file} line {entry.line}'}: {entry.image}")
    return "; ".join(f"{count} {kind} (as {examples[kind]})" for kind, count in kinds.most_common(5))


def lost_list(dataset: DataSet, settings: Settings) -> str:
    """Path of the list that a build leaves when it stops because of lost faces."""
    return os.path.join(settings.output, f"{dataset.name}_lost.csv")


def remove_lost_list(dataset: DataSet, settings: Settings) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(lost_list(dataset, settings))


def no_face(dataset: DataSet, split: str, task: str, lost: List[Skipped], settings: Settings) -> BuildError:
    """The error for a split without a face of a task: why the faces of its split are lost, and the list of all that are."""
    lost_here = [entry for entry in lost if entry.split == split]
    unusable = manifest.unusable_labels(dataset, split)
    why = [reasons(lost_here)] if lost_here else []
    why += [f"{count} {label} neither 0 nor 1 in {dataset.tables[split]}" for label, count in unusable.items()]
    path = lost_list(dataset, settings)
    write_csv(path, Skipped._fields, lost)
    why = why or [f"{dataset.tables[split]} has no rows"]
    return BuildError(f"{dataset.folder}: no {split} face for {task}: {'; '.join(why)}; all lost faces are listed in {path}")


def check_lost(dataset: DataSet, lost: List[Skipped], splits: Iterable[str], settings: Settings) -> None:
    """Raise BuildError where one of `splits` lost more than the allowed share of its rows, and leave the list of all."""
    for split in splits:
        gone = [entry for entry in lost if entry.split == split]
        skipped = sum(entry.split == split for entry in dataset.skipped)
        rows = skipped + sum(record.split == split for record in dataset.records)
        if len(gone) > settings.max_lost * rows:
            path = lost_list(dataset, settings)
            write_csv(path, Skipped._fields, lost)
            raise BuildError(
                f"{dataset.folder}: {len(gone)} of {rows} {split} faces are lost, more than MAX_LOST="
                f"{settings.max_lost:g} (--max-lost) allows: {reasons(gone)}; all are listed in {path}"
            )


def needed_bytes(dataset: DataSet, plan: Dict[str, List[Listed]], crops_of: Dict[str, List[str]], settings) -> int:
    """Estimated size of the LMDBs; for compressed images, from the ratio measured on real faces."""
    raw = 3 * settings.profile.stored_size ** 2 + 32
    image = stored_bytes(raw * COMPRESSED_SHARE[settings.encode])
    faces = sum(len(listed) * len(crops_of[split]) for split, listed in plan.items())
    return faces * (image + stored_bytes(5 * len(dataset.label_names)))


def check_disk(dataset: DataSet, plan, crops_of: Dict[str, List[str]], settings: Settings) -> None:
    """Print the size of the build. Raises BuildError when the disk has less free space."""
    needed = needed_bytes(dataset, plan, crops_of, settings)
    free = shutil.disk_usage(settings.output).free
    parts = [
        f"{len(plan[split])} {split} images x {len(crops)} ({', '.join(crops)})"
        for split, crops in crops_of.items()
    ]
    text = f"{', '.join(parts)}, about {needed / 1e9:.2f} GB"
    settings.say(f"{dataset.name}: writing {text}; {free / 1e9:.1f} GB are free")
    if needed > free:
        raise BuildError(
            f"{settings.output}: {dataset.name} needs about {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free space, build one scheme at a time (CROP=scheme1), or compress (ENCODE=jpg)"
        )
