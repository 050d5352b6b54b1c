"""One self-contained page about a profile's run: recipe, data, curves, results beside the paper's, mistakes, provenance.

    make report PROFILE=demo                 # writes runs/demo/report.html; opens without network, prints to PDF

Shows what is there: trained steps (weights/<profile>), LMDBs (data/<profile>), and under runs/<profile> what make evaluate,
make table2 and make table3 wrote. Nothing is trained or scored for it, and what is missing is named with its command.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import csv
import glob
import os
import random
import sys
from dataclasses import fields
from typing import Any, Dict, List, Set

import recipe
from common import command
from common.options import add_profile

FACES = 8  # rows of the crops sheet
MISTAKES = 12  # of each task


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_profile(parser)
    parser.add_argument("--output", metavar="FILE", help="default: runs/PROFILE/report.html")
    return parser


# ------------------------------------------------------------------------------------------ what is there
def departures(profile: recipe.Profile) -> List[dict]:
    """Where a profile's numbers are not the paper profile's: {"name", "paper", "ours"}."""
    found = []
    for field in fields(recipe.Profile):
        ours, paper = getattr(profile, field.name), getattr(recipe.PAPER, field.name)
        if ours != paper and field.name not in ("name", "why"):
            found.append({"name": field.name, "paper": paper, "ours": ours})
    return found


def trainings(profile: str) -> List[dict]:
    """Records of the trained steps, by step and name: the record with "stem", "number", "name", "variant", "metrics"."""
    from gender_smile.training import metrics
    from common.files import read_json

    found = []
    for path in sorted(glob.glob(glob.escape(recipe.absolute(f"weights/{profile}")) + "/step*.caffemodel.json")):
        stem = os.path.basename(path)[:-len(".caffemodel.json")]
        record = read_json(path)
        if record is None or not os.path.exists(path[:-len(".json")]):
            continue
        name, _, variant = stem.partition("-")
        number, _, of = name.partition("_")
        folder = recipe.absolute(f"runs/{profile}/{stem}")
        rows = metrics.read(os.path.join(folder, "metrics.csv")) if is_run_of(record, folder) else []
        found.append({**record, "stem": stem, "number": int(number[4:]), "name": of, "variant": variant, "metrics": rows})
    return sorted(found, key=lambda record: (record["number"], record["variant"], record["name"]))


def is_run_of(record: dict, folder: str) -> bool:
    """True where the run in `folder` made the weights of `record`: a later one, which is not finished, has another curve."""
    from common.files import read_json

    run = read_json(os.path.join(folder, "run.json"))
    if run is None:
        return "run" not in record
    if "run" in record or "run" in run:
        return record.get("run") == run.get("run")
    return bool(run.get("finished")) and run.get("inputs") == record.get("inputs")  # of an earlier version


def data_sets(profile: str) -> List[dict]:
    """What each LMDB's manifest says: {"scheme", "dataset", "images", "rows", "skipped_reasons", ...}."""
    from lmdb_builders import manifest

    found = []
    for crop in recipe.CROPS:
        content = manifest.read(recipe.absolute(recipe.lmdb_folder(profile, crop)))
        found += [{"scheme": crop, "dataset": name, **content[name]} for name in recipe.DATASETS if name in content]
    return found


def mistakes(profile: str, count: int = MISTAKES) -> Dict[str, List[dict]]:
    """Task -> the wrong answers with the highest probabilities, by evaluation.csv: {"image", "label", "answer",
    "probability"}; empty where there is no such file."""
    path = recipe.absolute(f"runs/{profile}/evaluation.csv")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found: Dict[str, List[dict]] = {}
    for task in recipe.TASKS:
        wrong: List[Dict[str, Any]] = []
        for row in rows:
            if row[f"{task}_label"] and row[f"{task}_probability"]:
                label, one = int(row[f"{task}_label"]), float(row[f"{task}_probability"])
                answer = int(one > 0.5)
                if answer != label:
                    wrong.append({"image": row["image"], "label": label, "answer": answer,
                                  "probability": max(one, 1 - one)})
        found[task] = sorted(wrong, key=lambda row: -row["probability"])[:count]
    return found


def crops_of(profile: str, task: str, images: Set[str]) -> Dict[str, Dict[str, object]]:
    """Image -> scheme -> crop (H x W x 3 uint8 BGR), of `images`, from the validation LMDBs of `task`."""
    from gender_smile.evaluation.faces import read_lmdb

    found: Dict[str, Dict[str, object]] = {}
    for scheme, folder in validation_lmdbs(profile, task).items():
        for name, _, crop in read_lmdb(folder, images):
            found.setdefault(name, {})[scheme] = crop
    return found


def draw_names(profile: str, count: int = FACES) -> List[str]:
    """`count` validation faces drawn at random, by the recipe's seed."""
    from gender_smile.evaluation.faces import read_names

    names = sorted(set().union(*map(read_names, validation_lmdbs(profile, "gender").values())))
    return random.Random(recipe.PROFILES[profile].random_seed).sample(names, min(count, len(names)))


def validation_lmdbs(profile: str, task: str) -> Dict[str, str]:
    """Scheme -> validation LMDB of `task` in step 4, of those that are there."""
    name = recipe.target().databases("val")[task]
    folders = {scheme: recipe.absolute(f"{recipe.lmdb_folder(profile, scheme)}/{name}") for scheme in recipe.CROPS}
    return {scheme: folder for scheme, folder in folders.items() if os.path.isdir(folder)}


def collect(profile: recipe.Profile) -> dict:
    """Everything that the page shows; see gender_smile/pages/report_page.py."""
    from common.files import read_json

    runs = f"runs/{profile.name}"
    wrong = mistakes(profile.name)
    shown = {task: {row["image"] for row in wrong.get(task, ())} for task in recipe.TASKS}
    drawn = draw_names(profile.name)
    shown["gender"].update(drawn)
    crops = {task: crops_of(profile.name, task, images) for task, images in shown.items()}
    return {
        "profile": profile,
        "departures": departures(profile),
        "data": data_sets(profile.name),
        "trainings": trainings(profile.name),
        "evaluations": [found for name in ("evaluation", "evaluation_photos")
                        if "metrics" in (found := read_json(recipe.absolute(f"{runs}/{name}.json")) or {})],
        "tables": {table: read_json(recipe.absolute(f"{runs}/table{table}.json")) for table in (2, 3)},
        "pictures": {table: recipe.absolute(f"{runs}/table{table}.png") for table in (2, 3)},
        "faces": {image: crops["gender"][image] for image in drawn},
        "mistakes": wrong,
        "mistaken": crops,
    }


def main(argv=None) -> int:
    """Return 0 when the page is written, 2 where nothing is there to report or it cannot be written."""
    options = get_parser().parse_args(argv)
    from gender_smile.inference.classifier import PipelineError

    return command.run("report", lambda: report(options), PipelineError, writes=[_path(options)])


def _path(options: argparse.Namespace) -> str:
    return options.output or recipe.absolute(f"runs/{options.profile}/report.html")


def report(options: argparse.Namespace) -> int:
    """Write the page; the exit status."""
    from gender_smile.pages import report_page

    profile = recipe.PROFILES[options.profile]
    found = collect(profile)
    if not found["trainings"] and not found["data"]:
        print(f"report: nothing of profile {profile.name} is there yet: make lmdb, then make step1 to step4", file=sys.stderr)
        return 2
    path = _path(options)
    report_page.write(path, found)
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB; open it in a browser, print it for a PDF")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
