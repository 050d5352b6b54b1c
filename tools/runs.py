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

from tools import chain, child, fingerprints, jobs, outputs
from tools.metrics import Metrics, draw
from tools.progress import Progress, duration

KEPT_SNAPSHOTS = 2  # of a running step, unless told otherwise; when it is done, the newest and the best one stay
DRAW_SECONDS = 20.0  # between two drawings of the curve


# ---------------------------------------------------------------------------------------------- training
def train(row: chain.Row, interpreter, gpu: Optional[int] = None, force: bool = False, header=(), say=print,
          leader=None, keep: int = KEPT_SNAPSHOTS) -> bool:
    """Train a row unless its result stands; True when it was trained.

    Goes on from the newest whole snapshot of a run from the same inputs. `interpreter`: see tools/engine.py; `header`:
    lines for the log's head; `leader`: of the ranks that train together (tools/ranks.py); `keep`: how many of the newest
    snapshots stay while it runs. Raises chain.ChainError, and child.Stopped after SIGINT or SIGTERM.
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
    with _only_one(row) as lock:
        resume = None if force else chain.newest_snapshot(row, inputs, say)
        if resume:
            say(f"{row.title}: going on from iteration {resume['iteration']} ({resume['state']})")
            _remove_leftovers(row)
        else:
            _clear(row, inputs, say)
        _check_space(row)
        jobs.write(row, interpreter.module, solver, net, inputs, gpu, resume and resume["state"], leader)
        try:
            run = Run(row, solver, resume["iteration"] if resume else 0, say, keep)
            run.follow(interpreter, header, lock)
            _finish(row, run, solver, inputs, interpreter, leader, header)
        except OSError as error:  # of our own files: a full disk, a quota, a folder that has become read-only
            where = error.filename or row.folder
            raise chain.ChainError(f"{row.title}: {where}: {error.strerror}{child.kept(row)}") from error
    return True


class Run:
    """The process that trains, followed: its events become metrics, curve, progress bar and messages."""

    def __init__(self, row: chain.Row, solver, first: int, say, keep: int = KEPT_SNAPSHOTS):
        self.keep = keep
        self.row, self.say, self.max_iter = row, say, solver.max_iter
        self.title = f"{row.title} ({row.profile.name})"
        self.metrics = Metrics(row.path(os.path.join(row.folder, "metrics.csv")), resume=first)
        self.progress = Progress(row.title, solver.max_iter, first)
        self.began = time.monotonic()
        self.versions, self.test, self.drawn = {}, {}, 0.0

    def follow(self, interpreter, header=(), lock: Optional[int] = None):
        """Start the process and read its events to the end; `lock`: see child.run.

        Raises chain.ChainError or child.Stopped.
        """
        job = os.path.join(self.row.folder, "job.json")
        try:
            child.run(self.row, job, interpreter, header, self.event, self.say, lock)
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
            _prune(self.row, self.keep, self.best())
            if seconds - self.drawn > DRAW_SECONDS:
                self.drawn = seconds
                self.draw()
        elif kind == "warning":
            self.progress.say(f"{self.title}: {event['message']}")
        elif kind == "weights":
            self.progress.say(_filled(self.row, event))
        elif kind == "snapshot":
            _prune(self.row, self.keep, self.best())
        elif kind == "start":
            self.versions = event["versions"]

    def best(self) -> Optional[int]:
        """Iteration of the snapshot that did best in validation: highest accuracy, then lowest loss, then the newest."""
        there = {iteration for iteration, _ in chain.snapshots(self.row)}
        tested = [
            (row["val_accuracy"] or 0.0, -row["val_loss"], row["iteration"])
            for row in self.metrics.rows if row["iteration"] in there and row["val_loss"] is not None
        ]
        return max(tested)[2] if tested else None

    def draw(self):
        draw(self.metrics.rows, self.row.path(os.path.join(self.row.folder, "curve.png")), self.title)


# ---------------------------------------------------------------------------------------------- the end
def _finish(row: chain.Row, run: Run, solver, inputs: dict, interpreter, leader=None, header=()):
    """Put the final weights where the next step looks for them, with their record, whole or not at all."""
    final = f"{solver.snapshot_prefix}_iter_{solver.max_iter}.caffemodel"
    record = {
        "step": row.title, "iteration": solver.max_iter, "loss": run.test.get("loss"),
        "accuracy": run.test.get("accuracy"), "accuracies": run.test.get("accuracies"),
        "train_loss": run.metrics.last("train_loss"), "seconds": run.metrics.last("seconds"),
        "engine": run.versions.get("engine", interpreter.module), "versions": run.versions,
        "precision": row.precision, "ranks": leader.count if leader is not None else 1, "seed": solver.random_seed,
        "sha256": fingerprints.sha256_of(row.path(final)), "inputs": inputs, "best": _best_record(row, run),
        "batch": row.batch or row.profile.batch_size, "made_by": list(header),
    }
    place(row, final, record)
    outputs.write_json(row.path(os.path.join(row.folder, "run.json")),
                       {"inputs": inputs, "max_iter": solver.max_iter, "finished": True})
    _prune(row, 1, run.best())
    run.say(f"{row.title}: {row.weights_out}" + _numbers(record) + f" in {duration(record['seconds'] or 0)}")


def _best_record(row: chain.Row, run: Run) -> Optional[dict]:
    """The best snapshot in validation, for the step's record."""
    best = run.best()
    if best is None:
        return None
    found = next(line for line in run.metrics.rows if line["iteration"] == best and line["val_loss"] is not None)
    return {"iteration": best, "loss": found["val_loss"], "accuracy": found["val_accuracy"],
            "weights": f"{row.folder}/snapshot_iter_{best}.caffemodel"}


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
    outputs.write_json(target + ".json", record)


def _clear(row: chain.Row, inputs: dict, say):
    """Make room for a run from the start. A run from other inputs that was not finished is moved aside, not lost."""
    folder = row.path(row.folder)
    old = fingerprints.read_json(os.path.join(folder, "run.json"))
    snapshots = [path for start in ("", ".") for path in glob.glob(f"{glob.escape(folder)}/{start}snapshot_iter_*")]
    if old and not old.get("finished") and snapshots and fingerprints.differences(old["inputs"], inputs):
        aside = f"{row.folder}.{time.strftime('%Y%m%d-%H%M%S')}"
        say(f"{row.title}: the unfinished run from other inputs is now {aside}; it is not gone on with")
        os.rename(folder, row.path(aside))
        os.makedirs(folder)
        return
    for path in snapshots + [os.path.join(folder, name) for name in ("train.log", "metrics.csv", "curve.png")]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _remove_leftovers(row: chain.Row):
    """Remove what a killed process left of a snapshot that it was writing."""
    folder = glob.escape(row.path(row.folder))
    whole = {path[:-5] for _, path in chain.snapshots(row)}
    for path in glob.glob(f"{folder}/snapshot_iter_*") + glob.glob(f"{folder}/.snapshot_iter_*.tmp*"):
        if os.path.basename(path).startswith(".") or os.path.splitext(path)[0] not in whole:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def _prune(row: chain.Row, keep: int, best: Optional[int]):
    """Remove all snapshots but the newest `keep` and that of iteration `best`: at full size each takes 1 GB."""
    for iteration, mark in chain.snapshots(row)[:-keep]:
        if iteration == best:
            continue
        for path in (mark, mark[:-5] + ".solverstate", mark[:-5] + ".caffemodel"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


# ---------------------------------------------------------------------------------------------- small things
@contextlib.contextmanager
def _only_one(row: chain.Row):
    """Hold the run folder for this process, and for those that the file descriptor it yields is given to.

    Raises chain.ChainError where another one trains there.
    """
    import fcntl

    with open(row.path(row.folder) + ".lock", "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            who = f"process {stream.read().strip() or 'unknown'}, or one that it has started"
            raise chain.ChainError(
                f"{row.title}: another process trains in {row.folder} ({who}); wait or stop it") from None
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield stream.fileno()


def _check_space(row: chain.Row):
    """Raise chain.ChainError where the disk has no room for two more snapshots, of weights and momentum each."""
    if not row.weights_in:
        return
    needed = 4 * os.path.getsize(row.path(row.weights_in))
    free = shutil.disk_usage(row.path(row.folder)).free
    if free < needed:
        raise chain.ChainError(f"{row.title}: two snapshots in {row.folder} need about {needed / 1e9:.2f} GB, "
                               f"{free / 1e9:.2f} GB are free there: make room first")


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
