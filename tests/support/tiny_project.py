"""A project small enough to train in seconds: a profile, and LMDBs of synthetic crops."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace

import numpy as np

import recipe
from lmdb_builders import lmdb_writer
from gender_smile.nets import prototxt

TINY = replace(recipe.DEMO, name="tiny", crop_size=32, width=0.05, batch_size=8, test_batch_size=8,
               max_iter={2: 6, 3: 6, 4: 6}, test_interval={2: 3, 3: 3, 4: 3}, snapshot=2, display=1,
               base_lr={2: 1e-4, 3: 1e-4, 4: 1e-4})
LONG = replace(TINY, max_iter={2: 200, 3: 200, 4: 200}, test_interval={2: 100, 3: 100, 4: 100}, snapshot=1000)
FACES = {"train": 24, "val": 10}


def write_databases(folder: str):
    """LMDBs of one scheme: female faces are bright, smiling ones have a bright lower half."""
    generator = np.random.default_rng(7)
    for part, count in FACES.items():
        labels = generator.integers(0, 2, (count, len(recipe.LABELS)), dtype=np.uint8)
        female, smiling = (labels[:, recipe.LABELS.index(task.label)] for task in recipe.TASKS.values())
        crops = generator.integers(0, 120, (count, TINY.stored_size, TINY.stored_size, 3), dtype=np.uint8)
        crops += (80 * female)[:, None, None, None].astype(np.uint8)
        crops[:, TINY.crop_size // 2:] += (50 * smiling)[:, None, None, None].astype(np.uint8)
        names = {f"celeba_{part}": 0 * female, f"fotw_gender_{part}": female, f"fotw_smile_{part}": smiling}
        for name, own in names.items():
            with closing(lmdb_writer.LmdbWriter(os.path.join(folder, name))) as writer:
                for index, crop in enumerate(crops):
                    datum = lmdb_writer.image_datum(lmdb_writer.encode_crop(crop, "raw"), TINY.stored_size, "raw",
                                                    int(own[index]))
                    writer.put(lmdb_writer.record_key(index, f"{index}.jpg"), datum)
        with closing(lmdb_writer.LmdbWriter(os.path.join(folder, f"celeba_{part}_labels"))) as writer:
            for index, row in enumerate(labels):
                writer.put(lmdb_writer.record_key(index, f"{index}.jpg"), lmdb_writer.labels_datum(bytes(row)))


def make_project(root: str, profile=TINY):
    """Nets and solvers of `profile`, TINY with other numbers perhaps, and its LMDBs (of scheme 3) below `root`."""
    prototxt.write(prototxt.generate([profile]), root)
    write_databases(os.path.join(root, recipe.lmdb_folder("tiny", "scheme3")))
