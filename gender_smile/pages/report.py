"""The report of a profile's run: recipe, data, curves, results beside the paper's, mistakes, provenance, as one HTML file."""

from __future__ import annotations

import csv
import glob
import io
import os
import random
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

import recipe
from common import palette
from common.files import read_json, write_text
from common.progress import duration
from gender_smile.evaluation import scores, tables
from gender_smile.pages import html
from gender_smile.training import metrics

if TYPE_CHECKING:
    import numpy as np

FACES = 8  # rows of the crops sheet
MISTAKES = 12  # of each task


def write(path: str, content: Dict[str, Any]) -> None:
    """Write the page of collect()'s content."""
    write_text(path, html.render("report.html", **values(content)))


# ------------------------------------------------------------------------------------------ what the project's files say
def departures(profile: recipe.Profile) -> List[dict]:
    """Where a profile's numbers are not the paper profile's: {"name", "paper", "ours"}."""
    pairs = [(field.name, getattr(recipe.PAPER, field.name), getattr(profile, field.name)) for field in fields(recipe.Profile)]
    return [{"name": name, "paper": paper, "ours": ours} for name, paper, ours in pairs
            if ours != paper and name not in ("name", "why")]


def trainings(profile: str) -> List[dict]:
    """Records of the trained steps, by step and name: the record with "stem", "number", "name", "variant", "metrics"."""
    records = []
    for path in sorted(glob.glob(glob.escape(recipe.absolute(f"weights/{profile}")) + "/step*.caffemodel.json")):
        stem = os.path.basename(path)[:-len(".caffemodel.json")]
        record = read_json(path)
        if record is None or not os.path.exists(path[:-len(".json")]):
            continue
        name, _, variant = stem.partition("-")
        number, _, of = name.partition("_")
        folder = recipe.absolute(f"runs/{profile}/{stem}")
        rows = metrics.read(os.path.join(folder, "metrics.csv")) if is_run_of(record, folder) else []
        records.append({**record, "stem": stem, "number": int(number[4:]), "name": of, "variant": variant, "metrics": rows})
    return sorted(records, key=lambda record: (record["number"], record["variant"], record["name"]))


def is_run_of(record: dict, folder: str) -> bool:
    """True where the run in `folder` made the weights of `record`: a later one, which is not finished, has another curve."""
    run = read_json(os.path.join(folder, "run.json"))
    return run is not None and "run" in record and record["run"] == run.get("run")


def data_sets(profile: str) -> List[dict]:
    """What each LMDB's manifest says: {"scheme", "dataset", "images", "rows", "skipped_reasons", ...}."""
    from lmdb_builders import manifest

    entries = []
    for crop in recipe.CROPS:
        content = manifest.read(recipe.absolute(recipe.lmdb_folder(profile, crop)))
        entries += [{"scheme": crop, "dataset": name, **content[name]} for name in recipe.DATASETS if name in content]
    return entries


def mistakes(profile: str, count: int = MISTAKES) -> Dict[str, List[dict]]:
    """Task -> the wrong answers with the highest probabilities, by evaluation.csv: {"image", "label", "answer",
    "probability"}; empty where there is no such file."""
    path = recipe.absolute(f"runs/{profile}/evaluation.csv")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    mistakes_of: Dict[str, List[dict]] = {}
    for task in recipe.TASKS:
        wrong: List[Dict[str, Any]] = []
        for row in rows:
            if row[f"{task}_label"] and row[f"{task}_probability"]:
                label, p_positive = int(row[f"{task}_label"]), float(row[f"{task}_probability"])
                answer = int(p_positive > 0.5)
                if answer != label:
                    wrong.append({"image": row["image"], "label": label, "answer": answer,
                                  "probability": max(p_positive, 1 - p_positive)})
        mistakes_of[task] = sorted(wrong, key=lambda row: -row["probability"])[:count]
    return mistakes_of


def crops_of(profile: str, images: Set[str]) -> Dict[str, Dict[str, "np.ndarray"]]:
    """Image -> scheme -> crop (H x W x 3 uint8 BGR), of `images`, from the validation LMDBs."""
    from gender_smile.evaluation.faces import read_lmdb

    crops: Dict[str, Dict[str, "np.ndarray"]] = {}
    for scheme, folder in validation_lmdbs(profile).items():
        for name, _, crop in read_lmdb(folder, images):
            crops.setdefault(name, {})[scheme] = crop
    return crops


def draw_names(profile: str, count: int = FACES) -> List[str]:
    """`count` validation faces drawn at random, by the recipe's seed."""
    from gender_smile.evaluation.faces import read_names

    names = sorted(set().union(*map(read_names, validation_lmdbs(profile).values())))
    return random.Random(recipe.PROFILES[profile].random_seed).sample(names, min(count, len(names)))


def validation_lmdbs(profile: str) -> Dict[str, str]:
    """Scheme -> validation LMDB of step 4, of those that are there."""
    name = recipe.target().database("val")
    folders = {scheme: recipe.absolute(f"{recipe.lmdb_folder(profile, scheme)}/{name}") for scheme in recipe.CROPS}
    return {scheme: folder for scheme, folder in folders.items() if os.path.isdir(folder)}


def collect(profile: recipe.Profile) -> Dict[str, Any]:
    """Everything that the page shows, as plain data and crops (H x W x 3 uint8, BGR)."""
    runs = f"runs/{profile.name}"
    wrong = mistakes(profile.name)
    images = {task: {row["image"] for row in wrong.get(task, ())} for task in recipe.TASKS}
    sample = draw_names(profile.name)
    crops = crops_of(profile.name, set(sample).union(*images.values()))
    evaluations = (read_json(recipe.absolute(f"{runs}/{name}.json")) for name in ("evaluation", "evaluation_photos"))
    return {
        "profile": profile,
        "departures": departures(profile),
        "data": data_sets(profile.name),
        "trainings": trainings(profile.name),
        "evaluations": [evaluation for evaluation in evaluations if evaluation is not None and "metrics" in evaluation],
        "tables": {table: read_json(recipe.absolute(f"{runs}/table{table}.json")) for table in (2, 3)},
        "pictures": {table: recipe.absolute(f"{runs}/table{table}.png") for table in (2, 3)},
        "faces": {image: crops[image] for image in sample},
        "mistakes": wrong,
        "mistaken": crops,
    }


# ------------------------------------------------------------------------------------------ what the template shows
def values(content: Dict[str, Any]) -> Dict[str, Any]:
    """The values of templates/report.html: collect()'s content with its numbers as text."""
    profile, evaluations, data = content["profile"], content["evaluations"], content["data"]
    records = [record for record in content["trainings"] if record.get("iteration")]  # none where step 1 adopts weights
    schemes_there = set().union(*content["faces"].values()) if content["faces"] else set()
    needed = {step.dataset for step in recipe.STEPS.values()}
    return {
        "profile": profile, "is_paper": profile is recipe.PAPER, "date": time.strftime("%Y-%m-%d %H:%M"),
        "option": "" if profile is recipe.PAPER else f" PROFILE={profile.name}",
        "cards": _cards(evaluations[0]) if evaluations else [], "palette": palette,
        "answer": answer(evaluations[0]["metrics"] if evaluations else {}, content["tables"]),
        "steps": _steps(profile),
        "departures": [(item["name"], _value(item["paper"]), _value(item["ours"])) for item in content["departures"]],
        "data": [_data_row(entry) for entry in data],
        "notes": list(dict.fromkeys(note for entry in data for note in entry.get("notes", []))),
        "data_folders": " ".join(f"{recipe.DATASETS[name].variable}=path" for name in recipe.DATASETS if name in needed),
        "data_set": recipe.target(),
        "curves": [(recipe.STEPS[number], curves(trained)) for number in recipe.STEPS
                   if (trained := [record for record in records if record["number"] == number])],
        "trainings": [_training_row(record) for record in records],
        "evaluations": [_evaluation(evaluation) for evaluation in evaluations],
        "challenge_error": recipe.CHALLENGE_ERROR,
        "tables": {number: _table(table, content["pictures"][number]) for number, table in content["tables"].items()},
        "faces": content["faces"],
        "schemes": [crop for name, crop in recipe.CROPS.items() if name in schemes_there],
        "mistakes": [(recipe.TASKS[task], [{**row, "crop": widest_crop(content["mistaken"].get(row["image"], {}))}
                                           for row in rows]) for task, rows in content["mistakes"].items()],
        "versions": sorted({text for record in content["trainings"] if (text := _versions(record))}),
        "weights": [[record.get("stem"), ", ".join(record.get("trained_on") or "-"),
                     *(record.get(name, "-") for name in ("engine", "precision", "seed", "sha256"))]
                    for record in content["trainings"]],
    }


def answer(metrics: Dict[str, Any], made: Dict[int, Optional[dict]]) -> List[str]:
    """In a sentence each: how accurate the tasks are beside the paper's, and which of its findings hold in the tables made."""
    tasks = [(task, metrics[task]) for task in recipe.TASKS if task in metrics]
    shares = [f"{task} {html.percent(own['accuracy'])}" + ("" if own["paper"] is None else f" (paper {own['paper']:.2f} %)")
              for task, own in tasks]
    sentences = [f"Right answers: {', '.join(shares)}."] if shares else []
    orderings = [(number, item) for number, table in made.items() if table for item in table["orderings"]]
    if orderings:
        kinds: Dict[str, List[str]] = {}
        for number, item in orderings:
            kinds.setdefault(item["verdict"], []).append(f"{item['better']} > {item['worse']} (Table {number}, {item['task']})")
        told = [f"{len(found)} \u201c{verdict}\u201d: {'; '.join(found)}"
                for verdict, found in sorted(kinds.items(), reverse=True)]
        sentences.append(f"Of {len(orderings)} orderings that the paper found, on the same faces: {'. '.join(told)}.")
    return sentences


def widest_first() -> List[str]:
    """The crop schemes by how much of a photo they show; of equally wide ones, those that keep the photo's axes first."""
    return sorted(recipe.CROPS, key=lambda name: (-recipe.CROPS[name].side, recipe.CROPS[name].aligned))


def widest_crop(crops: Dict[str, "np.ndarray"]) -> Optional["np.ndarray"]:
    """Of one face's crops by scheme, the one that shows most; None without any."""
    return next((crops[scheme] for scheme in widest_first() if scheme in crops), None)


def _cards(evaluation: dict) -> List[dict]:
    """The accuracies that stand on top, beside the paper's."""
    cards = []
    for name, own in evaluation["metrics"].items():
        if name not in recipe.TASKS and name not in recipe.NETS:
            continue  # a net that the recipe had when this was evaluated
        low, high = (100 * bound for bound in own["interval"])
        task = name if name in recipe.TASKS else recipe.NETS[name].task
        nets = " + ".join(recipe.NETS[net].title for net in recipe.ENSEMBLES.get(name, (name,)))
        cards.append({**own, "title": f"{task.capitalize()}, {nets}", "interval": f"{low:.1f} .. {high:.1f}",
                      "majority": scores.describe_majority(own, recipe.TASKS[task].classes)})
    return cards


def _steps(profile: recipe.Profile) -> List[tuple]:
    return [(f"{step.number}: {step.title}", step.model, "-" if step.number == 1 else f"{profile.base_lr[step.number]:g}",
             "-" if step.number == 1 else f"{profile.max_iter[step.number]:,} x {profile.batch_size}", step.source)
            for step in recipe.STEPS.values()]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(part)}" for name, part in value.items())
    if value is None:
        return "the data set's own"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def _data_row(entry: dict) -> tuple:
    """Counts of a scheme's LMDBs, what was skipped, and corrected labels."""
    counts = ", ".join(f"{name.split('_', 1)[1]} {count:,}" for name, count in entry["images"].items()
                       if not name.endswith("_labels"))
    skipped = ", ".join(f"{count} {reason}" for reason, count in entry.get("skipped_reasons", {}).items()) or "none"
    corrected = ", ".join(f"{name}: {count}" for name, count in entry.get("corrected_labels", {}).items()) or "none"
    return entry["scheme"], recipe.DATASETS[entry["dataset"]].title, counts, skipped, corrected


def _training_row(record: dict) -> tuple:
    """base_lr is the rate that the training began with, which may not be the recipe's."""
    rate = record.get("inputs", {}).get("solver's base_lr")
    return (record["number"], title(record), record["variant"] or "-", f"{record['iteration']:,}",
            "-" if rate is None else f"{float(rate):.4g}", "-" if record["loss"] is None else f"{record['loss']:.4f}",
            html.percent(record["accuracy"]), duration(record.get("seconds") or 0), record.get("seed", "-"))


def _evaluation(evaluation: dict) -> dict:
    rows = []
    for name, own in evaluation["metrics"].items():
        low, high = (f"{100 * bound:.2f}" for bound in own["interval"])
        paper = "-" if own["paper"] is None else f"{own['paper']:.2f} %"
        auc, ece = ("-" if own.get(key) is None else f"{own[key]:.4f}" for key in ("auc", "ece"))
        rows.append((name, f"{own['faces']:,}", own["missed"], html.percent(own["accuracy"]), f"{low} .. {high}", paper,
                     html.percent(own["majority_accuracy"]), html.percent(own["balanced_accuracy"]), auc, ece))
    confusions = [(task, [(label, *counts) for label, counts in
                          zip(task.classes, evaluation["metrics"][task.name]["confusion"])]) for task in recipe.TASKS.values()]
    protocol = evaluation["protocol"]
    missed = "count as wrong" if "testing" in protocol else "are not counted"
    return {"protocol": protocol[:1].upper() + protocol[1:], "rows": rows, "confusions": confusions,
            "note": f"{scores.MAJORITY_NOTE}. Photos without a face {missed}.",
            "warnings": [f"{name}: {text}" for name, text in evaluation.get("warnings", {}).items()],
            "challenge": evaluation["challenge"]}


def _table(table: Optional[dict], picture: str) -> Optional[dict]:
    """A table of the paper beside ours, its picture, and whether each ordering holds; None where it is not made."""
    if table is None:
        return None
    rows = [(row["task"], row["name"], *tables.paper_and_ours(row), f"{row['interval'][0]:.2f} .. {row['interval'][1]:.2f}",
             *tables.baseline(row)) for row in table["rows"]]
    orderings = [
        (item["task"], f"{item['better']} > {item['worse']}", f"+{item['paper']:.2f}", f"{item['difference']:+.2f}",
         f"{item['interval'][0]:+.2f} .. {item['interval'][1]:+.2f}", " ".join(f"{test['p']:.2g}" for test in item["tests"]),
         item["verdict"]) for item in table["orderings"]]
    url = None
    if os.path.exists(picture):
        with open(picture, "rb") as stream:
            url = html.bytes_url(stream.read(), "image/png")
    warnings = [f"{row['task']}, {row['name']}: {row['warning']}" for row in table["rows"] if row.get("warning")]
    return {**table, "rows": rows, "orderings": orderings, "picture": url, "warnings": warnings,
            "count": tables.count_faces(table["rows"])}


def _versions(record: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(record.get("versions", {}).items()))


# ------------------------------------------------------------------------------------------ curves
def title(record: dict) -> str:
    return recipe.NETS[record["name"]].title if record["name"] in recipe.NETS else record["name"] or "VGG-Face"


def curves(records: List[dict]) -> str:
    """Loss and validation accuracy of a step's trainings as the address of an SVG: a pair of panels for each training."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    import matplotlib

    columns = min(4, len(records))
    lines = -(-len(records) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.4 * lines + 0.4), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(2 * lines, columns, squeeze=False, sharex=True)
    tops = {name: metrics.roof([row for record in records if record["name"] == name for row in record["metrics"]])
            for name in {record["name"] for record in records}}  # a net's trainings share their scale
    for place in range(lines * columns):
        above, below = panels[2 * (place // columns)][place % columns], panels[2 * (place // columns) + 1][place % columns]
        if place >= len(records):
            above.set_axis_off()
            below.set_axis_off()
            continue
        record = records[place]
        x, y = metrics.points(record["metrics"], "train_loss")
        above.plot(x, y, color=palette.TRAINING, linewidth=0.6, alpha=0.4)
        above.plot(*metrics.running_mean(x, y), color=palette.TRAINING, linewidth=1.6, label="training loss, running mean")
        above.plot(*metrics.points(record["metrics"], "val_loss"), color=palette.VALIDATION, linewidth=1.6,
                   label="validation loss")
        x, y = metrics.points(record["metrics"], "val_accuracy")
        below.plot(x, [100 * value for value in y], color=palette.ACCURACY, linewidth=1.6, label="validation accuracy")
        if not y:
            below.set_axis_off()  # a step 1 answers nothing
        above.set_ylim(bottom=0, top=tops[record["name"]])
        above.set_title(title(record) + (f", {record['variant']}" if record["variant"] else ""), loc="left", fontsize=9)
        if place % columns == 0:
            above.set_ylabel("loss", fontsize=8)
            below.set_ylabel("accuracy, %", fontsize=8)
        for part in (above, below):
            part.grid(color="#8883", linewidth=0.6)
            part.spines[["top", "right"]].set_visible(False)
            part.tick_params(labelsize=7)
    shown = [panels[line][0].get_legend_handles_labels() for line in (0, 1)]
    figure.legend(*(sum(parts, []) for parts in zip(*shown)), loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return html.bytes_url(stream.getvalue().encode(), "image/svg+xml")
