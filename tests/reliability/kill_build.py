"""Kill `make lmdb` again and again at random instants: no reader ever finds half an LMDB under a complete one's name.

    python tests/reliability/kill_build.py --kills 50

Builds five schemes of a small CelebA, with SIGKILL to the whole build after random times; after each kill every LMDB
that is there must be complete, and the same command is started again until it ends. The end must hold the records of
an undisturbed build. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lmdb

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import recipe  # noqa: E402

PHOTOS = 400
POINTS = "38 44 62 44 50 56 41 68 59 68"


def make_celeba(root):
    """PHOTOS photos of noise in CelebA's layout: the last tenth is for validation."""
    import cv2
    import numpy as np

    draw, names = np.random.RandomState(0), [f"{number:06d}.jpg" for number in range(1, PHOTOS + 1)]
    for folder in ("Img/img_celeba", "Anno", "Eval"):
        (root / folder).mkdir(parents=True)
    for name in names:
        image = cv2.resize(draw.randint(0, 256, (10, 10, 3), np.uint8), (100, 100))
        cv2.imwrite(str(root / "Img/img_celeba" / name), image)
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    values = " ".join(["1"] * len(recipe.CELEBA_ATTRIBUTES))
    tables = {
        "Anno/list_landmarks_celeba.txt": [str(PHOTOS), points, *(f"{name} {POINTS}" for name in names)],
        "Anno/list_bbox_celeba.txt": [str(PHOTOS), "image_id x_1 y_1 width height", *(f"{n} 25 25 50 50" for n in names)],
        "Anno/list_attr_celeba.txt": [str(PHOTOS), " ".join(recipe.CELEBA_ATTRIBUTES), *(f"{n} {values}" for n in names)],
        "Eval/list_eval_partition.txt": [f"{n} {int(i >= PHOTOS * 9 // 10)}" for i, n in enumerate(names)],
    }
    for path, lines in tables.items():
        (root / path).write_text("\n".join(lines) + "\n")


def start(celeba, output):
    command = [sys.executable, "-m", "lmdb_builders.build", "--profile", "demo", "--crop", "all"]
    command += ["--celeba", str(celeba), "--output", str(output)]
    log = open(output.with_suffix(".log"), "w")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def contents(output):
    """{LMDB: its records} of what stands under the names that readers use."""
    found = {}
    for path in sorted(output.glob("scheme*/celeba_*")):
        with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
            found[str(path.relative_to(output))] = list(transaction.cursor())
    return found


def run(kills, seed):
    """(kills that met a running build, whether every look found complete LMDBs only). Raises AssertionError, RuntimeError."""
    draw, fallen, part_way = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_celeba(folder / "CelebA")
        began = time.monotonic()
        if start(folder / "CelebA", folder / "quiet").wait():
            raise RuntimeError((folder / "quiet.log").read_text())
        takes = time.monotonic() - began
        wanted = contents(folder / "quiet")
        assert len(wanted) == 4 * len(recipe.CROPS) and all(wanted.values())
        while True:
            process = start(folder / "CelebA", folder / "killed")
            if fallen < kills:
                try:
                    process.wait(draw.uniform(0.1, 1.1) * takes)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    fallen += 1
            status = process.wait()
            found = contents(folder / "killed")
            for name, records in found.items():
                assert records == wanted[name], f"{name} is not the LMDB of an undisturbed build"
            part_way += 0 < len(found) < len(wanted)
            if status > 0:
                raise RuntimeError((folder / "killed.log").read_text())
            if status == 0:
                assert found == wanted
                if fallen >= kills:
                    return fallen, part_way
                subprocess.run(["rm", "-rf", str(folder / "killed")], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    fallen, part_way = run(options.kills, options.seed)
    print(f"{fallen} kills in {time.monotonic() - began:.0f} s; {part_way} looks found some LMDBs of the five schemes but "
          "not all, each complete; the end is an undisturbed build's")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
