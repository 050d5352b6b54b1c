"""manifest.json of a scheme: what lies in its LMDBs, from which sources, and what was left out and why."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import asdict
from typing import Dict, List

import recipe
from lmdb_builders.files import replace_folder, write_json
from lmdb_builders.records import UNUSABLE, DataSet, Skipped, file_sha256

FILE = "manifest.json"
VERSION = 1  # raise it when the same sources and settings give other LMDBs


def facts(dataset: DataSet, settings, detections: str) -> Dict[str, dict]:
    """By scheme, all that decides what its LMDBs hold; compared to tell whether they are still right."""
    common = {
        "version": VERSION,
        "sources": dataset.sources,
        "detections_sha256": file_sha256(detections),
        "splits": list(settings.splits),
        "crop_size": settings.profile.stored_size,
        "face_template": [list(point) for point in recipe.FACE_TEMPLATE],
        "encode": settings.encode,
        "seed": settings.seed,
        "labels": list(dataset.label_names),
    }
    if dataset.corrections:
        common["corrections_sha256"] = dataset.corrections["sha256"]
    return {
        crop: {**common, "geometry": json.loads(json.dumps(asdict(recipe.CROPS[crop])))} for crop in settings.crops
    }


def read(folder: str) -> dict:
    """The manifest of a scheme's folder; empty where there is none, or none that can be read."""
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            content = json.load(file)
        return content if isinstance(content, dict) else {}
    except (FileNotFoundError, ValueError, RecursionError):
        return {}


def is_complete(folder: str, dataset: str, wanted: dict) -> bool:
    """True where the data set's LMDBs lie in `folder`, made from the same sources by the same settings."""
    entry = read(folder).get(dataset)
    images = entry.get("images") if isinstance(entry, dict) else None
    return isinstance(images, dict) and entry.get("facts") == wanted and all(
        os.path.isfile(os.path.join(folder, name, "data.mdb")) for name in images
    )


def publish(dataset: DataSet, crop: str, settings, staging: str, counts: Counter, lost, wanted, started) -> List[str]:
    """Move a scheme's finished LMDBs to their place and record them. Returns "name count" of each.

    The entry is taken out of the manifest first and put back last: in between, the next build would start again.
    """
    folder = os.path.join(settings.output, crop)
    os.makedirs(folder, exist_ok=True)
    content = read(folder)
    if content.pop(dataset.name, None) is not None:
        write_json(os.path.join(folder, FILE), content)
    for name in counts:
        replace_folder(os.path.join(staging, crop, name), os.path.join(folder, name))
    content = {"scheme": crop, "profile": settings.profile.name, **content}
    content[dataset.name] = _entry(dataset, settings, counts, lost, wanted, started)
    write_json(os.path.join(folder, FILE), content)
    return [f"{name} {count}" for name, count in counts.items()]


def _entry(dataset: DataSet, settings, counts: Counter, lost: List[Skipped], wanted: dict, started: float) -> dict:
    unusable = {
        name: sum(record.labels[position] == UNUSABLE for record in dataset.records)
        for position, name in enumerate(dataset.label_names)
    }
    return {
        "folder": os.path.abspath(dataset.folder),
        "images": dict(counts),
        "rows": {
            split: sum(record.split == split for record in dataset.records)
            + sum(entry.split == split for entry in dataset.skipped)
            for split in settings.splits
        },
        "skipped_reasons": dict(Counter(entry.reason for entry in lost).most_common()),
        "skipped": [entry._asdict() for entry in lost],
        "unusable_labels": {name: count for name, count in unusable.items() if count},
        "corrected_labels": dataset.corrections.get("counts", {}),
        "notes": dataset.notes,
        "seconds": round(time.monotonic() - started, 1),
        "built": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "facts": wanted,
    }
