"""A project small enough to train in seconds: a profile, and LMDBs of synthetic crops."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

import recipe
import face_lmdbs
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
        names = [f"{index}.jpg" for index in range(count)]
        face_lmdbs.write(os.path.join(folder, f"celeba_{part}"), zip(names, crops, labels))
        face_lmdbs.write(os.path.join(folder, f"fotw_{part}"), zip(names, crops, np.stack([female, smiling], axis=1)))


def make_project(root: str, profile=TINY):
    """Nets and solvers of `profile`, TINY with other numbers perhaps, and its LMDBs (of scheme 3) below `root`."""
    prototxt.write(prototxt.generate([profile]), root)
    write_databases(os.path.join(root, recipe.lmdb_folder("tiny", "scheme3")))
