"""manifest.json of a scheme: what lies in its LMDBs, from which sources, and what was left out and why.

Per data set: "facts" decide the LMDBs of all splits, "split_facts" those of one split. A split's LMDBs are built again
when one of the two differs, whatever happens to the other splits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict
from typing import Callable, Dict, Iterable, List, NamedTuple, Sequence

import recipe
from lmdb_builders.detections import OK, Detection
from common.files import read_json, write_json
from lmdb_builders.files import replace_folder
from lmdb_builders import records
from lmdb_builders.records import SPLITS, DataSet, Skipped

FILE = "manifest.json"
VERSION = 2  # raise it when the same sources and settings give other LMDBs; 1: photos not turned upright


class Facts(NamedTuple):
    """What decides the content of one scheme's LMDBs."""

    common: dict
    splits: Dict[str, dict]


def facts(dataset: DataSet, settings, detections: Dict[str, Detection]) -> Dict[str, Facts]:
    """Facts by scheme. LMDBs are up to date when theirs are equal to these."""
    common = {
        "version": VERSION,
        "crop_size": settings.profile.stored_size,
        "face_template": [list(point) for point in recipe.FACE_TEMPLATE],
        "encode": settings.encode,
        "seed": settings.seed,
        "labels": list(dataset.label_names),
        **({"copies": settings.profile.copies} if settings.profile.copies else {}),
    }
    splits = {split: _split_facts(dataset, split, detections) for split in settings.splits}
    return {
        crop: Facts({**common, "geometry": json.loads(json.dumps(asdict(recipe.CROPS[crop])))}, splits)
        for crop in settings.crops
    }


def _split_facts(dataset: DataSet, split: str, detections: Dict[str, Detection]) -> dict:
    """Facts of a split: its rows (image, labels, landmarks) and the rows left out, in order, as one hash."""
    digest, rows = hashlib.sha256(), 0
    for record in dataset.records:
        if record.split == split:
            detection = detections.get(record.image)
            usable = detection is not None and detection.status == OK
            digest.update(json.dumps([record.image, list(record.labels), usable]).encode())
            digest.update(detection.landmarks.astype("<f8").tobytes() if usable else b"")
            rows += 1
    skipped = [list(entry) for entry in dataset.skipped if entry.split == split]
    digest.update(json.dumps(skipped).encode())
    split_facts = {"rows": rows + len(skipped), "rows_sha256": digest.hexdigest()}
    if split == "train" and dataset.corrections:
        split_facts["corrections_sha256"] = dataset.corrections["sha256"]
    return split_facts


def warnings(dataset: DataSet, crop: str) -> List[str]:
    """What a user of this scheme's LMDBs has to know."""
    if not dataset.aligned or recipe.CROPS[crop].aligned:
        return []
    return ["the photos are of the aligned edition, rotated upright already: schemes that the paper does not align "
            f"({', '.join(name for name, other in recipe.CROPS.items() if not other.aligned)}) come out aligned; "
            "use the edition in the wild for them"]


def split_of(lmdb_name: str) -> str:
    """Split of an LMDB by its name: val of fotw_gender_val, train of celeba_train_labels; empty where it names none."""
    return next((part for part in lmdb_name.split("_") if part in SPLITS), "")


def read(folder: str) -> dict:
    """The manifest of a scheme's folder; empty where there is none, or none that can be read."""
    return read_json(os.path.join(folder, FILE)) or {}


def read_entry(folder: str, dataset: str) -> dict:
    """The data set's entry in a manifest of this version's form; empty where there is none."""
    entry = read(folder).get(dataset)
    sound = isinstance(entry, dict) and all(
        isinstance(entry.get(key), dict) for key in ("facts", "split_facts", "images", "rows", "unusable_labels")
    ) and isinstance(entry.get("skipped"), list)
    return entry if sound and all(isinstance(row, dict) for row in entry["skipped"]) else {}


def is_drawn(folder: str, dataset: str) -> bool:
    """True where a scheme's folder holds LMDBs of the data set whose faces are drawn; a manifest that does not say so names
    the data set's folder, which does."""
    entry = read(folder).get(dataset)
    if not isinstance(entry, dict):
        return False
    return bool(entry["drawn"] if "drawn" in entry else entry.get("folder") and records.is_drawn(str(entry["folder"])))


def title(folder: str, dataset: str) -> str:
    """What the data set in a scheme's folder is called: recipe.DATASETS' title, or what its own folder said."""
    entry = read(folder).get(dataset)
    return str(entry["title"] if isinstance(entry, dict) and entry.get("title") else recipe.DATASETS[dataset].title)


def missing_splits(folder: str, dataset: str, expected: Facts, names: Callable[[str], Iterable[str]]) -> List[str]:
    """Splits of `expected` whose LMDBs, `names(split)`, are not in `folder`, or not made from these facts."""
    entry = read_entry(folder, dataset)
    if not entry or entry["facts"] != expected.common:
        return list(expected.splits)
    return [
        split for split, split_facts in expected.splits.items()
        if entry["split_facts"].get(split) != split_facts
        or not all(name in entry["images"] and _has_lmdb(folder, name) for name in names(split))
    ]


def _has_lmdb(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name, "data.mdb"))


def publish(
    dataset: DataSet, crop: str, settings, staging: str, counts: Counter, lost: Sequence[Skipped], built: Sequence[str],
    expected: Facts, started: float,
) -> List[str]:
    """Move the finished LMDBs of one scheme and the splits `built` into place and record them. Returns "name count" of each.

    These splits leave the manifest first and come back last, so that a build killed in between is repeated.
    """
    folder = os.path.join(settings.output, crop)
    os.makedirs(folder, exist_ok=True)
    before = read_entry(folder, dataset.name)
    kept = [split for split in before["split_facts"] if split not in built] if before.get("facts") == expected.common else []
    content = read(folder)
    if content.pop(dataset.name, None) is not None:
        write_json(os.path.join(folder, FILE), {**content, **({dataset.name: only(before, kept)} if kept else {})})
    for name in counts:
        replace_folder(os.path.join(staging, crop, name), os.path.join(folder, name))
    for name in before.get("images", {}):  # of an older version of this project, which had an LMDB a task
        if name not in counts and split_of(name) in built:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    content = {"scheme": crop, "profile": settings.profile.name, **content}
    entry = _entry(dataset, crop, settings, counts, lost, built, expected, started)
    content[dataset.name] = _merged(only(before, kept), entry) if kept else entry
    write_json(os.path.join(folder, FILE), content)
    return [f"{name} {count}" for name, count in counts.items()]


def _entry(
    dataset: DataSet, crop: str, settings, counts: Counter, lost, built: Sequence[str], expected: Facts, started: float
) -> dict:
    """What is recorded of the splits `built`."""
    return {
        "folder": os.path.abspath(dataset.folder),
        "drawn": dataset.drawn,
        "title": dataset.title,
        "images": dict(counts),
        "rows": {split: expected.splits[split]["rows"] for split in built},
        "skipped_reasons": _reasons(entry.reason for entry in lost),
        "skipped": [entry._asdict() for entry in lost],
        "unusable_labels": {split: unusable_labels(dataset, split) for split in built},
        "corrected_labels": dataset.corrections.get("counts", {}),
        "notes": dataset.notes,
        "warnings": warnings(dataset, crop),
        "seconds": round(time.monotonic() - started, 1),
        "built": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "sources": dataset.sources,
        "facts": expected.common,
        "split_facts": {split: expected.splits[split] for split in built},
    }


def unusable_labels(dataset: DataSet, split: str) -> Dict[str, int]:
    """Label -> how many of the split's faces have none that can be used, where there are any."""
    counts = Counter(
        name for record in dataset.records if record.split == split
        for name, label in zip(dataset.label_names, record.labels) if label == recipe.UNUSABLE
    )
    return dict(sorted(counts.items()))


def only(entry: dict, splits: Sequence[str]) -> dict:
    """An entry without the splits that are not among `splits`."""
    skipped = [row for row in entry["skipped"] if row.get("split") in splits]
    return {
        **entry,
        "images": {name: count for name, count in entry["images"].items() if split_of(name) in splits},
        "skipped_reasons": _reasons(row.get("reason") for row in skipped),
        "skipped": skipped,
        **{key: {split: value for split, value in entry[key].items() if split in splits}
           for key in ("rows", "unusable_labels", "split_facts")},
    }


def _merged(kept: dict, built: dict) -> dict:
    """The entry of the splits built now and of those that are kept."""
    skipped = kept["skipped"] + built["skipped"]
    return {
        **built, "skipped_reasons": _reasons(row.get("reason") for row in skipped), "skipped": skipped,
        **{key: {**kept[key], **built[key]} for key in ("images", "rows", "unusable_labels", "split_facts")},
        "sources": {**kept.get("sources", {}), **built["sources"]},
    }


def _reasons(reasons: Iterable[str]) -> Dict[str, int]:
    return dict(Counter(map(str, reasons)).most_common())
