"""Step 1 to step 4 as rows of one table: what each reads, what it writes, and whether that is still true.

    from tools import chain
    for row in chain.rows(recipe.DEMO, ["gnet", "snet1"], [1, 2, 3, 4]):
        print(row.title, row.weights_in, "->", row.weights_out, chain.state(row).kind)

A row's inputs are weights, LMDBs and the solver's and the net's text with the row's overrides. Their fingerprints are
written beside the result (`<weights>.json`), and decide later whether the result still stands.
"""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

import recipe
from tools.fingerprints import database_fingerprint, differences, read_json, sha256_of, stored_size

# Solver fields that change what is shown and kept, not what is learned.
INDIFFERENT = {"net", "snapshot_prefix", "snapshot", "display", "test_iter", "test_interval", "test_initialization",
               "snapshot_after_train", "solver_mode", "device_id", "debug_info"}


class ChainError(RuntimeError):
    """A step cannot run as asked; the message names what is wrong and the command that helps."""


@dataclass(frozen=True)
class Row:
    """One step of one net. Paths are relative to `root`, where the training runs.

    `start` replaces the weights that the step starts from ("" = none, fillers only) and `variant` is added to the names
    of what it writes: together they make Table 2's other ways to step 4.
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

    @property
    def title(self) -> str:
        """Such as "step 2, scheme3" or "step 4, GNet"."""
        what = {1: "", 2: recipe.NETS[self.net].crop}.get(self.step, recipe.NETS[self.net].title)
        return ", ".join(part for part in (f"step {self.step}", what, self.variant) if part)

    @property
    def solver(self) -> str:
        return recipe.solver_prototxt(self.profile.name, self.net, self.step)

    @property
    def definition(self) -> str:
        """The net's prototxt: step 1 has VGG-Face's deploy net, the others a training net."""
        if self.step == 1:
            return recipe.deploy_prototxt(self.profile.name, "identity")
        return recipe.net_prototxt(self.profile.name, self.net, self.step)

    @property
    def weights_in(self) -> Optional[str]:
        """Caffemodel that the step starts from; None where it starts from fillers."""
        if self.start is not None:
            return self.start or None
        return vgg_face(self.profile) if self.step == 1 else recipe.step_weights(
            self.profile.name, self.net, self.step - 1)

    @property
    def weights_out(self) -> str:
        return self._varied(recipe.step_weights(self.profile.name, self.net, self.step))

    @property
    def folder(self) -> str:
        if self.step == 1:
            return f"runs/{self.profile.name}/step1"
        return self._varied(recipe.run_folder(self.profile.name, self.net, self.step))

    @property
    def databases(self) -> Dict[str, str]:
        return {} if self.step == 1 else recipe.lmdb_paths(self.profile.name, self.net, self.step)

    @property
    def head(self) -> Optional[str]:
        """The last layer, where it is new in this step and so gets no weights from the step before."""
        if self.step == 2:
            return recipe.ATTRIBUTES_LAYER
        before = self.step == 3 or (self.start is not None and not _has_head(self))
        return recipe.TASKS[recipe.NETS[self.net].task].layer if before else None

    @property
    def command(self) -> str:
        """What a user types to run this step."""
        return f"make step{self.step} NET={self.net} PROFILE={self.profile.name}"

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


def rows(profile: recipe.Profile, nets: Sequence[str], steps: Sequence[int], **options) -> List[Row]:
    """Rows in the order in which they run; a step that nets share (1; 2 on one crop scheme) comes once."""
    found: Dict[str, Row] = {}
    for step in sorted(set(steps)):
        for net in nets:
            row = Row(profile, net, step, **options)
            found.setdefault(row.weights_out, row)
    return list(found.values())


def vgg_face(profile: recipe.Profile) -> str:
    """Where step 1 finds VGG-Face: the release, or for narrow nets a stand-in that step 1 makes itself."""
    from tools.vgg_face import VGG_FACE

    return VGG_FACE if is_full_size(profile) else f"weights/{profile.name}/VGG_FACE_stand_in.caffemodel"


def is_full_size(profile: recipe.Profile) -> bool:
    """True where VGG-Face's release fits the profile's nets."""
    return profile.width == 1.0 and profile.crop_size == recipe.PAPER.crop_size


# ---------------------------------------------------------------------------------------------- what is there
def check_inputs(row: Row):
    """Raise ChainError, naming the command that helps, for the first input of `row` that is missing or does not fit.

    A damaged LMDB is torchcaffe's DataError.
    """
    for path in (row.definition,) if row.step == 1 else (row.solver, row.definition):
        if not os.path.exists(row.path(path)):
            raise ChainError(f"{row.title}: {path} is missing: make prototxt")
    for path in row.databases.values():
        if not os.path.exists(row.path(os.path.join(path, "data.mdb"))):
            data = f"{recipe.DATASETS[recipe.STEPS[row.step].dataset].variable}=path"
            crop = recipe.NETS[row.net].crop
            raise ChainError(f"{row.title}: {path} is missing: make lmdb CROP={crop} PROFILE={row.profile.name} {data}")
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
    before = f"make step{row.step - 1} NET={row.net} PROFILE={row.profile.name}"
    raise ChainError(f"{row.title}: {weights} is missing: {before if row.start is None else 'see --weights'}")


def _check_crops(row: Row, path: str):
    """Raise ChainError for an LMDB of other crops than the net was made for: it would train, on part of a face."""
    (height, width), wanted = stored_size(row.path(path)), row.profile.stored_size
    if (height, width) != (wanted, wanted):
        raise ChainError(
            f"{row.title}: {path} holds crops of {height} x {width} pixels, profile {row.profile.name} takes {wanted} x "
            f"{wanted}: make lmdb CROP={recipe.NETS[row.net].crop} PROFILE={row.profile.name} FORCE=1")


def state(row: Row, inputs: Optional[dict] = None) -> State:
    """What is there of a row. `inputs` (see `fingerprints`) tells "changed" from "done"; without it nothing is read."""
    record = read_json(row.path(row.weights_out + ".json"))
    snapshot = newest_snapshot(row, inputs)
    there = os.path.exists(row.path(row.weights_out))
    if snapshot:
        return State("interrupted", snapshot["iteration"], record=record)
    if not there:
        return State("to do")
    if record is None or "inputs" not in record or "iteration" not in record:
        return State("done")  # put there by hand: not ours to replace
    changes = tuple(differences(record["inputs"], inputs)) if inputs is not None else ()
    return State("changed" if changes else "done", record["iteration"], changes, record)


def newest_snapshot(row: Row, inputs: Optional[dict], say=None) -> Optional[dict]:
    """Newest whole snapshot of the run that is not finished: {"iteration", "state"}; None where none is.

    Whole: both files have the sizes that were recorded when they were complete and, where `say` is given, the SHA-256;
    say(sentence) is told of each that has not. With `inputs`, only of a run from these.
    """
    job = read_json(row.path(os.path.join(row.folder, "run.json")))
    if not job or job.get("finished") or (inputs is not None and differences(job.get("inputs", {}), inputs)):
        return None
    for iteration, path in reversed(snapshots(row)):
        record = read_json(path)
        damage = damaged(os.path.dirname(path), record, thoroughly=say is not None)
        if not damage:
            solver_state = next(name for name in record["files"] if name.endswith(".solverstate"))
            return {"iteration": iteration, "state": os.path.join(row.folder, solver_state)}
        if say is not None:
            say(f"{row.title}: the snapshot of iteration {iteration} is left out: {damage}")
    return None


def snapshots(row: Row) -> list:
    """(iteration, path of the record) of the run's snapshots, the oldest first."""
    paths = glob.glob(glob.escape(row.path(row.folder)) + "/snapshot_iter_*.json")
    return sorted((int(path.rsplit("_", 1)[1].split(".")[0]), path) for path in paths)


def damaged(folder: str, record: Optional[dict], thoroughly: bool) -> str:
    """What is wrong with a snapshot, as a phrase; "" where it is whole. `thoroughly`: compare SHA-256 too."""
    if not record or "files" not in record:
        return "its record cannot be read"
    for name, noted in record["files"].items():
        path = os.path.join(folder, os.path.basename(name))
        if not os.path.exists(path):
            return f"{name} is missing"
        if os.path.getsize(path) != noted["size"]:
            return f"{name} has {os.path.getsize(path):,} bytes instead of {noted['size']:,}"
        if thoroughly and sha256_of(path) != noted["sha256"]:
            return f"{name} is damaged (SHA-256)"
    return ""


# ---------------------------------------------------------------------------------------------- fingerprints
def fingerprints(row: Row, solver=None, net=None) -> Dict[str, str]:
    """What determines a row's result, by name: the solver's fields, the net's text, each file's contents.

    solver, net: SolverParameter and NetParameter with the row's overrides (none in step 1).
    """
    found = {}
    if solver is not None:
        for field, value in solver.ListFields():
            if field.name not in INDIFFERENT:
                found[f"solver's {field.name}"] = str(value)
    if row.precision != "float32":
        found["solver's precision"] = row.precision
    if net is not None:
        found["net"] = hashlib.sha256(str(net).encode()).hexdigest()
    if row.weights_in:
        found[row.weights_in] = sha256_of(row.path(row.weights_in))
    for path in row.databases.values():
        found[path] = database_fingerprint(row.path(path))
    return found


def _has_head(row: Row) -> bool:
    """True where the weights that a step 4 was told to start from hold its last layer."""
    if not row.weights_in:
        return False
    from torchcaffe import files

    names = {layer.name for layer in files.read_weights(row.path(row.weights_in))}
    return recipe.TASKS[recipe.NETS[row.net].task].layer in names
