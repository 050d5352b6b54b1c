"""Tables 2 and 3: what they need, the answers of their rows, and the tables as text, CSV, JSON and picture.

Each row: the paper's number, ours, the difference, an interval, and the majority baseline; each of the paper's orderings
with a paired test on the same faces.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import recipe
from common import files, palette
from gender_smile.evaluation import faces, scores
from gender_smile.inference.classifier import Classifier, PipelineError
from gender_smile.training import chain, fingerprints

TITLES = {2: "Table 2: training schemes, gender accuracy of GNet", 3: "Table 3: cropping schemes"}
PERCENT = 100.0


# ---------------------------------------------------------------------------------------------- before training
def check_inputs(rows: Sequence[chain.Row]) -> None:
    """Raise PipelineError that names everything that is missing for the trainings `rows`, and the commands that make it."""
    made = {row.weights_out for row in rows}
    problems: Dict[str, None] = {}
    lacking: Dict[str, Dict[str, str]] = {}  # crop -> name of an LMDB -> its data set
    for row in rows:
        absent = [path for path in row.databases.values() if not os.path.exists(row.path(os.path.join(path, "data.mdb")))]
        for path in absent:
            lacking.setdefault(recipe.NETS[row.net].crop, {})[os.path.basename(path)] = recipe.STEPS[row.step].dataset or ""
        try:
            if not absent:
                chain.check_inputs(replace(row, start="") if row.weights_in in made else row)
        except chain.ChainError as error:
            problems[str(error)] = None
    lines = [f"LMDBs of {crop}: {', '.join(names)}" for crop, names in lacking.items()]
    if lacking:
        crops = [crop for crop in recipe.CROPS if crop in lacking]
        folders = [f"{data_set.variable}=path" for name, data_set in recipe.DATASETS.items()
                   if any(name in names.values() for names in lacking.values())]
        crop = crops[0] if len(crops) == 1 else f"\"{' '.join(crops)}\""
        lines.append(f"make lmdb CROP={crop} PROFILE={rows[0].profile.name} {' '.join(folders)}")
    lines += problems
    if lines:
        raise PipelineError("inputs are missing, so no training was started:\n  " + "\n  ".join(lines))


# ---------------------------------------------------------------------------------------------- answers
def answer(cells: Dict[int, list], caffe: Callable[[], Any], module: str) -> Dict[tuple, Dict[int, dict]]:
    """The answers of every table row: key -> seed -> {"labels": face -> 0 or 1, "p_positive": face -> probability of class
    1, "missed": number of photos without a face, "weights": file -> sha256}.

    cells: seed -> schemes.TableRow of all tables; caffe(): the engine's module, of the name `module`. Raises
    faces.EvaluationError where a net's faces are not those of its manifest, or not the same in an ensemble.
    """
    answered: Dict[str, dict] = {}  # rows of both tables share nets
    answers: Dict[tuple, Dict[int, dict]] = {}
    for seed, rows in cells.items():
        for cell in rows:
            for row in cell.finals:
                if row.weights_out not in answered:
                    answered[row.weights_out] = _answer_row(row, caffe, module)
            nets = [answered[row.weights_out] for row in cell.finals]
            for row, net in zip(cell.finals[1:], nets[1:]):
                faces.check_same(cell.finals[0].net, nets[0]["labels"], row.net, net["labels"])
            folder = cell.finals[0].path(cell.finals[0].databases["val"])
            answers.setdefault(cell.key, {})[seed] = {
                "labels": nets[0]["labels"], "p_positive": scores.mean_probability([net["p_positive"] for net in nets]),
                "missed": len(faces.photos_without_face(folder, nets[0]["labels"])),
                "weights": {row.weights_out: net["inputs"]["weights"] for row, net in zip(cell.finals, nets)}}
    return answers


def _answer_row(row: chain.Row, caffe: Callable[[], Any], module: str) -> dict:
    """{"inputs", "labels", "p_positive"} of a trained step 4 on its validation faces, stored in its run folder as faces.json
    and read from there while weights, faces and engine are the same."""
    weights, folder = row.path(row.weights_out), row.path(row.databases["val"])
    if not os.path.exists(weights):
        raise PipelineError(f"{row.weights_out} is missing: leave out --report")
    if not os.path.exists(os.path.join(folder, "data.mdb")):
        raise PipelineError(f"{row.databases['val']} is missing: make lmdb CROP={recipe.NETS[row.net].crop} "
                            f"PROFILE={row.profile.name} {recipe.target().variable}=path")
    inputs = {"weights": files.sha256_of(weights), "faces": fingerprints.database_fingerprint(folder), "engine": module}
    path = row.path(os.path.join(row.folder, "faces.json"))
    stored = files.read_json(path)
    if stored and stored.get("inputs") == inputs and "p_positive" in stored:
        return stored
    labels, p_positive = faces.answer_lmdb(Classifier(caffe(), row.profile.name, row.net, row.weights_out), folder)
    result = {"inputs": inputs, "labels": labels, "p_positive": p_positive}
    files.write_json(path, result)
    return result


# ---------------------------------------------------------------------------------------------- numbers
def write(table: int, cells: Dict[int, list], answers: Dict[tuple, Dict[int, dict]], facts: dict) -> Tuple[str, List[str]]:
    """(text, paths) of one table, written under runs/<profile>.

    cells and answers: see `answer`; facts: {"profile", "seeds", "share", "precision"}, for the text's head.
    """
    own = [cell for cell in next(iter(cells.values())) if cell.table == table]
    rights = {cell.key: _right_by_face(answers[cell.key]) for cell in own}
    rows = [describe(cell, answers[cell.key]) for cell in own]
    orderings = compare_all(table, rights, {cell.key: cell.paper for cell in own})
    text = as_text(table, rows, orderings, facts)
    stem = f"runs/{facts['profile']}/table{table}"
    files.write_text(recipe.absolute(f"{stem}.txt"), text + "\n")
    _write_csv(f"{stem}.csv", [_csv_row(row) for row in rows])
    _write_csv(f"{stem}_orderings.csv", [_csv_ordering(ordering, facts["seeds"]) for ordering in orderings])
    weights: Dict[int, Dict[str, str]] = {}
    for cell in own:
        for seed, of_seed in answers[cell.key].items():
            weights.setdefault(seed, {}).update(of_seed["weights"])
    files.write_json(recipe.absolute(f"{stem}.json"),
                     {"table": table, **facts, "rows": rows, "orderings": orderings, "weights": weights})
    draw(table, rows, recipe.absolute(f"{stem}.png"), facts)
    return text, [f"{stem}.txt", f"{stem}.csv", f"{stem}_orderings.csv", f"{stem}.json", f"{stem}.png"]


def _right_by_face(answers: Dict[int, dict]) -> Dict[str, List[bool]]:
    """face -> for each seed, whether its answer is right."""
    by_seed = [scores.right_answers(of_seed["labels"], of_seed["p_positive"]) for of_seed in answers.values()]
    return {name: [right[name] for right in by_seed] for name in sorted(by_seed[0])}


def _as_array(right: Dict[str, List[bool]], names: Sequence[str]):
    """Seeds x faces, bool, of the faces `names`."""
    import numpy as np

    return np.array([right[name] for name in names], bool).T


def describe(cell, answers: Dict[int, dict]) -> dict:
    """Numbers of a table's row over the collected faces (scores.score of each seed, then the mean over seeds), in percent.

    "paper" and "difference" are None for a row of ours, "majority" and "balanced_accuracy" where scores has none;
    "missed": photos without a face, which are not counted; "warning": why the accuracy shows nothing learned, or "".
    """
    by_seed = [scores.score(of_seed["labels"], of_seed["p_positive"]) for of_seed in answers.values()]
    first = by_seed[0]
    right = _right_by_face(answers)
    low, high = scores.bootstrap_interval(_as_array(right, list(right)))
    accuracies = [PERCENT * metrics["accuracy"] for metrics in by_seed]
    accuracy = sum(accuracies) / len(accuracies)
    balanced = [metrics["balanced_accuracy"] for metrics in by_seed]
    return {"name": cell.name, "task": cell.task, "paper": cell.paper, "accuracy": accuracy,
            "interval": [PERCENT * low, PERCENT * high],
            "difference": None if cell.paper is None else accuracy - cell.paper,
            "faces": first["faces"], "missed": next(iter(answers.values()))["missed"],
            "majority_answer": recipe.TASKS[cell.task].classes[first["majority_class"]],
            "majority": PERCENT * first["majority_accuracy"],
            "balanced_accuracy": None if None in balanced else PERCENT * sum(balanced) / len(balanced),
            "accuracies": accuracies, "warning": _warning(by_seed, recipe.TASKS[cell.task].classes)}


def _warning(by_seed: Sequence[dict], classes: Sequence[str]) -> str:
    found = [text for metrics in by_seed if (text := scores.warning(metrics, classes))]
    if not found:
        return ""
    return " or ".join(dict.fromkeys(found)) + (f" ({len(found)} of {len(by_seed)} seeds)" if len(by_seed) > 1 else "")


def compare_all(table: int, rights: Dict[tuple, Dict[str, List[bool]]], papers: Dict[tuple, float]) -> List[dict]:
    """Each of the paper's orderings in this table against ours, on the faces that both rows have; papers: its accuracies."""
    results = []
    for ordering in recipe.ORDERINGS:
        if ordering.table != table:
            continue
        better, worse = ((table, ordering.task, name) for name in (ordering.better, ordering.worse))
        names = sorted(set(rights[better]) & set(rights[worse]))
        result = scores.compare(_as_array(rights[better], names), _as_array(rights[worse], names))
        result.update(task=ordering.task, better=ordering.better, worse=ordering.worse, source=ordering.source,
                      faces=len(names), paper=papers[better] - papers[worse],
                      difference=PERCENT * result["difference"], interval=[PERCENT * x for x in result["interval"]])
        results.append(result)
    return results


# ---------------------------------------------------------------------------------------------- text
def as_text(table: int, rows: Sequence[dict], orderings: Sequence[dict], facts: dict) -> str:
    """The table and the orderings, aligned, with what was trained at the head."""
    lines = [("task", "row", "paper", "ours", "difference", "95 % interval", "majority", "balanced")]
    for row in rows:
        low, high = row["interval"]
        lines.append((row["task"], row["name"], *paper_and_ours(row), f"{low:.2f} .. {high:.2f}", *baseline(row)))
    by_seed = [("task", "row", "each seed, %")]
    by_seed += [(row["task"], row["name"], " ".join(f"{value:.2f}" for value in row["accuracies"])) for row in rows]
    tests = []
    for item in orderings:
        low, high = item["interval"]
        p = " ".join(f"{test['p']:.2g}" for test in item["tests"])
        tests += [f"{item['task']}: {item['better']} > {item['worse']}: {item['verdict']}",
                  f"    paper +{item['paper']:.2f}, ours {item['difference']:+.2f} ({low:+.2f} .. {high:+.2f}), "
                  f"{item['wins']} of {len(item['tests'])} seeds; p {p}"]
    warnings = [f"Warning: {row['task']}, {row['name']}: {row['warning']}" for row in rows if row["warning"]]
    seeds = ["", files.align(by_seed)] if len(facts["seeds"]) > 1 else []
    return "\n".join([TITLES[table], head(rows, facts), "", files.align(lines), *seeds, "", scores.MAJORITY_NOTE, *warnings, "",
                      "Do the paper's orderings hold? On the same faces; points of accuracy, McNemar's p of each seed", *tests])


def paper_and_ours(row: dict) -> Tuple[str, str, str]:
    """A row's paper, ours and difference as text, "-" where the paper has no number."""
    ours = f"{row['accuracy']:.2f} %"
    return ("-", ours, "-") if row["paper"] is None else (f"{row['paper']:.2f} %", ours, f"{row['difference']:+.2f}")


def baseline(row: dict) -> Tuple[str, str]:
    """A row's majority and balanced accuracy as text; "-" for a balanced accuracy of faces of one class."""
    balanced = row["balanced_accuracy"]
    return f"{row['majority']:.2f} %", "-" if balanced is None else f"{balanced:.2f} %"


def head(rows: Sequence[dict], facts: dict) -> str:
    """What was trained and scored, in a few lines."""
    profile = recipe.PROFILES[facts["profile"]]
    seeds = ", ".join(map(str, facts["seeds"]))
    lines = [f"profile {profile.name}, {PERCENT * facts['share']:g} % of the recipe's iterations, {facts['precision']}, "
             f"seed{'s' if len(facts['seeds']) > 1 else ''} {seeds}",
             count_faces(rows), "interval: bootstrap over faces" + (" and seeds" if len(facts["seeds"]) > 1 else "")]
    if profile.name != recipe.PAPER.name:
        lines += textwrap.wrap(f"The paper's nets see 224 pixels and start from VGG-Face; these are for {profile.why}.", 100)
    return "\n".join(lines)


def count_faces(rows: Sequence[dict]) -> str:
    """Like "28 validation faces of section 4's training phase (2 photos without a face, not counted)"."""
    counts = " and ".join(f"{count:,}" for count in sorted({row["faces"] for row in rows}))
    missed = " and ".join(f"{count:,}" for count in sorted({row.get("missed", 0) for row in rows}))
    return f"{counts} validation faces of section 4's training phase (photos without a face, not counted: {missed})"


# ---------------------------------------------------------------------------------------------- files
def _csv_row(row: dict) -> dict:
    seeds = {f"accuracy_{number}": f"{value:.4f}" for number, value in enumerate(row["accuracies"], 1)}
    return {"task": row["task"], "row": row["name"], "faces": row["faces"], "missed": row["missed"],
            "paper": _number(row["paper"], 2), "accuracy": _number(row["accuracy"]), "difference": _number(row["difference"]),
            "low": _number(row["interval"][0]), "high": _number(row["interval"][1]),
            "majority_answer": row["majority_answer"], "majority": _number(row["majority"]),
            "balanced_accuracy": _number(row["balanced_accuracy"]), **seeds, "warning": row["warning"]}


def _csv_ordering(item: dict, seeds: Sequence[int]) -> dict:
    tests = {f"{name}_{seed}": value if name != "p" else f"{value:.6g}"
             for seed, test in zip(seeds, item["tests"])
             for name, value in (("better_only", test["first"]), ("worse_only", test["second"]), ("p", test["p"]))}
    return {"task": item["task"], "better": item["better"], "worse": item["worse"], "faces": item["faces"],
            "paper": _number(item["paper"], 2), "difference": _number(item["difference"]),
            "low": _number(item["interval"][0]), "high": _number(item["interval"][1]), "verdict": item["verdict"], **tests}


def _number(value: Optional[float], digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _write_csv(path: str, rows: Sequence[dict]) -> None:
    files.write_csv(recipe.absolute(path), list(rows[0]), [list(row.values()) for row in rows])


# ---------------------------------------------------------------------------------------------- picture
def draw(table: int, rows: Sequence[dict], path: str, facts: dict):
    """A line a row: our accuracy with its interval and each seed's, and the paper's number; a panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    counts = [sum(row["task"] == task for row in rows) for task in tasks]
    figure = Figure(figsize=(8.0, 1.3 + 0.42 * sum(counts) + 0.4 * len(tasks)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, task in zip(panels, tasks):
        own = [row for row in rows if row["task"] == task]
        for y, row in enumerate(own):
            low, high = row["interval"]
            if row["majority"] is not None:
                axes.vlines(row["majority"], y - 0.35, y + 0.35, color=palette.GRAY, linewidth=1.6, linestyles="dotted",
                            label="always the more common answer" if y == 0 else None)
            axes.plot([low, high], [y, y], color=palette.OURS, linewidth=2.2, solid_capstyle="round",
                      label="ours, 95 % interval" if y == 0 else None)
            axes.plot(row["accuracies"], [y] * len(row["accuracies"]), "|", color=palette.GRAY, markersize=9,
                      label="ours, each seed" if y == 0 and len(row["accuracies"]) > 1 else None)
            axes.plot(row["accuracy"], y, "o", color=palette.OURS, markersize=7)
            if row["paper"] is not None:
                axes.plot(row["paper"], y, "D", color=palette.PAPER, markeredgecolor="black", markeredgewidth=0.6,
                          markersize=6, label="paper" if y == 0 else None)
        axes.set_yticks(range(len(own)), [row["name"] for row in own])
        axes.invert_yaxis()
        axes.margins(y=0.2)
        axes.set_xlabel(f"{task} accuracy, %")
        axes.grid(axis="x", color=palette.GRID, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4, fontsize=8.5)
    panels[0].set_title(f"{TITLES[table]} ({facts['profile']})", loc="left", fontsize=11)
    with files.whole_file(path) as part:
        figure.savefig(part, format="png")
