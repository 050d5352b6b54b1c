"""Show how far each net's steps are: done, running, stopped or missing, with loss, accuracy and file.

    make status                                  # both profiles
    python tools/status.py --profile demo --json
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from tools import environment; environment.ensure()

import argparse
import json
import os
from typing import List, Optional, Sequence

import recipe
from tools import command


def collect(profile: recipe.Profile, root: str = recipe.ROOT) -> List[dict]:
    """One object a row of the chain, in order of nets and steps: those of the pipeline, and others that were begun.

    {"profile", "net", "step", "state", "iteration", "max_iter", "loss", "accuracy", "file", "command"}; state is
    "done", "running", "stopped" or "missing"; accuracy is a fraction; what is not known is None. Only small files are
    read: whether the inputs are still the same is found out by the step itself.
    """
    from tools import chain

    found = []
    for net in recipe.NETS:
        for step in recipe.STEPS:
            row = chain.Row(profile, net, step, root=root)
            entry = describe(row)
            if net in recipe.PIPELINE_NETS or (step > 2 and entry["state"] != "missing"):
                found.append(entry)
    return found


def describe(row) -> dict:
    """The object of one row (see collect)."""
    from tools import chain, fingerprints, metrics

    state = chain.state(row)
    entry = {
        "profile": row.profile.name, "net": row.net, "step": row.step, "state": "missing", "iteration": None,
        "max_iter": row.max_iter or row.profile.max_iter.get(row.step), "loss": None, "accuracy": None,
        "file": None, "command": row.command,
    }
    running = is_running(row)
    if running or state.kind == "interrupted":
        rows = metrics.read(row.path(os.path.join(row.folder, "metrics.csv")))
        run = fingerprints.read_json(row.path(os.path.join(row.folder, "run.json"))) or {}
        newest = rows[-1]["iteration"] if rows else 0
        entry.update(state="running" if running else "stopped", max_iter=run.get("max_iter", entry["max_iter"]),
                     iteration=newest if running else state.iteration,
                     loss=_last(rows, "val_loss"), accuracy=_last(rows, "val_accuracy"))
    elif state.kind == "done":
        record = state.record or {}
        entry.update(state="done", iteration=record.get("iteration"), loss=record.get("loss"),
                     accuracy=record.get("accuracy"), file=row.weights_out, command=None)
    return entry


def is_running(row) -> bool:
    """True while a process trains in the row's run folder."""
    import fcntl

    try:
        with open(row.path(row.folder) + ".lock") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def table(entries: Sequence[dict]) -> str:
    """The objects of `collect` as aligned text."""
    lines = [("profile", "net", "step", "state", "iteration", "loss", "accuracy", "file or next command")]
    for entry in entries:
        title = recipe.NETS[entry["net"]].title
        iteration = f"{entry['iteration']:,}" if entry["iteration"] is not None else "-"
        if entry["state"] in ("running", "stopped"):
            iteration += f" of {entry['max_iter']:,}"
        loss = f"{entry['loss']:.4f}" if entry["loss"] is not None else "-"
        accuracy = f"{100 * entry['accuracy']:.2f} %" if entry["accuracy"] is not None else "-"
        last = entry["file"] or ("" if entry["state"] == "running" else entry["command"])
        lines.append((entry["profile"], title, str(entry["step"]), entry["state"], iteration, loss, accuracy, last))
    return align(lines)


def align(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text with aligned columns."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


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
