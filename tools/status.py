"""Show how far each net's steps are: done, running, stopped or missing, with loss, accuracy and file, variants last.

    make status                                  # both profiles
    python tools/status.py --profile demo --json
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import glob
import json
import os
import re
from dataclasses import replace
from typing import Dict, List, Optional, Sequence

import recipe
from common import command, files


def collect(profile: recipe.Profile, root: str = recipe.ROOT) -> List[dict]:
    """One object a row of the chain, in order of nets and steps: those of the pipeline, others that were begun, variants.

    {"profile", "net", "step", "variant", "state", "iteration", "max_iter", "loss", "accuracy", "file", "command"}; state
    is "done", "running", "stopped" or "missing"; accuracy is a fraction; what is not known is None. Only small files are
    read: whether the inputs are still the same is found out by the step itself.
    """
    from gender_smile.training import chain

    found = []
    for net in recipe.NETS:
        for step in recipe.STEPS:
            entry = describe(chain.Row(profile, net, step, root=root))
            if net in recipe.PIPELINE_NETS or (step > 2 and entry["state"] != "missing"):
                found.append(entry)
    return found + [entry for row in variants(profile, root) if (entry := describe(row))["state"] != "missing"]


def variants(profile: recipe.Profile, root: str = recipe.ROOT) -> list:
    """Rows of the variants that are trained or were begun, by name, net and step."""
    from gender_smile.training import chain

    own: Dict[str, chain.Row] = {}
    for net in recipe.NETS:
        for step in (2, 3, 4):
            own.setdefault(os.path.basename(recipe.run_folder(profile.name, net, step)), chain.Row(profile, net, step, root=root))
    found = {}
    for path in (*glob.glob(os.path.join(glob.escape(root), "weights", profile.name, "step*-*.caffemodel")),
                 *glob.glob(os.path.join(glob.escape(root), "runs", profile.name, "step*-*", "run.json"))):
        stem = os.path.basename(path if path.endswith(".caffemodel") else os.path.dirname(path))
        name, _, variant = re.sub(r"(\.caffemodel|\.new|\.old|\.\d{8}-\d{6}-*)$", "", stem).partition("-")
        if name in own and variant:
            row = replace(own[name], variant=variant)
            found[variant, row.net, row.step] = row
    return [found[key] for key in sorted(found)]


def describe(row) -> dict:
    """The object of one row (see collect)."""
    from gender_smile.training import chain, metrics

    state, run = chain.state(row), chain.interrupted_run(row)
    entry = {
        "profile": row.profile.name, "net": row.net, "step": row.step, "variant": row.variant, "state": "missing",
        "iteration": None, "max_iter": row.max_iter or row.profile.max_iter.get(row.step), "loss": None, "accuracy": None,
        "file": row.weights_out if os.path.exists(row.path(row.weights_out)) else None, "command": row.command,
    }
    running = is_running(row)
    if running or run:
        place = run.row if run else chain.workplace(row)
        rows = metrics.read(row.path(os.path.join(place.folder, "metrics.csv")))
        job = files.read_json(row.path(os.path.join(place.folder, "run.json"))) or {}
        newest = rows[-1]["iteration"] if rows else 0
        entry.update(state="running" if running else "stopped", max_iter=job.get("max_iter", entry["max_iter"]),
                     iteration=newest if running or not run else run.iteration, loss=_last(rows, "val_loss"),
                     accuracy=_last(rows, "val_accuracy"), command=run.command if run and not running else None)
    elif state.kind == "done":
        record = state.record or {}
        entry.update(state="done", iteration=record.get("iteration"), loss=record.get("loss"),
                     accuracy=record.get("accuracy"), command=None)
    return entry


def is_running(row) -> bool:
    """True while a process trains the row."""
    import fcntl

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
        last = entry["file"] if entry["state"] == "done" else entry["command"] or ""
        lines.append((entry["profile"], title, str(entry["step"]), entry["state"], iteration, loss, accuracy, last))
    return files.align(lines)


def _last(rows, column: str) -> Optional[float]:
    return next((row[column] for row in reversed(rows) if row[column] is not None), None)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=sorted(recipe.PROFILES), help="only this one (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    return parser


def main(argv=None) -> int:
    options = get_parser().parse_args(argv)
    return command.run("status", lambda: show(options))


def show(options: argparse.Namespace) -> int:
    """main's work."""
    names = [options.profile] if options.profile else list(recipe.PROFILES)
    entries = [entry for name in names for entry in collect(recipe.PROFILES[name])]
    print(json.dumps(entries, indent=1) if options.json else table(entries))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
