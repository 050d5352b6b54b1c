"""Kill builds again and again at random instants: no reader ever finds half a thing under a complete one's name.

    python tests/reliability/kill_build.py --kills 50                      # LMDBs of five schemes
    python tests/reliability/kill_build.py --kills 50 --what detections    # the search for faces in FotW's photos
    python tests/reliability/kill_build.py --kills 50 --what weights       # what make weights puts into its place

SIGKILL to the whole build after random times; after each kill everything that is there must be what an undisturbed build
leaves, and the same command is started again until it ends, with all of it. Exits with 1 otherwise.
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


class Lmdbs:
    """Five schemes of a small CelebA: every LMDB that is there is an undisturbed build's."""

    def prepare(self, folder):
        make_celeba(folder / "CelebA")

    def start(self, folder, name):
        return start(folder / "CelebA", folder / name)

    def look(self, folder, name):
        return contents(folder / name)

    def whole(self, found):
        return len(found) == 4 * len(recipe.CROPS) and all(found.values())


class Detections:
    """Faces found in FotW's photos: every row that is there is an undisturbed search's, and none is lost again."""

    def prepare(self, folder):
        from gender_smile.synthetic.data_sets import draw_data_sets

        draw_data_sets(str(folder / "drawn"), 20, 80)
        self.rows = 0

    def start(self, folder, name):
        command = [sys.executable, "-m", "lmdb_builders.build", "--profile", "demo", "--crop", "scheme3"]
        command += ["--fotw", str(folder / "drawn" / "FotW"), "--output", str(folder / name)]
        log = open(folder / f"{name}.log", "w")
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def look(self, folder, name):
        from lmdb_builders.detections import read_detections

        paths = list((folder / name).glob("**/detections*/*.csv")) + list((folder / name).glob("**/detections.csv"))
        found = {image: str(row) for path in paths for image, row in read_detections(str(path)).items()}
        if name == "killed" and found:  # each face that was found stays found
            assert len(found) >= self.rows - 1, f"{self.rows} faces were found, {len(found)} are left"  # the last row may be torn
            self.rows = len(found)
        return found

    def whole(self, found):
        self.rows = 0
        return len(found) >= 40


class Weights:
    """VGG-Face's file taken from another place: at its name it is whole or absent."""

    def prepare(self, folder):
        from gender_smile.nets.vgg_face import write_random_vgg_face

        write_random_vgg_face(str(folder / "source.caffemodel"))

    def start(self, folder, name):
        (folder / name).mkdir(exist_ok=True)
        code = "import sys; from gender_smile.nets import vgg_face_sources; vgg_face_sources.take_file(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(folder / "source.caffemodel"), str(folder / name / "VGG_FACE.caffemodel")]
        log = open(folder / f"{name}.log", "w")
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def look(self, folder, name):
        from common.files import sha256_of

        return {path.name: sha256_of(str(path)) for path in (folder / name).glob("VGG_FACE.caffemodel")}

    def whole(self, found):
        return len(found) == 1


SUBJECTS = {"lmdb": Lmdbs, "detections": Detections, "weights": Weights}


def run(kills, seed, what="lmdb"):
    """(kills that met a running build, looks that found part of it), each look of whole things only.

    Raises AssertionError, RuntimeError.
    """
    draw, fallen, part_way, subject = random.Random(seed), 0, 0, SUBJECTS[what]()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        subject.prepare(folder)
        began = time.monotonic()
        if subject.start(folder, "quiet").wait():
            raise RuntimeError((folder / "quiet.log").read_text())
        takes = time.monotonic() - began
        wanted = subject.look(folder, "quiet")
        assert subject.whole(wanted), f"an undisturbed build leaves {sorted(wanted)}"
        while True:
            process = subject.start(folder, "killed")
            if fallen < kills:
                try:
                    process.wait(draw.uniform(0.1, 1.1) * takes)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    fallen += 1
            status = process.wait()
            found = subject.look(folder, "killed")
            for name, content in found.items():
                assert content == wanted[name], f"{name} is not what an undisturbed build leaves"
            part_way += 0 < len(found) < len(wanted)
            if status > 0:
                raise RuntimeError((folder / "killed.log").read_text())
            if status == 0:
                assert found == wanted and subject.whole(found)
                if fallen >= kills:
                    return fallen, part_way
                subprocess.run(["rm", "-rf", str(folder / "killed")], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=SUBJECTS, default="lmdb", help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    fallen, part_way = run(options.kills, options.seed, options.what)
    print(f"{options.what}: {fallen} kills in {time.monotonic() - began:.0f} s; {part_way} looks found part of it, each part "
          "whole; the end is an undisturbed build's")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
