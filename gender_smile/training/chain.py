"""Step 1 to step 4 as rows of one table: what each reads, what it writes, and whether that is still true.

    from gender_smile.training import chain
    for row in chain.rows(recipe.DEMO, ["gnet", "snet1"], [1, 2, 3, 4]):
        print(row.title, row.weights_in, "->", row.weights_out, chain.state(row).kind)

A row's inputs are weights, LMDBs and the solver's and the net's settings with the row's overrides. Their fingerprints are
written beside the result (`<weights>.json`), and decide later whether the result still stands. Overrides go under a
variant's name (`variant_of`), so that they never replace a result of the recipe's own settings.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass, fields, replace
from typing import Dict, List, Optional, Sequence, Tuple

import recipe
from common.files import read_json, sha256_of
from gender_smile.training.fingerprints import differences, shortest, stored_size
from torchcaffe.solvers.snapshots import Snapshot, find_snapshots

NO_VARIANT = "none"  # as a variant on the command line: the chain's own names


class ChainError(RuntimeError):
    """A step cannot run; the message names what is wrong and the command that helps."""


UNRECORDED = ("profile", "root", "fresh")  # fields of a row that its run's record does not have


@dataclass(frozen=True)
class Row:
    """One step of one net. Paths are relative to `root`, where the training runs.

    `start` replaces the weights that the step starts from ("" = none, fillers only) and `variant` is added to the names
    of what it writes: together they make Table 2's other ways to step 4. Without `start`, `after` is the variant of the
    step before that it starts from. `fresh`: it trains beside a finished run, whose place it takes at its end.
    """

    profile: recipe.Profile
    net: str
    step: int
    root: str = recipe.ROOT
    batch: Optional[int] = None
    max_iter: Optional[int] = None
    base_lr: Optional[float] = None
    start: Optional[str] = None
    variant: str = ""
    precision: str = "float32"
    seed: Optional[int] = None  # instead of the recipe's
    after: str = ""
    fresh: bool = False

    @property
    def title(self) -> str:
        """Such as "step 2, scheme3" or "step 4, GNet"."""
        what = {1: "", 2: recipe.NETS[self.net].crop}.get(self.step, recipe.NETS[self.net].title)
        return ", ".join(part for part in (f"step {self.step}", what, self.variant) if part)

    @property
    def trains(self) -> bool:
        """False for a step 1 that adopts weights as they are."""
        return self.step > 1 or self.profile.teacher is not None

    @property
    def crop(self) -> str:
        """Scheme of the crops that it reads; of a step 1, its teacher's."""
        return self.profile.teacher.crop if self.step == 1 and self.profile.teacher else recipe.NETS[self.net].crop

    @property
    def solver(self) -> str:
        return recipe.solver_prototxt(self.profile.name, self.net, self.step)

    @property
    def definition(self) -> str:
        """The net's prototxt: a step 1 that adopts has VGG-Face's deploy net, the others a training net."""
        if not self.trains:
            return recipe.deploy_prototxt(self.profile.name, "identity")
        return recipe.net_prototxt(self.profile.name, self.net, self.step)

    @property
    def weights_in(self) -> Optional[str]:
        """Caffemodel that the step starts from; None where it starts from fillers."""
        if self.start is not None:
            return self.start or None
        return vgg_face(self.profile) if self.step == 1 else self.before.weights_out

    @property
    def before(self) -> "Row":
        """The step before, as this one expects it: with the same overrides where it is the same variant."""
        if self.after == self.variant:
            return replace(self, step=self.step - 1, start=None, fresh=False)
        return Row(self.profile, self.net, self.step - 1, self.root, variant=self.after)

    @property
    def weights_out(self) -> str:
        return self._varied(recipe.step_weights(self.profile.name, self.net, self.step))

    @property
    def place(self) -> str:
        """The run's folder, once it is finished."""
        return self._varied(recipe.run_folder(self.profile.name, self.net, self.step))

    @property
    def folder(self) -> str:
        """Where the row trains."""
        return self.place + ".new" if self.fresh else self.place

    @property
    def databases(self) -> Dict[str, str]:
        if self.step == 1:
            return recipe.teacher_lmdb_paths(self.profile) if self.trains else {}
        return recipe.lmdb_paths(self.profile.name, self.net, self.step)

    @property
    def data_sets(self) -> Tuple[str, ...]:
        """Whose faces it reads."""
        data_set = recipe.STEPS[self.step].dataset
        return (data_set,) if data_set else recipe.teacher_data_sets() if self.trains else ()

    @property
    def head(self) -> Optional[str]:
        """The last layer, where it is new in this step and so gets no weights from the step before."""
        if self.step <= 2:
            return recipe.EMBEDDING_LAYER if self.step == 1 else recipe.ATTRIBUTES_LAYER
        before = self.step == 3 or (self.start is not None and not _has_head(self))
        return recipe.TASKS[recipe.NETS[self.net].task].layer if before else None

    @property
    def command(self) -> str:
        """What a user types to run this step."""
        words = [f"make step{self.step} NET={self.net} PROFILE={self.profile.name}"]
        values = {"BATCH": self.batch, "MAX_ITER": self.max_iter, "BASE_LR": self.base_lr and shortest(self.base_lr),
                  "SEED": self.seed, "PRECISION": self.precision if self.precision != "float32" else None,
                  "START": None if self.start is None else self.start or "none"}
        words += [f"{name}={shlex.quote(str(value))}" for name, value in values.items() if value is not None]
        if self.variant != self.own_variant or self.start is not None:
            words.append(f"VARIANT={self.variant or NO_VARIANT}")
        return " ".join(words)

    @property
    def own_variant(self) -> str:
        """The variant's name that the row's overrides make."""
        return "" if self.step == 1 else variant_of(
            self.profile, batch=self.batch, max_iter=self.max_iter, base_lr=self.base_lr, precision=self.precision,
            seed=self.seed)

    @property
    def options(self) -> dict:
        """The row as JSON, for row_of."""
        return {name: value for name, value in asdict(replace(self, profile=None)).items() if name not in UNRECORDED}

    def path(self, path: str) -> str:
        """`path` as an absolute one."""
        return os.path.join(self.root, path)

    def _varied(self, path: str) -> str:
        stem, suffix = os.path.splitext(path)
        return f"{stem}-{self.variant}{suffix}" if self.variant else path


@dataclass(frozen=True)
class State:
    """kind: "done", "changed" (done, but from other inputs: `changes`), "interrupted" (at `iteration`) or "to do"."""

    kind: str
    iteration: int = 0
    changes: tuple = ()
    record: Optional[dict] = None


def variant_of(profile: recipe.Profile, *, batch: Optional[int] = None, max_iter: Optional[int] = None,
               base_lr: Optional[float] = None, share: float = 1.0, precision: str = "float32",
               seed: Optional[int] = None) -> str:
    """The name under which overrides keep their results, such as "seed7-batch8-iter2-rate0.001" or "50percent-bf16".

    "" where nothing departs from the recipe. What a step has of its own, iterations and rate, is no override only where
    all steps have that number: all steps of a command have one name.
    """
    parts = [f"seed{seed}"] if seed not in (None, profile.random_seed) else []
    parts += [f"batch{batch}"] if batch not in (None, profile.batch_size) else []
    parts += [f"{100 * share:g}percent"] if share != 1.0 else []
    parts += [f"iter{max_iter}"] if max_iter is not None and {max_iter} != set(profile.max_iter.values()) else []
    parts += [f"rate{shortest(base_lr)}"] if base_lr is not None and {base_lr} != set(profile.base_lr.values()) else []
    return "-".join(parts + ([precision] if precision != "float32" else []))


def rows(profile: recipe.Profile, nets: Sequence[str], steps: Sequence[int], **options) -> List[Row]:
    """Rows in the order in which they run; a step that nets share (1; 2 on one crop scheme) comes once.

    Each starts from the step before of its own variant where that is there or is one of these rows, else from the chain's
    own. Overrides are not for step 1.
    """
    by_weights: Dict[str, Row] = {}
    for step in sorted(set(steps)):
        for net in nets:
            row = Row(profile, net, step, **options)
            if step == 1 and row.start is None:
                row = Row(profile, net, step, root=row.root, precision=row.precision if row.trains else "float32")
            row = follow(row, by_weights)
            by_weights.setdefault(row.weights_out, row)
    return list(by_weights.values())


def follow(row: Row, earlier: Sequence[str] = ()) -> Row:
    """`row`, starting from its own variant's step before where that was begun or makes one of `earlier` weights."""
    if row.step == 1 or not row.variant or row.start is not None:
        return row
    same = replace(row, after=row.variant)
    there = same.weights_in in earlier or os.path.exists(row.path(same.weights_in)) or unfinished(same.before)
    return same if there else row


def row_of(profile: recipe.Profile, root: str, options: dict) -> Optional[Row]:
    """The row that has these Row.options; None where they are not a row's."""
    known = {field.name for field in fields(Row)} - set(UNRECORDED)
    try:
        row = Row(profile, root=root, **{name: value for name, value in options.items() if name in known})
        return row if row.net in recipe.NETS and row.step in recipe.STEPS else None
    except TypeError:
        return None


def vgg_face(profile: recipe.Profile) -> str:
    """Where step 1 finds VGG-Face: the release, or for narrow nets a stand-in that step 1 makes itself."""
    from gender_smile.nets.vgg_face import VGG_FACE

    return VGG_FACE if is_full_size(profile) else recipe.stand_in(profile.name)


def is_full_size(profile: recipe.Profile) -> bool:
    """True where VGG-Face's release fits the profile's nets."""
    paper = recipe.PAPER
    return (profile.width, profile.crop_size, profile.fully_connected) == (paper.width, paper.crop_size, paper.fully_connected)


# ---------------------------------------------------------------------------------------------- what is there
def check_inputs(row: Row):
    """Raise ChainError, naming the command that helps, for the first input of `row` that is missing or does not fit.

    A damaged LMDB is torchcaffe's DataError.
    """
    for path in (row.solver, row.definition) if row.trains else (row.definition,):
        if not os.path.exists(row.path(path)):
            raise ChainError(f"{row.title}: {path} is missing: make prototxt")
    for path in row.databases.values():
        if not os.path.exists(row.path(os.path.join(path, "data.mdb"))):
            data = " ".join(f"{recipe.DATASETS[name].variable}=path" for name in row.data_sets)
            what = "embeddings" if path.endswith("_embeddings") else f"lmdb CROP={row.crop}"
            raise ChainError(f"{row.title}: {path} is missing: make {what} PROFILE={row.profile.name} {data}")
    for part, path in row.databases.items():
        if not part.endswith("_labels"):
            _check_crops(row, path)
    weights = row.weights_in
    if weights is None or os.path.exists(row.path(weights)):
        return
    if row.step == 1:
        if row.start is None and not is_full_size(row.profile):
            return  # the stand-in, which step 1 makes
        raise ChainError(f"{row.title}: {weights} is missing: make weights (fetches it), or make weights VGG_FACE=path "
                         "(takes a file that you have)")
    if row.start is not None:
        raise ChainError(f"{row.title}: {weights} is missing: see START= (--weights)")
    stopped = interrupted_run(row.before)
    raise ChainError(f"{row.title}: {weights} is missing: " + (
        f"its training stopped at iteration {stopped.iteration:,}, and resumes with {stopped.command}" if stopped else
        row.before.command))


def check_start(row: Row):
    """Raise ChainError where the step would start from weights that were not trained as long as they should be.

    A variant's weights are named on the command line; the chain's own have the solver's iterations, or this command's.
    """
    if row.step < 3 or row.start is not None:
        return
    record = read_json(row.path(row.weights_in + ".json")) or {}
    iteration, variant = record.get("iteration"), record.get("variant", row.after)
    expected = max(record.get("max_iter") or 0, 0 if row.after else row.before.max_iter or _own_max_iter(row.before))
    wrong = f"which are of variant {variant or NO_VARIANT}" if variant != row.after else (
        f"which have {iteration:,} of {expected:,} iterations" if iteration is not None and iteration < expected else "")
    if wrong:
        raise ChainError(
            f"{row.title} would start from {row.weights_in}, {wrong}: train those first ({row.before.command} "
            f"FORCE=1), or start from it on purpose: START={row.weights_in} VARIANT={row.variant or NO_VARIANT}")


def _own_max_iter(row: Row) -> int:
    """Iterations of a row's solver."""
    from torchcaffe.formats import files as caffe_files

    there = os.path.exists(row.path(row.solver))
    return caffe_files.read_solver(row.path(row.solver)).max_iter if there else row.profile.max_iter[row.step]


def started_from(row: Row) -> Optional[dict]:
    """{"file", "iteration", "variant"} of the weights that a row starts from, as far as their record tells; None: fillers."""
    if not row.weights_in:
        return None
    record = read_json(row.path(row.weights_in + ".json")) or {}
    return {"file": row.weights_in, "iteration": record.get("iteration"),
            "variant": record.get("variant", row.after if row.start is None else None)}


def _check_crops(row: Row, path: str):
    """Raise ChainError for an LMDB of other crops than the net was made for: it would train, on part of a face."""
    (height, width), size = stored_size(row.path(path)), row.profile.stored_size
    if (height, width) != (size, size):
        raise ChainError(
            f"{row.title}: {path} holds crops of {height} x {width} pixels, profile {row.profile.name} takes {size} x "
            f"{size}: make lmdb CROP={row.crop} PROFILE={row.profile.name} FORCE=1")


@dataclass(frozen=True)
class Interrupted:
    """A run that is not finished and has a whole snapshot, the newest of `iteration`."""

    row: Row  # where it trains; its overrides are the run's own where these are recorded
    iteration: int
    max_iter: Optional[int]
    inputs: dict
    command: str  # that resumes it

    def changes(self, inputs: dict) -> List[str]:
        """What is not the same in `inputs`, as sentences."""
        return differences(self.inputs, inputs)


def state(row: Row, inputs: Optional[dict] = None) -> State:
    """What is there of a row. `inputs` (see `fingerprints`) tells "changed" from "done"; without it nothing is read.

    An interrupted run counts where it has these inputs, or where nothing is finished.
    """
    record = read_json(row.path(row.weights_out + ".json"))
    run = interrupted_run(row)
    there = os.path.exists(row.path(row.weights_out))
    if run and (inputs is None or not there or not run.changes(inputs)):
        return State("interrupted", run.iteration, tuple(run.changes(inputs) if inputs is not None else ()), record)
    if not there:
        return State("to do")
    if record is None or not isinstance(record.get("inputs"), dict) or "iteration" not in record:
        return State("done")  # put there by hand: not ours to replace
    changes = tuple(differences(record["inputs"], inputs)) if inputs is not None else ()
    return State("changed" if changes else "done", record["iteration"], changes, record)


def workplace(row: Row) -> Row:
    """The row as it trains: beside what is finished of it, or in its place where nothing is."""
    run = read_json(row.path(os.path.join(row.place, "run.json"))) or {}
    return replace(row, fresh=bool(run.get("finished")) or os.path.exists(row.path(row.weights_out)))


def unfinished(row: Row) -> Optional[Row]:
    """The row in the folder in which a run of it has left snapshots and is not finished; None where there is none."""
    for place in (replace(row, fresh=True), replace(row, fresh=False)):
        job = read_json(row.path(os.path.join(place.folder, "run.json")))
        if job and not job.get("finished") and snapshots(place):
            return place
    return None


def interrupted_run(row: Row) -> Optional[Interrupted]:
    """The run of a row that is not finished and has a whole snapshot; None where there is none."""
    place = unfinished(row)
    snapshot = newest_snapshot(place) if place else None
    if place is None or snapshot is None:
        return None
    job = read_json(row.path(os.path.join(place.folder, "run.json"))) or {}
    begun = row_of(row.profile, row.root, job.get("options") or {})
    command = " ".join([resuming(begun), *job.get("machine", ())]) if begun else row.command
    inputs = job.get("inputs") if isinstance(job.get("inputs"), dict) else {}
    return Interrupted(replace(begun or row, fresh=place.fresh), snapshot["iteration"], job.get("max_iter"), inputs, command)


def resuming(row: Row) -> str:
    """The command that resumes the run of `row`; names its start where the command by itself would find another."""
    again = follow(replace(row, after=""))
    return row.command if again.weights_in == row.weights_in else replace(row, start=row.weights_in).command


def newest_snapshot(row: Row, say=None) -> Optional[dict]:
    """Newest whole snapshot of the run that is not finished: {"iteration", "state"}; None where none is.

    Whole: both files have the sizes that were recorded when they were complete and, where `say` is given, the SHA-256;
    say(sentence) is told of each that has not.
    """
    job = read_json(row.path(os.path.join(row.folder, "run.json")))
    if not job or job.get("finished"):
        return None
    for snapshot in reversed(snapshots(row)):
        damage = damaged(row.path(row.folder), read_json(snapshot.record), thoroughly=say is not None)
        if not damage:
            return {"iteration": snapshot.iteration, "state": os.path.join(row.folder, os.path.basename(snapshot.state))}
        if say is not None:
            say(f"{row.title}: the snapshot of iteration {snapshot.iteration} is left out: {damage}")
    return None


def snapshot_prefix(folder: str) -> str:
    """snapshot_prefix of the solver of a run in `folder`."""
    return os.path.join(folder, "snapshot")


def snapshots(row: Row) -> List[Snapshot]:
    """The run's snapshots that have a record, the oldest first."""
    return find_snapshots(snapshot_prefix(row.path(row.folder)))


def damaged(folder: str, record: Optional[dict], thoroughly: bool) -> str:
    """What is wrong with a snapshot, as a phrase; "" where it is whole. `thoroughly`: compare SHA-256 too."""
    if not record or "files" not in record:
        return "its record cannot be read"
    for name, recorded in record["files"].items():
        path = os.path.join(folder, os.path.basename(name))
        if not os.path.exists(path):
            return f"{name} is missing"
        if os.path.getsize(path) != recorded["size"]:
            return f"{name} has {os.path.getsize(path):,} bytes instead of {recorded['size']:,}"
        if thoroughly and sha256_of(path) != recorded["sha256"]:
            return f"{name} is damaged (SHA-256)"
    return ""


def _has_head(row: Row) -> bool:
    """True where the weights that a step 4 was told to start from hold its last layer."""
    if not row.weights_in:
        return False
    from torchcaffe.formats import files as caffe_files

    names = {layer.name for layer in caffe_files.read_weights(row.path(row.weights_in))}
    return recipe.TASKS[recipe.NETS[row.net].task].layer in names
