"""A run: one row of the chain being trained, in its folder under runs/.

    from tools import chain, engine, runs
    runs.train(chain.Row(recipe.DEMO, "gnet", 4), engine.interpreter("torch"))

The folder holds net.prototxt and solver.prototxt (copies with the row's overrides), job.json (what tools/solve.py is
asked to do), run.json (from which inputs), train.log, metrics.csv, curve.png and the newest snapshots. All paths in
these files are relative to the project's folder, where the training runs: a moved project goes on.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from typing import Optional

from tools import chain, child, fingerprints, jobs
from tools.metrics import Metrics, draw
from tools.progress import Progress, duration

KEPT_SNAPSHOTS = 2  # of a running step; the newest one stays when it is done
DRAW_SECONDS = 20.0  # between two drawings of the curve


# ---------------------------------------------------------------------------------------------- training
def train(row: chain.Row, interpreter, gpu: Optional[int] = None, force: bool = False, header=(), say=print,
          leader=None) -> bool:
    """Train a row unless its result stands; True when it was trained.

    Goes on from the newest whole snapshot of a run from the same inputs. `interpreter`: see tools/engine.py; `header`:
    lines for the log's head; `leader`: of the ranks that train together (tools/ranks.py). Raises chain.ChainError, and
    child.Stopped after SIGINT or SIGTERM.
    """
    chain.check_inputs(row)
    solver, net = jobs.definitions(row)
    if leader is not None:
        leader.check(row, net)
    inputs = chain.fingerprints(row, solver, net)
    state = chain.state(row, inputs)
    if state.kind == "done" and not force:
        say(f"{row.title}: done, {row.weights_out}" + _numbers(state.record) + "; FORCE=1 does it again")
        return False
    for change in state.changes:
        say(f"{row.title}: {change}")
    os.makedirs(row.path(row.folder), exist_ok=True)
    with _only_one(row):
        resume = None if force else chain.newest_snapshot(row, inputs)
        if resume:
            say(f"{row.title}: going on from iteration {resume['iteration']} ({resume['state']})")
        else:
            _clear(row, inputs, say)
        jobs.write(row, interpreter.module, solver, net, inputs, gpu, resume and resume["state"], leader)
        run = Run(row, solver, resume["iteration"] if resume else 0, say)
        run.follow(interpreter, header)
        _finish(row, run, solver, inputs, interpreter, leader)
    return True


class Run:
    """The process that trains, followed: its events become metrics, curve, progress bar and messages."""

    def __init__(self, row: chain.Row, solver, first: int, say):
        self.row, self.say, self.max_iter = row, say, solver.max_iter
        self.title = f"{row.title} ({row.profile.name})"
        self.metrics = Metrics(row.path(os.path.join(row.folder, "metrics.csv")), resume=first)
        self.progress = Progress(row.title, solver.max_iter, first)
        self.began = time.monotonic()
        self.versions, self.test, self.drawn = {}, {}, 0.0

    def follow(self, interpreter, header=()):
        """Start the process and read its events to the end. Raises chain.ChainError or child.Stopped."""
        job = os.path.join(self.row.folder, "job.json")
        try:
            child.run(self.row, job, interpreter, header, self.event, self.say)
        finally:
            self.progress.close()
            self.metrics.close()
            self.draw()

    def event(self, event: dict):
        """Take one event of tools/solve.py."""
        kind, seconds = event["event"], time.monotonic() - self.began
        if kind == "step":
            self.progress.step(event["iteration"], event["loss"])
            if event["row"]:
                self.metrics.add(event["iteration"], seconds, train_loss=event["mean_loss"],
                                 learning_rate=event["rate"])
        elif kind == "test":
            self.test = event
            self.progress.test(event["iteration"], event["loss"], event["accuracy"])
            self.metrics.add(event["iteration"], seconds, val_loss=event["loss"], val_accuracy=event["accuracy"])
            if seconds - self.drawn > DRAW_SECONDS:
                self.drawn = seconds
                self.draw()
        elif kind == "weights":
            self.progress.say(_filled(self.row, event))
        elif kind == "snapshot":
            _prune(self.row, KEPT_SNAPSHOTS)
        elif kind == "start":
            self.versions = event["versions"]

    def draw(self):
        draw(self.metrics.rows, self.row.path(os.path.join(self.row.folder, "curve.png")), self.title)


# ---------------------------------------------------------------------------------------------- the end
def _finish(row: chain.Row, run: Run, solver, inputs: dict, interpreter, leader=None):
    """Put the final weights where the next step looks for them, with their record, whole or not at all."""
    final = f"{solver.snapshot_prefix}_iter_{solver.max_iter}.caffemodel"
    record = {
        "step": row.title, "iteration": solver.max_iter, "loss": run.test.get("loss"),
        "accuracy": run.test.get("accuracy"), "accuracies": run.test.get("accuracies"),
        "train_loss": run.metrics.last("train_loss"), "seconds": run.metrics.last("seconds"),
        "engine": run.versions.get("engine", interpreter.module), "versions": run.versions,
        "precision": row.precision, "ranks": leader.count if leader is not None else 1, "seed": solver.random_seed,
        "sha256": fingerprints.sha256_of(row.path(final)), "inputs": inputs,
    }
    place(row, final, record)
    fingerprints.write_json(row.path(os.path.join(row.folder, "run.json")),
                     {"inputs": inputs, "max_iter": solver.max_iter, "finished": True})
    _prune(row, 1)
    run.say(f"{row.title}: {row.weights_out}" + _numbers(record) + f" in {duration(record['seconds'] or 0)}")


def place(row: chain.Row, weights: str, record: dict):
    """Copy `weights` to the row's declared output, then write its record."""
    target = row.path(row.weights_out)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = target + ".part"
    shutil.copyfile(row.path(weights), part)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    with contextlib.suppress(FileNotFoundError):
        os.remove(target + ".json")  # never a record of other weights beside the new ones
    os.replace(part, target)
    fingerprints.write_json(target + ".json", record)


def _clear(row: chain.Row, inputs: dict, say):
    """Make room for a run from the start. A run from other inputs that was not finished is moved aside, not lost."""
    folder = row.path(row.folder)
    old = fingerprints.read_json(os.path.join(folder, "run.json"))
    snapshots = glob.glob(glob.escape(folder) + "/snapshot_iter_*")
    if old and not old.get("finished") and snapshots and fingerprints.differences(old["inputs"], inputs):
        aside = f"{row.folder}.{time.strftime('%Y%m%d-%H%M%S')}"
        say(f"{row.title}: the unfinished run from other inputs is now {aside}; it is not gone on with")
        os.rename(folder, row.path(aside))
        os.makedirs(folder)
        return
    for path in snapshots + [os.path.join(folder, name) for name in ("train.log", "metrics.csv", "curve.png")]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _prune(row: chain.Row, keep: int):
    """Remove all snapshots but the newest `keep` whole ones: at full size each takes 1 GB."""
    marks = glob.glob(glob.escape(row.path(row.folder)) + "/snapshot_iter_*.json")
    marks.sort(key=lambda path: int(path.rsplit("_", 1)[1].split(".")[0]))
    for mark in marks[:-keep]:
        for path in (mark, mark[:-5] + ".solverstate", mark[:-5] + ".caffemodel"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


# ---------------------------------------------------------------------------------------------- small things
@contextlib.contextmanager
def _only_one(row: chain.Row):
    """Hold the run folder for this process. Raises chain.ChainError where another one trains there."""
    import fcntl

    with open(row.path(row.folder) + ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise chain.ChainError(f"{row.title}: another process trains in {row.folder}; wait or stop it") from None
        yield


def _numbers(record: Optional[dict]) -> str:
    if not record:
        return " (no record beside it)"
    text = f", iteration {record['iteration']}"
    if record.get("loss") is not None:
        text += f", validation loss {record['loss']:.4f}"
    if record.get("accuracy") is not None:
        text += f", accuracy {100 * record['accuracy']:.2f} %"
    return text


def _filled(row: chain.Row, event: dict) -> str:
    """Report of what the weights filled, layer by layer."""
    lines = [f"{row.title}: {len(event['copied'])} layers from {event['file']}: {' '.join(event['copied'])}"]
    if event["left"]:
        lines.append(f"    new, from fillers: {' '.join(event['left'])}")
    if event["ignored"]:
        lines.append(f"    in the file only: {' '.join(event['ignored'])}")
    return "\n".join(lines)
