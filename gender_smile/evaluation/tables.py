"""Tables 2 and 3 as text, CSV and picture: the paper's numbers, ours, the difference, and what of it is chance."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import recipe
from common import files
from gender_smile.evaluation import significance
from common.files import align

TITLES = {2: "Table 2: training schemes, gender accuracy of GNet", 3: "Table 3: cropping schemes"}
PERCENT = 100.0


def write(table: int, cells: Dict[int, list], answers: Dict[tuple, Dict[int, dict]], facts: dict) -> Tuple[str, List[str]]:
    """(text, paths) of one table, written under runs/<profile>.

    cells: seed -> schemes.TableRow of all tables; answers: see tables.score; facts: {"profile", "seeds", "share",
    "precision"}, of which the text's head speaks.
    """
    own = [cell for cell in next(iter(cells.values())) if cell.table == table]
    rights = {cell.key: right_answers(answers[cell.key]) for cell in own}
    rows = [describe(cell, rights[cell.key]) for cell in own]
    orderings = compare_all(table, rights, {cell.key: cell.paper for cell in own})
    text = as_text(table, rows, orderings, facts)
    stem = f"runs/{facts['profile']}/table{table}"
    files.write_text(recipe.absolute(f"{stem}.txt"), text + "\n")
    _write_csv(f"{stem}.csv", [_flat(row) for row in rows])
    _write_csv(f"{stem}_orderings.csv", [_flat_ordering(ordering, facts["seeds"]) for ordering in orderings])
    weights: Dict[int, Dict[str, str]] = {}
    for cell in own:
        for seed, answer in answers[cell.key].items():
            weights.setdefault(seed, {}).update(answer["weights"])
    files.write_json(recipe.absolute(f"{stem}.json"),
                       {"table": table, **facts, "rows": rows, "orderings": orderings, "weights": weights})
    draw(table, rows, recipe.absolute(f"{stem}.png"), facts)
    return text, [f"{stem}.txt", f"{stem}.csv", f"{stem}_orderings.csv", f"{stem}.json", f"{stem}.png"]


# ---------------------------------------------------------------------------------------------- numbers
def right_answers(found: Dict[int, dict]) -> Dict[str, List[bool]]:
    """face -> for each seed, whether its answer is right."""
    return {name: [(answer["ones"][name] > 0.5) == bool(answer["labels"][name]) for answer in found.values()]
            for name in sorted(next(iter(found.values()))["labels"])}


def as_array(right: Dict[str, List[bool]], names: Sequence[str]):
    """Seeds x faces, bool, of the faces `names`."""
    import numpy as np

    return np.array([right[name] for name in names], bool).T


def describe(cell, right: Dict[str, List[bool]]) -> dict:
    """Numbers of a table's row: accuracy (mean over seeds), interval, difference; all in percent. "paper" and "difference"
    are None for a row of ours."""
    values = as_array(right, sorted(right))
    low, high = significance.bootstrap_interval(values)
    accuracy = PERCENT * float(values.mean())
    return {"name": cell.name, "task": cell.task, "paper": cell.paper, "accuracy": accuracy,
            "interval": [PERCENT * low, PERCENT * high],
            "difference": None if cell.paper is None else accuracy - cell.paper, "faces": values.shape[1],
            "accuracies": [PERCENT * float(seed.mean()) for seed in values]}


def compare_all(table: int, rights: Dict[tuple, Dict[str, List[bool]]], papers: Dict[tuple, float]) -> List[dict]:
    """Each of the paper's orderings in this table against ours, on the faces that both rows have; papers: its accuracies."""
    found = []
    for ordering in recipe.ORDERINGS:
        if ordering.table != table:
            continue
        better, worse = ((table, ordering.task, name) for name in (ordering.better, ordering.worse))
        names = sorted(set(rights[better]) & set(rights[worse]))
        result = significance.compare(as_array(rights[better], names), as_array(rights[worse], names))
        result.update(task=ordering.task, better=ordering.better, worse=ordering.worse, source=ordering.source,
                      faces=len(names), paper=papers[better] - papers[worse],
                      difference=PERCENT * result["difference"], interval=[PERCENT * x for x in result["interval"]])
        found.append(result)
    return found


# ---------------------------------------------------------------------------------------------- text
def as_text(table: int, rows: Sequence[dict], orderings: Sequence[dict], facts: dict) -> str:
    """The table and the orderings, aligned, with what was trained at the head."""
    lines = [("task", "row", "paper", "ours", "difference", "95 % interval", "each seed")]
    for row in rows:
        low, high = row["interval"]
        lines.append((row["task"], row["name"], *beside_paper(row), f"{low:.2f} .. {high:.2f}",
                      " ".join(f"{value:.2f}" for value in row["accuracies"])))
    tests = [("task", "the paper says", "paper", "ours", "95 % interval", "seeds", "McNemar's p of each seed", "holds?")]
    for item in orderings:
        low, high = item["interval"]
        tests.append((item["task"], f"{item['better']} > {item['worse']}", f"+{item['paper']:.2f}",
                      f"{item['difference']:+.2f}", f"{low:+.2f} .. {high:+.2f}", f"{item['wins']} of {len(item['tests'])}",
                      " ".join(f"{test['p']:.2g}" for test in item["tests"]), item["verdict"]))
    return "\n".join([TITLES[table], head(rows, facts), "", align(lines), "",
                      "The paper's orderings in ours, on the same faces (points of accuracy)", align(tests)])


def beside_paper(row: dict) -> Tuple[str, str, str]:
    """A row's paper, ours and difference as text, "-" where the paper has no number."""
    ours = f"{row['accuracy']:.2f} %"
    return ("-", ours, "-") if row["paper"] is None else (f"{row['paper']:.2f} %", ours, f"{row['difference']:+.2f}")


def head(rows: Sequence[dict], facts: dict) -> str:
    """What was trained and scored, in a few lines."""
    profile = recipe.PROFILES[facts["profile"]]
    seeds = ", ".join(map(str, facts["seeds"]))
    faces = " and ".join(f"{count:,}" for count in sorted({row["faces"] for row in rows}))
    lines = [f"profile {profile.name}, {PERCENT * facts['share']:g} % of the recipe's iterations, {facts['precision']}, "
             f"seed{'s' if len(facts['seeds']) > 1 else ''} {seeds}; {faces} validation faces of section 4's training phase",
             "interval: bootstrap over faces" + (" and seeds" if len(facts["seeds"]) > 1 else "")]
    if profile.name != recipe.PAPER.name:
        lines.append(f"The paper's nets see 224 pixels and start from VGG-Face; these are for {profile.why}.")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- files
def _flat(row: dict) -> dict:
    seeds = {f"accuracy_{number}": f"{value:.4f}" for number, value in enumerate(row["accuracies"], 1)}
    own = row["paper"] is None  # a row that the paper does not have
    return {"task": row["task"], "row": row["name"], "faces": row["faces"], "paper": "" if own else f"{row['paper']:.2f}",
            "accuracy": f"{row['accuracy']:.4f}", "difference": "" if own else f"{row['difference']:.4f}",
            "low": f"{row['interval'][0]:.4f}", "high": f"{row['interval'][1]:.4f}", **seeds}


def _flat_ordering(item: dict, seeds: Sequence[int]) -> dict:
    tests = {f"{name}_{seed}": value if name != "p" else f"{value:.6g}"
             for seed, test in zip(seeds, item["tests"])
             for name, value in (("better_only", test["first"]), ("worse_only", test["second"]), ("p", test["p"]))}
    return {"task": item["task"], "better": item["better"], "worse": item["worse"], "faces": item["faces"],
            "paper": f"{item['paper']:.2f}", "difference": f"{item['difference']:.4f}",
            "low": f"{item['interval'][0]:.4f}", "high": f"{item['interval'][1]:.4f}", "verdict": item["verdict"], **tests}


def _write_csv(path: str, rows: Sequence[dict]):
    files.write_csv(recipe.absolute(path), list(rows[0]), [list(row.values()) for row in rows])


# ---------------------------------------------------------------------------------------------- picture
def draw(table: int, rows: Sequence[dict], path: str, facts: dict):
    """A line a row: our accuracy with its interval and each seed's, and the paper's number; a panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ours, papers, gray = "#2e7d5b", "#d1495b", "#9aa5a1"
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    counts = [sum(row["task"] == task for row in rows) for task in tasks]
    figure = Figure(figsize=(8.0, 1.3 + 0.42 * sum(counts) + 0.4 * len(tasks)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, task in zip(panels, tasks):
        own = [row for row in rows if row["task"] == task]
        for y, row in enumerate(own):
            low, high = row["interval"]
            axes.plot([low, high], [y, y], color=ours, linewidth=2.2, solid_capstyle="round",
                      label="ours, 95 % interval" if y == 0 else None)
            axes.plot(row["accuracies"], [y] * len(row["accuracies"]), "|", color=gray, markersize=9,
                      label="ours, each seed" if y == 0 and len(row["accuracies"]) > 1 else None)
            axes.plot(row["accuracy"], y, "o", color=ours, markersize=7)
            if row["paper"] is not None:
                axes.plot(row["paper"], y, "D", color=papers, markersize=6, label="paper" if y == 0 else None)
        axes.set_yticks(range(len(own)), [row["name"] for row in own])
        axes.invert_yaxis()
        axes.margins(y=0.2)
        axes.set_xlabel(f"{task} accuracy, %")
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    panels[0].set_title(f"{TITLES[table]} ({facts['profile']})", loc="left", fontsize=11)
    with files.whole_file(path) as part:
        figure.savefig(part, format="png")
