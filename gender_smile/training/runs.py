"""Train one row of the chain: write the run's folder, start solve.py, follow its events, keep snapshots and the result.

    from common import engine; from gender_smile.training import chain, runs
    runs.train(chain.Row(recipe.DEMO, "gnet", 4), engine.interpreter("torch"))

The folder, under runs/, holds net.prototxt and solver.prototxt (copies with the row's overrides), job.json (what solve.py
does), run.json (the run's inputs), train.log, metrics.csv, curve.png and the newest snapshots. All paths in these files
are relative to the project's folder, where the training runs, so a moved project resumes. A forced run trains in
<folder>.new, and takes the place of what it replaces when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import replace
from typing import Callable, Iterator, Optional, Tuple

from common import files
from gender_smile.training import chain, fingerprints, origin, process, run_files
from gender_smile.training.metrics import Metrics, draw, last
from common.progress import Progress, duration
from torchcaffe.solvers.snapshots import find_files, snapshot_paths

KEPT_SNAPSHOTS = 2  # of a running step unless told otherwise; when it is done, the newest and the best one stay
DRAW_SECONDS = 20.0  # between two drawings of the curve
LOCK_SECONDS = 1.0  # to wait for one who only looks whether a run is going on


# ---------------------------------------------------------------------------------------------- training
def train(row: chain.Row, interpreter, gpu: Optional[int] = None, force: bool = False, header=(), say=print,
          leader=None, keep: int = KEPT_SNAPSHOTS, deterministic: bool = False, passes: Optional[int] = None,
          compiles: Optional[bool] = None) -> bool:
    """Train a row unless its result stands; True when it was trained.

    Resumes from the newest whole snapshot of a run from the same inputs. A result of other inputs is never replaced
    unless `force` is given, and then only once the new one is complete. `interpreter`: see common/engine.py; `header`:
    first lines of the log; `leader`: ranks.Leader where several processes train; `keep`: how many of the newest
    snapshots stay while it runs; `deterministic`: torchcaffe's set_deterministic(), which is no input of the result: it
    only lets a GPU repeat it; `passes`: how many each iteration takes, for a batch that memory does not hold at once;
    `compiles`: whether by torchcaffe's set_compile(), None: on a GPU.
    Raises chain.ChainError, and process.Stopped after SIGINT or SIGTERM.
    """
    chain.check_inputs(row)
    with only_one(row) as lock:
        solver, net = run_files.definitions(row, passes)
        if leader is not None:
            leader.check(row, net)
        inputs = fingerprints.fingerprints(row, solver, net)
        tidy(row)
        if not force and _stands(row, inputs, say):
            return False
        chain.check_start(row)
        row, resume = _make_room(row, inputs, force, say)
        try:
            run_files.place_solver(row, solver)
            run_files.write_files(row, interpreter.module, solver, net, inputs, gpu, resume and resume["state"], leader,
                        deterministic, passes, compiles)
            run = Run(row, solver, resume["iteration"] if resume else 0, say, keep)
            run.follow(interpreter, header, lock)
            _finish(row, run, solver, inputs, interpreter, leader, header, deterministic)
        except OSError as error:  # a full disk, a quota, a folder that has become read-only
            where = error.filename or row.folder
            raise chain.ChainError(f"{row.title}: {where}: {error.strerror}{process.kept(row)}") from error
    return True


def _stands(row: chain.Row, inputs: dict, say) -> bool:
    """True where the row is done; False where it is to be trained or resumed.

    Raises chain.ChainError where that would cost a result of other inputs, or a run from others that was interrupted.
    """
    state, run = chain.state(row, inputs), chain.interrupted_run(row)
    other = run.changes(inputs) if run else ()
    if run and other:
        say(f"{row.title}: a run of other settings was interrupted at iteration {run.iteration:,} ({run.row.folder}: "
            f"{'; '.join(other)}); it resumes with: {run.command}")
    if state.kind == "changed":
        raise chain.ChainError(refusal(row, state))
    if state.kind == "interrupted" and other:
        raise chain.ChainError(f"{row.title}: {run.row.folder} holds that interrupted run; resume it, or type FORCE=1 to start "
                               "from iteration 0 (the interrupted run is kept beside), or take another name: VARIANT=name")
    if state.kind != "done":
        return False
    say(f"{row.title}: done, {row.weights_out}" + _numbers(state.record) + "; FORCE=1 does it again")
    for line in _remarks(row, state.record):
        say(f"{row.title}: {line}")
    return True


def refusal(row: chain.Row, state: chain.State) -> str:
    """Why a finished step is not trained with other settings, and what to type."""
    changes = [change + (f" (compare {row.place}/net.prototxt with {row.definition})" if change.startswith("net has") else "")
               for change in state.changes]
    return (f"{row.title}: {row.weights_out} is finished, with other settings: {'; '.join(changes)}. To keep it, train under "
            f"another name: VARIANT=name (--variant). To replace it once the new one is complete: {row.command} FORCE=1 "
            "(--force)")


def _remarks(row: chain.Row, record: Optional[dict]) -> Iterator[str]:
    """What to know of a result that stands."""
    if record and "validation" in record and record["validation"] != fingerprints.validation(row):
        yield "the validation faces have changed since; loss and accuracy are those of the former ones"


def _make_room(row: chain.Row, inputs: dict, force: bool, say) -> Tuple[chain.Row, Optional[dict]]:
    """(the row as it trains, the snapshot to resume from or None), with its folder ready."""
    place, run = chain.unfinished(row), chain.interrupted_run(row)
    other = force or (run is not None and bool(run.changes(inputs)))
    if place and not other:
        resume = chain.newest_snapshot(place, say)
        if resume:
            say(f"{row.title}: resumes from iteration {resume['iteration']} ({resume['state']})")
            _remove_leftovers(place)
            _check_space(place)
            return place, resume
    if run and other:
        _put_aside(run, say)
    row = chain.workplace(row)
    os.makedirs(row.path(row.folder), exist_ok=True)
    _clear(row)
    _check_space(row)
    return row, None


# ---------------------------------------------------------------------------------------------- following it
class Run:
    """The process that trains, followed: its events become metrics, curve, progress bar and messages."""

    def __init__(self, row: chain.Row, solver, first: int, say, keep: int = KEPT_SNAPSHOTS):
        self.keep = keep
        self.row, self.say, self.max_iter = row, say, solver.max_iter
        self.title = f"{row.title} ({row.profile.name})"
        self.metrics = Metrics(row.path(os.path.join(row.folder, "metrics.csv")), resume=first)
        self.batch = row.batch or row.profile.batch_size
        self.progress = Progress(row.title, solver.max_iter, first)
        self.began = time.monotonic()
        self.versions, self.test, self.timing, self.drawn = {}, {}, {}, 0.0

    def follow(self, interpreter, header=(), lock: Optional[int] = None):
        """Start the process and read its events to the end; `lock`: see process.run.

        Raises chain.ChainError or process.Stopped.
        """
        job = os.path.join(self.row.folder, "job.json")
        try:
            process.run(self.row, job, interpreter, header, self.event, self.say, lock)
        finally:
            self.progress.close()
            self.metrics.close()
            self.draw()

    def event(self, event: dict):
        """Take one event of gender_smile/training/solve.py."""
        kind, seconds = event["event"], time.monotonic() - self.began
        if kind == "step":
            speed = self.batch * event["iterations"] / event["seconds"] if event["seconds"] else None
            self.progress.step(event["iteration"], event["loss"], speed)
            if event["row"]:
                self.metrics.add(event["iteration"], seconds, train_loss=event["mean_loss"],
                                 learning_rate=event["rate"], images_per_second=speed)
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
        elif kind == "end":
            self.timing = event.get("timing", {})
        elif kind == "start":
            self.versions = event["versions"]
            if "device" in self.versions:
                self.progress.say(f"{self.title}: trains on {self.versions['device']}")

    def best(self) -> Optional[int]:
        """Iteration of the snapshot that did best in validation: highest accuracy, then lowest loss, then the newest."""
        there = {snapshot.iteration for snapshot in chain.snapshots(self.row)}
        tested = [
            (row["val_accuracy"] or 0.0, -row["val_loss"], row["iteration"])
            for row in self.metrics.rows if row["iteration"] in there and row["val_loss"] is not None
        ]
        return max(tested)[2] if tested else None

    def draw(self):
        draw(self.metrics.rows, self.row.path(os.path.join(self.row.folder, "curve.png")), self.title)


# ---------------------------------------------------------------------------------------------- the end
def _finish(row: chain.Row, run: Run, solver, inputs: dict, interpreter, leader=None, header=(), deterministic: bool = False):
    """Put the final weights where the next step looks for them, with their record, and the run in its place.

    Killed at any instant, the same command completes it: the run is unfinished until its weights are placed, and tidy()
    moves a finished one.
    """
    final = snapshot_paths(solver.snapshot_prefix, solver.max_iter).model
    run_id = files.read_json(row.path(os.path.join(row.folder, "run.json")))
    record = {
        "step": row.title, "iteration": solver.max_iter, "max_iter": solver.max_iter, "loss": run.test.get("loss"),
        "accuracy": run.test.get("accuracy"), "accuracies": run.test.get("accuracies"),
        "train_loss": last(run.metrics.rows, "train_loss"), "seconds": last(run.metrics.rows, "seconds"),
        "timing": run.timing,
        "engine": run.versions.get("engine", interpreter.module), "versions": run.versions,
        "precision": row.precision, "ranks": leader.count if leader is not None else 1, "seed": solver.random_seed,
        "deterministic": deterministic, "inputs": inputs, "best": _best_record(row, run),
        "batch": row.batch or row.profile.batch_size, "iter_size": max(1, solver.iter_size),
        "made_by": list(header), "variant": row.variant,
        "options": row.options, "start": chain.started_from(row), "validation": fingerprints.validation(row),
        "run": run_id["run"], **origin.origin(row),
    }
    place(row, lambda path: shutil.copyfile(row.path(final), path), record)
    files.write_json(row.path(os.path.join(row.folder, "run.json")), {**run_id, "finished": True})
    _prune(row, 1, run.best())
    tidy(row)
    run.say(f"{row.title}: {row.weights_out}" + _numbers(record) + f" in {duration(record['seconds'] or 0)}")


def tidy(row: chain.Row):
    """Give a finished forced run the place of the run that it replaces, once its weights are placed; again after a kill."""
    fresh, home = replace(row, fresh=True), replace(row, fresh=False)
    new, folder = row.path(fresh.folder), row.path(home.folder)
    run = files.read_json(os.path.join(new, "run.json")) or {}
    record = files.read_json(row.path(row.weights_out + ".json")) or {}
    if run.get("finished") and run.get("run") and run["run"] == record.get("run"):
        run_files.rename_in_files(new, fresh.folder, home.folder)
        if os.path.exists(folder):
            shutil.rmtree(folder + ".old", ignore_errors=True)
            os.rename(folder, folder + ".old")
        os.rename(new, folder)
    if os.path.exists(folder):
        shutil.rmtree(folder + ".old", ignore_errors=True)


def _best_record(row: chain.Row, run: Run) -> Optional[dict]:
    """The best snapshot in validation, for the step's record."""
    best = run.best()
    if best is None:
        return None
    tested = next(line for line in run.metrics.rows if line["iteration"] == best and line["val_loss"] is not None)
    return {"iteration": best, "loss": tested["val_loss"], "accuracy": tested["val_accuracy"],
            "weights": snapshot_paths(chain.snapshot_prefix(row.place), best).model}


def place(row: chain.Row, write: Callable[[str], object], record: dict):
    """Let `write(path)` write the row's declared output, then write its record, with the SHA-256 of the weights."""
    target = row.path(row.weights_out)
    with files.whole_file(target) as part:
        write(part)
        sha256 = files.sha256_of(part)
        with contextlib.suppress(FileNotFoundError):
            os.remove(target + ".json")  # never a record of other weights beside the new ones
    files.write_json(target + ".json", {**record, "sha256": sha256})


def _put_aside(run: chain.Interrupted, say):
    """Rename the folder of an interrupted run: it is not resumed any more, and not lost."""
    row, folder = run.row, run.row.path(run.row.folder)
    aside = f"{row.place}.{time.strftime('%Y%m%d-%H%M%S')}"
    while os.path.exists(row.path(aside)):
        aside += "-"
    os.rename(folder, row.path(aside))
    say(f"{row.title}: the run that was interrupted at iteration {run.iteration:,} is kept as {aside}; delete it when you "
        "do not need it")


def _clear(row: chain.Row):
    """Remove what a run that is not finished and has no whole snapshot has left in the folder."""
    folder = row.path(row.folder)
    others = [os.path.join(folder, name) for name in ("train.log", "metrics.csv", "curve.png")]
    for path in find_files(chain.snapshot_prefix(folder)) + others:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _remove_leftovers(row: chain.Row):
    """Remove what a killed process left of a snapshot that it was writing."""
    whole = {path for snapshot in chain.snapshots(row) for path in (snapshot.model, snapshot.state, snapshot.record)}
    for path in set(find_files(chain.snapshot_prefix(row.path(row.folder)))) - whole:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _prune(row: chain.Row, keep: int, best: Optional[int]):
    """Remove all snapshots but the newest `keep` and that of iteration `best`: at full size each takes 1 GB."""
    for snapshot in chain.snapshots(row)[:-keep]:
        if snapshot.iteration == best:
            continue
        for path in (snapshot.record, snapshot.state, snapshot.model):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


# ---------------------------------------------------------------------------------------------- small things
@contextlib.contextmanager
def only_one(row: chain.Row):
    """Hold the row's place for this process, and for those that the file descriptor it yields is given to.

    Raises chain.ChainError where another one trains there. Whoever only looks (`make status`) holds it for an instant.
    """
    import fcntl

    path = row.path(row.place) + ".lock"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+") as stream:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
            stream.seek(0)
            who = f"process {stream.read().strip() or 'unknown'}, or one that it has started"
            raise chain.ChainError(f"{row.title}: another process trains in {row.place} ({who}); wait or stop it")
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
