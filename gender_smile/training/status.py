"""How far each step of each net is: done, running, stopped or missing.

    from gender_smile.training import status
    print(status.table(status.collect(recipe.DEMO)))
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
from dataclasses import replace
from typing import Dict, List, Sequence

import recipe
from common import files
from common.progress import duration
from gender_smile.training import chain, metrics

SPEED_ROWS = 50  # of metrics.csv, the last ones, that tell a running step's speed


def collect(profile: recipe.Profile, root: str = recipe.ROOT) -> List[dict]:
    """One object a row of the chain, in order of nets and steps: those of the pipeline, others that were begun, variants.

    {"profile", "net", "step", "variant", "state", "iteration", "max_iter", "loss", "accuracy", "images_per_second",
    "seconds_left", "file", "command"}; state is "done", "running", "stopped" or "missing"; accuracy is a fraction; speed
    and time left are of a running step; what is not known is None. Only small files are read: the step itself checks
    whether its inputs are still the same.
    """
    entries = []
    for net in recipe.NETS:
        for step in recipe.STEPS:
            entry = describe(chain.Row(profile, net, step, root=root))
            if net in recipe.PIPELINE_NETS or (step > 2 and entry["state"] != "missing"):
                entries.append(entry)
    return entries + [entry for row in variants(profile, root) if (entry := describe(row))["state"] != "missing"]


def variants(profile: recipe.Profile, root: str = recipe.ROOT) -> list:
    """Rows of the variants that are trained or were begun, by name, net and step."""
    own: Dict[str, chain.Row] = {}
    for net in recipe.NETS:
        for step in (2, 3, 4):
            own.setdefault(os.path.basename(recipe.run_folder(profile.name, net, step)), chain.Row(profile, net, step, root=root))
    rows = {}
    for path in (*glob.glob(os.path.join(glob.escape(root), "weights", profile.name, "step*-*.caffemodel")),
                 *glob.glob(os.path.join(glob.escape(root), "runs", profile.name, "step*-*", "run.json"))):
        stem = os.path.basename(path if path.endswith(".caffemodel") else os.path.dirname(path))
        name, _, variant = re.sub(r"(\.caffemodel|\.new|\.old|\.\d{8}-\d{6}-*)$", "", stem).partition("-")
        if name in own and variant:
            row = replace(own[name], variant=variant)
            rows[variant, row.net, row.step] = row
    return [rows[key] for key in sorted(rows)]


def _max_iter(row):
    """Iterations by the recipe; None of a step 1 that adopts."""
    teacher = row.profile.teacher
    return teacher.max_iter if row.step == 1 and teacher is not None else row.profile.max_iter.get(row.step)


def describe(row) -> dict:
    """The object of one row (see collect)."""
    state, run = chain.state(row), chain.interrupted_run(row)
    entry = {
        "profile": row.profile.name, "net": row.net, "step": row.step, "variant": row.variant, "state": "missing",
        "iteration": None, "max_iter": row.max_iter or _max_iter(row), "loss": None, "accuracy": None,
        "images_per_second": None, "seconds_left": None, "command": row.command,
        "file": row.weights_out if os.path.exists(row.path(row.weights_out)) else None,
    }
    running = is_running(row)
    if running or run:
        place = run.row if run else chain.workplace(row)
        rows = metrics.read(row.path(os.path.join(place.folder, "metrics.csv")))
        job = files.read_json(row.path(os.path.join(place.folder, "run.json"))) or {}
        newest = rows[-1]["iteration"] if rows else 0
        entry.update(state="running" if running else "stopped", max_iter=job.get("max_iter", entry["max_iter"]),
                     iteration=newest if running or not run else run.iteration, loss=metrics.last(rows, "val_loss"),
                     accuracy=metrics.last(rows, "val_accuracy"), command=run.command if run and not running else None)
        if running:
            entry.update(_speed(rows, entry["max_iter"], job))
    elif state.kind == "done":
        record = state.record or {}
        entry.update(state="done", iteration=record.get("iteration"), loss=record.get("loss"),
                     accuracy=record.get("accuracy"), command=None)
    return entry


def _speed(rows: Sequence[metrics.Row], max_iter: int, job: dict) -> dict:
    """Speed and time left by the last rows of metrics.csv, tests included."""
    if not rows:
        return {}
    first, newest = ((row["iteration"] or 0.0, row["seconds"] or 0.0) for row in (rows[-SPEED_ROWS:][0], rows[-1]))
    iterations, seconds = newest[0] - first[0], newest[1] - first[1]
    if iterations <= 0 or seconds <= 0:
        return {}
    batch = (job.get("inputs") or {}).get("batch size")
    return {"seconds_left": round((max_iter - newest[0]) * seconds / iterations),
            "images_per_second": round(int(batch) * iterations / seconds, 1) if batch else None}


def is_running(row) -> bool:
    """True while a process trains the row."""
    try:
        with open(row.path(row.place) + ".lock") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for an instant, which a trainer that starts waits for
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def table(entries: Sequence[dict]) -> str:
    """The objects of `collect` as aligned text."""
    lines = [("profile", "net", "step", "state", "iteration", "loss", "accuracy", "file or next command")]
    for entry in entries:
        title = ", ".join(filter(None, (recipe.NETS[entry["net"]].title, entry["variant"])))
        iteration = f"{entry['iteration']:,}" if entry["iteration"] is not None else "-"
        if entry["state"] in ("running", "stopped"):
            iteration += f" of {entry['max_iter']:,}"
        loss = f"{entry['loss']:.4f}" if entry["loss"] is not None else "-"
        accuracy = f"{100 * entry['accuracy']:.2f} %" if entry["accuracy"] is not None else "-"
        last = entry["file"] if entry["state"] == "done" else entry["command"] or _pace(entry)
        lines.append((entry["profile"], title, str(entry["step"]), entry["state"], iteration, loss, accuracy, last))
    return files.align(lines)


def _pace(entry: dict) -> str:
    parts = [f"{entry['images_per_second']:g} images/s"] if entry["images_per_second"] else []
    return ", ".join(parts + ([f"{duration(entry['seconds_left'])} left"] if entry["seconds_left"] is not None else []))
