"""What a training needs beside Caffe's two snapshot files to go on as if it had never stopped.

Caffe's solverstate holds iteration, weights and momentum; its data layers start anew and its random numbers differ. The
record {prefix}_iter_{N}.json, written last, adds where each data layer of the training net stands and the state of each
random generator, and the size and SHA-256 of the two files, so that a damaged snapshot is found before it is used. Real
Caffe never looks at it. A snapshot without one (real Caffe's) is gone on with as Caffe does.
"""

from __future__ import annotations

import base64
import json
import os

import torch

from torchcaffe.core import log, mode, rng
from torchcaffe.formats import storage
from torchcaffe.core.errors import SolverError

VERSION = 1


def record_path(state_path: str) -> str:
    """Path of the record of a solver state: `a_iter_5.json` of `a_iter_5.solverstate` or `a_iter_5.solverstate.h5`."""
    folder, name = os.path.split(os.fspath(state_path))
    return os.path.join(folder, name.split(".solverstate")[0] + ".json")


def fingerprint(path) -> dict:
    """Size and SHA-256 of a file."""
    return {"size": os.path.getsize(path), "sha256": storage.sha256(path)}


def write(solver, model: str, state: str):
    """Write the record of a snapshot whose two files are there. Raises CaffeError, as storage.atomic_write."""
    record = {
        "version": VERSION,
        "iteration": solver.iter,
        "files": {os.path.basename(path): fingerprint(path) for path in (model, state)},
        "random": {"generator": rng.generator().state_dict()},
        "layers": {},
    }
    if solver.net.device.type == "cuda":
        bits = torch.cuda.get_rng_state(solver.net.device).numpy().tobytes()
        record["random"]["cuda"] = base64.b64encode(bits).decode()
    for layer in solver.net.built_layers:
        standing = layer.data_state()
        if standing is not None:
            record["layers"][layer.name] = standing
    with storage.atomic_write(record_path(state)) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(record, file)


def read(state_path: str):
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
        raise SolverError(f"{path}: not a snapshot's record ({problem}); go on from an earlier snapshot") from None
    for name, (size, digest) in files.items():
        beside = os.path.join(os.path.dirname(path), os.path.basename(name))
        if not os.path.isfile(beside):
            continue  # moved: reading it from where the state names it, or failing to, is restore's
        if os.path.getsize(beside) != size:
            raise SolverError(
                f"{beside}: is damaged: {os.path.getsize(beside):,} bytes instead of {size:,}; "
                "go on from an earlier snapshot"
            )
        if fingerprint(beside)["sha256"] != digest:
            raise SolverError(f"{beside}: is damaged: its SHA-256 is not {digest}; go on from an earlier snapshot")
    return record


def check(state_path: str, record, iteration: int):
    """Raise SolverError where the record is of another iteration than the state beside it."""
    if record is not None and record.get("iteration") != iteration:
        raise SolverError(f"{record_path(state_path)}: is not the record of {state_path}; go on from another snapshot")


def restore(solver, state_path: str, record):
    """Put the training net's data layers and the random generators where the record says. Raises SolverError.

    Solvers on several GPUs in Caffe's own way draw numbers of their own each, and the record is the first one's: they
    start anew, as in Caffe.
    """
    share = mode.share()
    if record is None or "random" not in record or share.count > 1 and not share.split:
        log.info(f"Data and random numbers of {state_path} are not on record: they start anew, as in Caffe")
        return
    try:
        apply(solver, record)
    except (LookupError, TypeError, ValueError, ArithmeticError) as problem:  # the last: int() of an infinity
        raise SolverError(
            f"{record_path(state_path)}: does not fit this net ({problem!r}); go on from a snapshot of the same net"
        ) from None


def apply(solver, record):
    """As `restore`, of a record that is known to fit: also what rank 0 read, on the other ranks."""
    rng.generator().load_state_dict(record["random"]["generator"])
    if solver.net.device.type == "cuda" and "cuda" in record["random"]:
        bits = bytearray(base64.b64decode(record["random"]["cuda"]))
        torch.cuda.set_rng_state(torch.frombuffer(bits, dtype=torch.uint8), solver.net.device)
    for layer in solver.net.built_layers:
        if layer.name in record["layers"]:
            layer.set_data_state(record["layers"][layer.name])
