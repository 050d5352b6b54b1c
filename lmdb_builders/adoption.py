"""Builds of manifest version 1, which hashed whole tables and kept photos as stored: kept where they are still right.

They are not built again merely because the manifest's form has changed. A split is kept where the tables, the
settings and detections.csv are byte for byte those it was built from, and none of its photos has an EXIF orientation.
"""

from __future__ import annotations

import os
from typing import Dict, Optional, Sequence

from lmdb_builders import manifest
from lmdb_builders.detections import read_detections, turned_images
from lmdb_builders.records import DataSet
from common.files import sha256_of, write_json

OLD_VERSION = 1
OLD_FACTS = {"version", "sources", "detections_sha256", "splits", "corrections_sha256"}  # that are no common facts now


def adopt(dataset: DataSet, settings, detections: str) -> None:
    """Write the entries of version 1 that still hold in the present form. Call it before detections.csv is added to."""
    old = {crop: _old_entry(os.path.join(settings.output, crop), dataset.name) for crop in settings.crops}
    old = {crop: entry for crop, entry in old.items() if entry is not None}
    if not old or not os.path.exists(detections):
        return
    digest = sha256_of(detections)
    wanted = manifest.facts(dataset, settings, read_detections(detections))
    kept: Dict[str, Sequence[str]] = {
        crop: [split for split in settings.splits if split in entry["facts"].get("splits", ())]
        for crop, entry in old.items() if _same(entry["facts"], wanted[crop].common, dataset, digest)
    }
    splits = {split for names in kept.values() for split in names}
    if not splits:
        return
    settings.say(f"{dataset.name}: looking for EXIF orientations in the photos of an older build")
    photos = {record.image: record.split for record in dataset.records if record.split in splits}
    turned = {photos[image] for image in turned_images(dataset.folder, photos, settings.workers)}
    for crop, names in kept.items():
        names = [split for split in names if split not in turned]
        if names:
            _write(os.path.join(settings.output, crop), dataset, old[crop], names, wanted[crop])


def _old_entry(folder: str, dataset: str) -> Optional[dict]:
    entry = manifest.read(folder).get(dataset)
    sound = isinstance(entry, dict) and "split_facts" not in entry and isinstance(entry.get("facts"), dict)
    sound = sound and all(isinstance(entry.get(key), dict) for key in ("images", "rows"))
    return entry if sound and isinstance(entry.get("skipped"), list) else None


def _same(old: dict, common: dict, dataset: DataSet, detections_sha256: str) -> bool:
    """True where a build with the facts `old` would give the same LMDBs now, photos without orientation provided."""
    sources = old.get("sources")
    return (
        old.get("version") == OLD_VERSION
        and isinstance(sources, dict)
        and all(sources.get(file, digest) == digest for file, digest in dataset.sources.items())
        and old.get("detections_sha256") == detections_sha256
        and old.get("corrections_sha256") == (dataset.corrections or {}).get("sha256")
        and {key: value for key, value in old.items() if key not in OLD_FACTS}
        == {key: value for key, value in common.items() if key not in OLD_FACTS}
    )


def _write(folder: str, dataset: DataSet, old: dict, splits: Sequence[str], wanted: manifest.Facts) -> None:
    entry = {
        **old, "former_facts": old["facts"], "sources": old["facts"]["sources"], "facts": wanted.common,
        "split_facts": {split: wanted.splits[split] for split in splits},
        "unusable_labels": {split: manifest.unusable_labels(dataset, split) for split in splits},
    }
    write_json(os.path.join(folder, manifest.FILE), {**manifest.read(folder), dataset.name: manifest.only(entry, splits)})
