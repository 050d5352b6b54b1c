"""tools/report.py's page: HTML with everything inside it, for screens and for paper."""

from __future__ import annotations

import base64
import os
import time
from html import escape
from typing import Dict, Iterable, Sequence

import recipe
from common.files import write_text
from common.progress import duration
from gender_smile.pages.report_curves import curves, title
from gender_smile.pages.report_frame import PAGE
from gender_smile.pages.suspects_page import as_address, widest_first
from gender_smile.evaluation import scores, tables
from gender_smile.evaluation.scores import percent


def write(path: str, found: dict) -> None:
    """Write the page of what tools/report.py's collect has found."""
    profile = found["profile"]
    sections = [
        ("Summary", summary(found)), ("Recipe", recipe_section(found)), ("Data", data_section(found)),
        ("Training", training_section(found)), ("Evaluation", evaluation_section(found)),
        ("Table 2: training schemes", table_section(found, 2)), ("Table 3: cropping schemes", table_section(found, 3)),
        ("Crops", crops_section(found)), ("Most confident mistakes", mistakes_section(found)),
        ("Provenance", provenance_section(found)),
    ]
    links = " ".join(f'<a href="#part{number}">{escape(title.split(":")[0])}</a>'
                     for number, (title, _) in enumerate(sections))
    body = "\n".join(f'<section id="part{number}"><h2>{escape(title)}</h2>\n{text}\n</section>'
                     for number, (title, text) in enumerate(sections))
    text = (PAGE.replace("@PROFILE@", escape(profile.name)).replace("@DATE@", time.strftime("%Y-%m-%d %H:%M"))
            .replace("@LINKS@", links).replace("@BODY@", body))
    write_text(path, text)


# ------------------------------------------------------------------------------------------ pieces
def table(head: Sequence[str], rows: Iterable[Sequence], numbers: Sequence[int] = ()) -> str:
    """A table of cells (text, escaped here); `numbers`: columns that are set to the right."""
    def cells(tag, row):
        return "".join(f'<{tag}{" class=number" if column in numbers else ""}>{escape(str(cell))}</{tag}>'
                       for column, cell in enumerate(row))

    lines = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>\n{lines}</tbody></table></div>'


def missing(what: str, command: str) -> str:
    return f'<p class="missing">{escape(what)}: <code>{escape(command)}</code></p>'


def option(found: dict) -> str:
    return "" if found["profile"] is recipe.PAPER else f" PROFILE={found['profile'].name}"


def picture(pixels, title: str) -> str:
    return f'<img src="{as_address(pixels, 90)}" alt="{escape(title, quote=True)}">'


# ------------------------------------------------------------------------------------------ sections
def summary(found: dict) -> str:
    """The accuracies beside the paper's, in large type."""
    if not found["evaluations"]:
        return missing("Nothing is evaluated yet", f"make evaluate{option(found)}")
    cards = []
    for name, metrics in found["evaluations"][0]["metrics"].items():
        if name not in recipe.TASKS and name not in recipe.NETS:
            continue  # a net that the recipe had when this was evaluated
        low, high = (100 * value for value in metrics["interval"])
        title = f"{(name if name in recipe.TASKS else recipe.NETS[name].task).capitalize()}, " + " + ".join(
            recipe.NETS[net].title for net in recipe.ENSEMBLES.get(name, (name,)))
        paper = "" if metrics["paper"] is None else f'<div class="paper">paper {metrics["paper"]:.2f} %</div>'
        classes = recipe.TASKS[name if name in recipe.TASKS else recipe.NETS[name].task].classes
        cards.append(f'<div class="card"><div class="title">{escape(title)}</div>'
                     f'<div class="figure">{percent(metrics["accuracy"])}</div>'
                     f'<div>{low:.1f} .. {high:.1f}, {metrics["faces"]:,} faces</div>'
                     f'<div>{escape(scores.describe_majority(metrics, classes))}</div>{paper}</div>')
    note = "" if found["profile"] is recipe.PAPER else (
        f"<p>The paper's nets see 224 pixels, start from VGG-Face and train on its data; these are for "
        f"{escape(found['profile'].why)}.</p>")
    return f'<div class="cards">{"".join(cards)}</div>{note}'


def recipe_section(found: dict) -> str:
    """The four steps with their numbers, and each number that is not the paper profile's."""
    profile = found["profile"]
    steps = [(f"{step.number}: {step.title}", step.model, "-" if step.number == 1 else f"{profile.base_lr[step.number]:g}",
              "-" if step.number == 1 else f"{profile.max_iter[step.number]:,} x {profile.batch_size}", step.source)
             for step in recipe.STEPS.values()]
    text = table(("step", "result", "learning rate", "iterations x batch", "source"), steps)
    if found["departures"]:
        rows = [(item["name"], _value(item["paper"]), _value(item["ours"])) for item in found["departures"]]
        return text + "<h3>Departures from the paper profile</h3>" + table(("setting", "paper profile", "here"), rows)
    return text + "<p>Nothing departs from the paper profile (docs/fidelity.md argues what the paper leaves open).</p>"


def _value(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(part)}" for name, part in value.items())
    if value is None:
        return "the data set's own"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def data_section(found: dict) -> str:
    """Counts of the LMDBs, what was skipped, and corrected labels."""
    if not found["data"]:
        folders = " ".join(f"{recipe.DATASETS[name].variable}=path" for name in recipe.DATASETS
                           if name in {step.dataset for step in recipe.STEPS.values()})
        return missing("No LMDB", f"make lmdb{option(found)} {folders}")
    rows, notes = [], []
    for entry in found["data"]:
        counts = ", ".join(f"{name.split('_', 1)[1]} {count:,}" for name, count in entry["images"].items()
                           if not name.endswith("_labels"))
        skipped = ", ".join(f"{count} {reason}" for reason, count in entry.get("skipped_reasons", {}).items()) or "none"
        corrected = ", ".join(f"{name}: {count}" for name, count in entry.get("corrected_labels", {}).items()) or "none"
        rows.append((entry["scheme"], recipe.DATASETS[entry["dataset"]].title, counts, skipped, corrected))
        notes += entry.get("notes", [])
    return table(("scheme", "data set", "faces", "skipped", "corrected labels"), rows) + "".join(
        f"<p>{escape(note)}</p>" for note in dict.fromkeys(notes))


def training_section(found: dict) -> str:
    """Curves of each step, and a line a training."""
    records = [record for record in found["trainings"] if record["number"] > 1]
    if not records:
        return missing("Nothing is trained", f"make step1{option(found)}, and on to step4")
    parts = []
    for number in (2, 3, 4):
        own = [record for record in records if record["number"] == number]
        if own:
            step = recipe.STEPS[number]
            parts.append(f"<h3>Step {number}: {escape(step.title)}</h3>" + curves(own))
    rows = [(record["number"], title(record), record["variant"] or "-", f"{record['iteration']:,}", base_lr(record),
             "-" if record["loss"] is None else f"{record['loss']:.4f}", percent(record["accuracy"]),
             duration(record.get("seconds") or 0), record.get("seed", "-")) for record in records]
    return "".join(parts) + "<h3>Every training</h3>" + table(
        ("step", "net", "variant", "iterations", "base_lr", "validation loss", "accuracy", "time", "seed"), rows,
        (0, 3, 4, 5, 6, 8))


def base_lr(record: dict) -> str:
    """The rate that a training began with, which may not be the recipe's."""
    rate = record.get("inputs", {}).get("solver's base_lr")
    return "-" if rate is None else f"{float(rate):.4g}"


def evaluation_section(found: dict) -> str:
    """Each evaluation's metrics and confusion."""
    if not found["evaluations"]:
        return missing("Nothing is evaluated yet", f"make evaluate{option(found)}")
    parts = []
    for evaluation in found["evaluations"]:
        rows = []
        for name, metrics in evaluation["metrics"].items():
            low, high = (f"{100 * value:.2f}" for value in metrics["interval"])
            paper = "-" if metrics["paper"] is None else f"{metrics['paper']:.2f} %"
            auc, ece = ("-" if metrics.get(key) is None else f"{metrics[key]:.4f}" for key in ("auc", "ece"))
            rows.append((name, f"{metrics['faces']:,}", metrics["missed"], percent(metrics["accuracy"]), f"{low} .. {high}",
                         paper, percent(metrics["majority_accuracy"]), percent(metrics["balanced_accuracy"]), auc, ece))
        parts.append(f"<h3>{escape(evaluation['protocol'][0].upper() + evaluation['protocol'][1:])}</h3>" + table(
            ("answers", "faces", "without a face", "accuracy", "95 % interval", "paper", "majority", "balanced", "AUC", "ECE"),
            rows, range(1, 10)))
        parts.append(f"<p>{escape(scores.MAJORITY_NOTE)}. Photos without a face "
                     f"{'count as wrong' if 'testing' in evaluation['protocol'] else 'are not counted'}.</p>")
        parts += [f'<p class="missing">Warning: {escape(name)}: {escape(text)}</p>'
                  for name, text in evaluation.get("warnings", {}).items()]
        for task in recipe.TASKS.values():
            confusion = evaluation["metrics"][task.name]["confusion"]
            parts.append(table((f"{task.name}: label", *(f"answered {name}" for name in task.classes)),
                               [(name, *row) for name, row in zip(task.classes, confusion)], (1, 2)))
        challenge = evaluation["challenge"]
        if challenge["images"]:
            parts.append(f"<p>Organizers' error: {challenge['sum']:.1f} over {challenge['images']:,} images; the paper's "
                         f"{recipe.CHALLENGE_ERROR} is such a sum in our reading (docs/fidelity.md).</p>")
    return "".join(parts)


def table_section(found: dict, number: int) -> str:
    """A table of the paper beside ours, its picture, and whether each ordering holds."""
    content = found["tables"][number]
    if content is None:
        return missing(f"Table {number} is not made yet", f"make table{number}{option(found)}")
    rows = [(row["task"], row["name"], *tables.paper_and_ours(row), f"{row['interval'][0]:.2f} .. {row['interval'][1]:.2f}",
             *tables.baseline(row))
            for row in content["rows"]]
    tests = [(item["task"], f"{item['better']} > {item['worse']}", f"+{item['paper']:.2f}", f"{item['difference']:+.2f}",
              f"{item['interval'][0]:+.2f} .. {item['interval'][1]:+.2f}",
              " ".join(f"{test['p']:.2g}" for test in item["tests"]), item["verdict"]) for item in content["orderings"]]
    facts = (f"<p>{100 * content['share']:g} % of the recipe's iterations, {escape(content['precision'])}, seeds "
             f"{', '.join(map(str, content['seeds']))}; {escape(tables.count_faces(content['rows']))}.</p>")
    facts += "".join(f'<p class="missing">Warning: {escape(row["task"])}, {escape(row["name"])}: {escape(row["warning"])}</p>'
                     for row in content["rows"] if row.get("warning"))
    image = ""
    if os.path.exists(found["pictures"][number]):
        with open(found["pictures"][number], "rb") as stream:
            data = base64.b64encode(stream.read()).decode()
        image = f'<img class="figure" alt="Table {number} as a picture" src="data:image/png;base64,{data}">'
    columns = ("task", "row", "paper", "ours", "difference", "95 % interval", "majority", "balanced")
    return (facts + table(columns, rows, range(2, 8)) + image
            + "<h3>The paper's orderings, on the same faces</h3>"
            + table(("task", "the paper says", "paper", "ours", "95 % interval", "McNemar's p", "holds?"), tests, range(2, 6)))


def crops_section(found: dict) -> str:
    """Validation faces drawn at random, a column a scheme."""
    if not found["faces"]:
        data_set = recipe.target()
        return missing(f"No LMDB of {data_set.title}", f"make lmdb{option(found)} {data_set.variable}=path CROP=all")
    schemes = [scheme for scheme in recipe.CROPS if any(scheme in crops for crops in found["faces"].values())]
    head = "".join(f"<th>{escape(scheme)}<br><small>{escape(recipe.CROPS[scheme].describes.split(':')[0])}</small></th>"
                   for scheme in schemes)
    rows = "".join("<tr>" + "".join(
        f"<td>{picture(crops[scheme], scheme) if scheme in crops else ''}</td>" for scheme in schemes) + "</tr>\n"
        for crops in found["faces"].values())
    return f'<div class="wide"><table class="crops"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def mistakes_section(found: dict) -> str:
    """The wrong answers with the highest probabilities, each with the widest crop that is there."""
    if not found["mistakes"]:
        return missing("Nothing is evaluated yet", f"make evaluate{option(found)}")
    parts = []
    for task, rows in found["mistakes"].items():
        classes, cards = recipe.TASKS[task].classes, []
        for row in rows:
            crops: Dict[str, object] = found["mistaken"][task].get(row["image"], {})
            image = next((picture(crops[scheme], row["image"]) for scheme in widest_first() if scheme in crops), "")
            cards.append(f'<figure>{image}<figcaption><b>{escape(classes[row["answer"]])}</b> {100 * row["probability"]:.1f} %'
                         f'<br>label: {escape(classes[row["label"]])}<br><small>{escape(row["image"])}</small>'
                         '</figcaption></figure>')
        parts.append(f'<h3>{escape(task.capitalize())}</h3><div class="faces">{"".join(cards) or "none"}</div>')
    return ("<p>Shown is the widest crop that is there; the nets see their own. The label may be the mistake: make suspects "
            "ranks those of training faces.</p>" + "".join(parts))


def provenance_section(found: dict) -> str:
    """Versions, and seed, precision, engine and sha256 of every weights file."""
    versions = sorted({", ".join(f"{name} {value}" for name, value in sorted(record.get("versions", {}).items()))
                       for record in found["trainings"]})
    rows = [(record["stem"], record.get("engine", "-"), record.get("precision", "-"), record.get("seed", "-"),
             record.get("sha256", "-")) for record in found["trainings"]]
    return "".join(f"<p>{escape(text)}</p>" for text in versions if text) + table(
        ("weights", "engine", "precision", "seed", "sha256"), rows)
