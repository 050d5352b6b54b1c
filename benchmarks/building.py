"""Building LMDBs from photographs, cropped and aligned, against Caffe's convert_imageset; and how the cost grows.

    python -m benchmarks.building                     # 16,000 images
    python -m benchmarks.building --images 200000     # the growth up to that many, in small crops (3 GB)
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import ROOT, cost, figure, get_parser, rate, run, side_by_side
from common.engine import debian_tool

IMAGES = 16000
SCHEME = "scheme3"
CONVERT = ROOT / ".caffe" / "usr" / "bin" / "convert_imageset"


def repeat(celeba, folder, count) -> Path:
    """A data set of `count` photographs in CelebA's layout: links to those of `celeba`, over and over."""
    source, target = Path(celeba), Path(folder) / f"repeated_{count}"
    images = next(path for name in ("img_celeba", "img_align_celeba") if (path := source / "Img" / name).is_dir())
    names = sorted(path.name for path in images.iterdir())
    for table in sorted([*source.glob("Anno/*.txt"), *source.glob("Eval/*.txt")]):
        lines = table.read_text().splitlines()
        head = 0 if table.parent.name == "Eval" else 2
        values = dict(line.split(None, 1) for line in lines[head:])
        given = [names[index % len(names)] for index in range(count)]
        if table.parent.name == "Eval":  # all of them are built from, the test partition's too
            values = {name: min(int(part), 1) for name, part in values.items()}
        rows = [f"{index:07d}.jpg {values[name]}" for index, name in enumerate(given, 1)]
        new = target / table.relative_to(source)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text("\n".join([*([str(count), lines[1]] if head else []), *rows]) + "\n")
    links = target / "Img" / images.name
    links.mkdir(parents=True)
    for index in range(count):
        (links / f"{index + 1:07d}.jpg").symlink_to(images / names[index % len(names)])
    return target


def build(dataset, output, profile="paper"):
    """(seconds, peak MB of its largest process) of the command that `make lmdb` runs, for one scheme."""
    command = [sys.executable, "-m", "lmdb_builders.build", "--celeba", str(dataset), "--crop", SCHEME, "--profile", profile,
               "--output", str(output)]  # fmt: skip
    return timed(command)


def convert(dataset, output, size):
    """(seconds, peak MB) of Caffe's own converter, which resizes the whole photo."""
    images = next((dataset / "Img").iterdir())
    names = sorted(path.name for path in images.iterdir())
    listing = Path(f"{output}.txt")
    listing.write_text("".join(f"{name} 0\n" for name in names))
    command = [*debian_tool("convert_imageset"), f"--resize_height={size}", f"--resize_width={size}", "--shuffle", f"{images}/",
               str(listing), str(output)]  # fmt: skip
    return timed(command)


def stages(celeba, folder, count=400):
    """Mean ms an image of what a worker does (read and check, crop) and of what the main process does (write)."""
    import cv2

    import recipe
    from lmdb_builders.celeba import read_celeba
    from lmdb_builders.crops import crop_face
    from lmdb_builders.images import read_image
    from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, record_key
    from lmdb_builders.pool import keep_freed_memory

    keep_freed_memory()
    cv2.setNumThreads(1)
    dataset, size = read_celeba(str(celeba), ("train", "val")), recipe.PROFILES["paper"].stored_size
    writer, spent = LmdbWriter(str(folder / "stages")), dict.fromkeys(("read", "crop", "write"), 0.0)
    for index, record in enumerate(dataset.records[:count]):
        clock = [time.perf_counter()]
        pixels = read_image(os.path.join(dataset.folder, record.image))
        clock.append(time.perf_counter())
        data = encode_crop(crop_face(pixels, record.landmarks, recipe.CROPS[SCHEME], size), "raw")
        clock.append(time.perf_counter())
        writer.put(record_key(index, record.image), image_datum(data, size, "raw"))
        clock.append(time.perf_counter())
        for name, began, ended in zip(spent, clock, clock[1:]):
            spent[name] += 1e3 * (ended - began) / count
    writer.close()
    return spent


def timed(command):
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "GLOG_minloglevel": "1"})  # fmt: skip
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} stopped with {process.returncode}: {said[-2000:]}")
    return time.monotonic() - began, used.ru_maxrss / 1024


def rows(options):
    import recipe
    from benchmarks.photographs import photographs

    images, size = options.images, recipe.PROFILES["paper"].stored_size
    (ROOT / "data").mkdir(exist_ok=True)  # a disk with room; /tmp may be memory
    with tempfile.TemporaryDirectory(dir=ROOT / "data") as folder:
        celeba, _, what = photographs(folder)
        dataset = repeat(celeba, folder, images)
        place = (Path(folder) / f"{number}" for number in itertools.count())
        found = []
        if images == IMAGES and CONVERT.exists():
            seconds = side_by_side(
                {"ours": lambda: build(dataset, next(place)), "caffe": lambda: convert(dataset, next(place), size)},
                rounds=2, warm_up=0,
            )  # fmt: skip
            title = f"{images} {what} into one scheme of {size} pixels, raw, from start to end"
            baseline = "convert_imageset, which neither crops nor aligns"
            found.append(rate(title, images / seconds["ours"], images / seconds["caffe"], baseline, "images/s", 1.5))
            spent = stages(dataset, Path(folder))
            title = "per image in one process and thread: "
            found += [figure(f"{title}{what}", spent[name], "ms") for name, what in (
                ("read", "reading, with the checks of its header"), ("crop", "cropping and aligning"),
                ("write", "writing the record"),
            )]  # fmt: skip
        few = images // 4
        small, large = build(repeat(celeba, folder, few), next(place), "demo"), build(dataset, next(place), "demo")
        title, baseline = f"{images} images into one scheme of the demo's size", f"{few} images"
        found.append(cost(f"{title}, time per image", 1e3 * large[0] / images, 1e3 * small[0] / few, baseline, "ms", 1.1))
        grown = 1024 * (large[1] - small[1]) / (images - few)
        note = f"rows of the tables, no pixels; {large[1]:.0f} MB in all"
        found.append(figure(f"{title}, memory of its largest process per additional image", grown, "KB", at_most=4, note=note))
        return found


if __name__ == "__main__":
    parser = get_parser(__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES, help="default: %(default)s")
    raise SystemExit(run(__doc__, rows, parser.parse_args()))
