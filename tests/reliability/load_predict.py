"""Predict 2,000 photos, 5 % of them bad in every way that photos are: each is answered or named, the memory stays flat.

    python tests/reliability/load_predict.py
    python tests/reliability/load_predict.py --photos FOLDER   # your own good ones instead of the astronaut's variants

Runs tools/predict.py as a user does, with nets of the demo's form and random weights: what it answers means nothing,
what it takes is what trained nets take. Exits with 1 where a photo was forgotten, a good one failed as unreadable, a
bad one was answered, the exit status is not 1, or the memory grew by more than 64 MB from the second tenth to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import watching

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

WINDOWS = 10
GROWTH = 64  # MB that the last window may be above the second


def make_project(folder: Path) -> Path:
    """A copy of the project, by links, with random weights in place of the demo's trained ones."""
    import torchcaffe as caffe
    from benchmarks.project import linked_project

    os.environ["GLOG_minloglevel"] = "3"
    caffe.set_random_seed(1)
    return linked_project(folder, "demo", lambda net, path: caffe.Net(net, caffe.TEST).save(str(path)))


def good_photos(folder: Path, count: int, given=None) -> list:
    """Paths of `count` photos: the given folder's over and over, or variants of scikit-image's astronaut."""
    if given:
        found = sorted(str(path) for path in Path(given).resolve().rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return [found[index % len(found)] for index in range(count)]
    from PIL import Image
    from skimage import data

    astronaut, draw, paths = Image.fromarray(data.astronaut()), random.Random(1), []
    for index in range(min(count, 60)):
        side = draw.choice((150, 220, 300, 512, 800))
        picture = astronaut.rotate(draw.uniform(-20, 20), expand=draw.random() < 0.5).resize((side, side * 3 // 4))
        path = folder / f"good_{index:03d}.{draw.choice(('jpg', 'png', 'webp'))}"
        picture.save(path)
        paths.append(str(path))
    return [paths[index % len(paths)] for index in range(count)]


def bad_photos(folder: Path, count: int) -> list:
    """Paths of `count` files, folders and things that are no photos, of each kind in turn."""
    import bombs

    jpeg = bytes(bombs.picture("JPEG", (200, 200)))
    contents = {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header_only.jpg": jpeg[:40],
        "truncated.png": bytes(bombs.picture("PNG", (200, 200)))[:-30],
        "empty.jpg": b"",
        "text.jpg": b"<html>404 Not Found</html>",
        "zeros.jpg": bytes(5000),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "scans.jpg": bombs.many_scans(2000),
        **{f"bomb_{kind.lower()}.jpg": bombs.bomb(kind) for kind in bombs.KINDS},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    if os.geteuid():  # root may read everything
        (folder / "secret.jpg").write_bytes(jpeg)
        (folder / "secret.jpg").chmod(0)
    names = [*sorted(path.name for path in folder.iterdir()), "missing.jpg", "x" * 300 + ".jpg"]
    return [str(folder / names[index % len(names)]) for index in range(count)]


def predict(project: Path, photos: list):
    """(answers, exit status, MB after each window, seconds) of tools/predict.py."""
    started, answers, windows = time.monotonic(), [], []
    command = [sys.executable, str(project / "tools" / "predict.py"), "--json", "--profile", "demo", *photos]
    environment = {**os.environ, "ENGINE": "torch", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    process = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        answers.append(json.loads(line))
        if len(answers) % max(1, len(photos) // WINDOWS) == 0:
            windows.append(watching.resident(process.pid))
    return answers, process.wait(), windows, time.monotonic() - started


def check(photos: list, bad: set, answers: list, status: int, windows: list) -> list:
    """What is wrong, a line each."""
    wrong = []
    if [answer["image"] for answer in answers] != photos:
        wrong.append(f"{len(answers)} answers to {len(photos)} photos, or in another order")
    for answer in answers:
        if (answer["image"] in bad) != (answer.get("error") not in (None, "no face found")):
            wrong.append(f"{answer['image']}: {answer.get('error', 'was answered')}")
    if status != (1 if any("error" in answer for answer in answers) else 0):
        wrong.append(f"exit status {status}")
    if len(windows) == WINDOWS and watching.growth(windows) > GROWTH:
        wrong.append(f"memory grew from {windows[1]:.0f} to {windows[-1]:.0f} MB")
    return wrong


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="photos; default: %(default)s")
    parser.add_argument("--bad", type=float, default=0.05, help="share of them that is bad; default: %(default)s")
    parser.add_argument("--photos", metavar="FOLDER", help="good photos; default: variants of one")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in ("project", "good", "bad"):
            (folder / name).mkdir()
        count_bad = round(options.count * options.bad)
        bad = bad_photos(folder / "bad", count_bad)
        photos = good_photos(folder / "good", options.count - count_bad, options.photos) + bad
        random.Random(2).shuffle(photos)
        answers, status, windows, seconds = predict(make_project(folder / "project"), photos)
        wrong = check(photos, set(bad), answers, status, windows)
    errors = sum("error" in answer for answer in answers)
    print(f"{len(answers)} of {len(photos)} photos in {seconds:.0f} s: {len(answers) - errors} answered, {errors} named as "
          f"failed ({count_bad} of them bad files), exit status {status}")  # fmt: skip
    print("memory after each tenth:", " ".join(f"{size:.0f}" for size in windows), "MB")
    return watching.verdict(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
