"""Writing a solver's snapshot, and resuming from it as if training had never stopped.

Caffe's solverstate holds iteration, weights and history; its data layers start anew and its random numbers differ. Our
record, PREFIX_iter_N.json, adds the position of each data layer of the training net and the state of each random
generator, and the size and SHA-256 of the two files, so that a damaged snapshot is found before it is used. Real Caffe
ignores it. A snapshot without a record (real Caffe's) is resumed as Caffe does.
"""

from __future__ import annotations

import base64
import json
import os
import threading

import numpy as np
import torch

from torchcaffe.core import copying, execution, log, mode, rng
from torchcaffe.core.errors import CaffeError, SolverError, WeightsError
from torchcaffe.formats import storage
from torchcaffe.proto import caffe_pb2
from torchcaffe.solvers.snapshots import checksum, new_record, record_path, snapshot_paths


# ---- writing
def check_writable(solver):
    """Check now that a snapshot can be written. Raises SolverError for a snapshot_prefix where it cannot."""
    paths = _paths(solver, max(solver.iter, solver.proto.max_iter))
    for path in (paths.model, paths.state):
        try:
            storage.check_writable(path)
        except CaffeError as error:
            raise SolverError(f"snapshot {error}, or change snapshot_prefix") from error


def write_snapshot(solver):
    """Write the weights, the solver state and their record, in this order: a state never names weights that are missing.

    Each file is written atomically. Raises CaffeError as storage.atomic_write.
    """
    taken(solver)()


def taken(solver, copied: bool = False):
    """A function that writes the snapshot; `copied`: of the solver as it is now, whatever it does until then."""
    from torchcaffe.formats.files import SolverState, write_solver_state

    execution.flush(solver.net)
    hdf5, paths = _hdf5(solver), _paths(solver, solver.iter)
    kind = "HDF5" if hdf5 else "binary proto"
    save = (copying.writer_hdf5 if hdf5 else copying.writer)(solver.net, solver.proto.snapshot_diff, copied)
    history = [copying.host_array(tensor, copied) for tensor in solver.history]
    state = SolverState(solver.iter, paths.model, solver.current_step, history)
    positions = _positions(solver.net)

    def write():
        log.info(f"Snapshotting to {kind} file {paths.model}")
        save(paths.model)
        log.info(f"Snapshotting solver state to {kind} file {paths.state}")
        write_solver_state(paths.state, state)
        record = {**new_record(state.iter, paths.model, paths.state), **positions}
        with storage.atomic_write(paths.record) as temporary:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(record, file)

    return write


class Background:
    """Snapshots that are written while training continues, one at a time, in a thread that the process waits for."""

    def __init__(self):
        self._thread, self._problem = None, None

    def start(self, write):
        """Call `write` behind the training, once the snapshot before is written."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name="snapshot")
        self._thread.start()

    def _run(self, write):
        try:
            write()
        except BaseException as problem:  # of another thread: raised by wait()
            self._problem = problem

    @property
    def busy(self) -> bool:
        """True while a snapshot is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self):
        """Return when nothing is being written. Raises what went wrong, once."""
        if self._thread is not None:
            self._thread.join()
        problem, self._thread, self._problem = self._problem, None, None
        if problem is not None:
            raise problem


def _hdf5(solver) -> bool:
    return solver.proto.snapshot_format == caffe_pb2.SolverParameter.HDF5


def _paths(solver, iteration):
    return snapshot_paths(solver.proto.snapshot_prefix, iteration, _hdf5(solver))


def _positions(net) -> dict:
    """State of the random generators, and of each layer of the net that has one, as plain data for JSON."""
    random: dict = {"generator": rng.generator().state_dict()}
    if net.device.type == "cuda":
        random["cuda"] = base64.b64encode(torch.cuda.get_rng_state(net.device).numpy().tobytes()).decode()
    states = {layer.name: layer.data_state() for layer in net.built_layers}
    return {"random": random, "layers": {name: state for name, state in states.items() if state is not None}}


# ---- resuming
def restore(solver, path: str):
    """Resume from a .solverstate (or .solverstate.h5): iteration, weights, history; data and random numbers by its record.

    Raises WeightsError, SolverError: what is damaged, or is another net's or solver's, is refused before use.
    """
    from torchcaffe.formats.files import read_solver_state

    record = read_record(path)
    state = read_solver_state(path)
    if record is not None and record.get("iteration") != state.iter:
        raise SolverError(f"{record_path(path)}: is not the record of {path}; resume from another snapshot")
    if len(state.history) != len(solver.history):
        raise WeightsError(
            f"{path}: holds {len(state.history)} history blobs, this {solver.type} solver needs {len(solver.history)}; "
            "it was written by another type of solver or for another net"
        )
    for index, (array, tensor) in enumerate(zip(state.history, solver.history)):
        if np.size(array) != tensor.numel():
            raise WeightsError(f"{path}: history blob {index} has {np.size(array)} values, not {tensor.numel()}")
    if not os.path.isfile(state.learned_net):
        raise WeightsError(
            f"{path}: its weights, {state.learned_net}, do not exist; run from the folder in which it was written"
        )
    solver.resume_from(state, record)
    restore_positions(solver.net, path, record)


def read_record(state_path: str):
    """Record of a solver state, checked against the two files; None where there is none.

    Raises SolverError where the record cannot be read, or a file is not what it was when the snapshot was taken.
    """
    path = record_path(state_path)
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        files = {name: (entry["size"], entry["sha256"]) for name, entry in record["files"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
        raise SolverError(f"{path}: not a snapshot's record ({problem}); resume from an earlier snapshot") from None
    for name, (size, digest) in files.items():
        listed = os.path.join(os.path.dirname(path), os.path.basename(name))
        if not os.path.isfile(listed):
            continue  # moved: restore() reads it from where the state says, or fails
        if os.path.getsize(listed) != size:
            raise SolverError(
                f"{listed}: is damaged: {os.path.getsize(listed):,} bytes instead of {size:,}; "
                "resume from an earlier snapshot"
            )
        if checksum(listed)["sha256"] != digest:
            raise SolverError(f"{listed}: is damaged: its SHA-256 is not {digest}; resume from an earlier snapshot")
    return record


def restore_positions(net, state_path: str, record):
    """Set the data layers and the random generators as the record says. Raises SolverError where it does not fit the net.

    Solvers on several GPUs in Caffe's own way draw their own numbers, and the record is the first one's: they start anew,
    as in Caffe.
    """
    share = mode.share()
    if record is None or "random" not in record or share.count > 1 and not share.split:
        log.info(f"No record of data positions and random numbers for {state_path}: they start anew, as in Caffe")
        return
    try:
        apply_positions(net, record)
    except (LookupError, TypeError, ValueError, ArithmeticError) as problem:  # the last: int() of an infinity
        raise SolverError(
            f"{record_path(state_path)}: does not fit this net ({problem!r}); resume from a snapshot of the same net"
        ) from None


def apply_positions(net, record):
    """Set the data layers and the random generators by a record that is known to fit: also rank 0's, on the other ranks."""
    rng.generator().load_state_dict(record["random"]["generator"])
    if net.device.type == "cuda" and "cuda" in record["random"]:
        bits = bytearray(base64.b64decode(record["random"]["cuda"]))
        torch.cuda.set_rng_state(torch.frombuffer(bits, dtype=torch.uint8), net.device)
    for layer in net.built_layers:
        if layer.name in record["layers"]:
            layer.set_data_state(record["layers"][layer.name])
