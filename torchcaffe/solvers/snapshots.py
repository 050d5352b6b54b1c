"""The files of a snapshot: their names, how to find them, and their checksums.

    PREFIX_iter_N.caffemodel      weights (.caffemodel.h5 with snapshot_format: HDF5)
    PREFIX_iter_N.solverstate     iteration, history and the name of the weights (.solverstate.h5)
    PREFIX_iter_N.json            our record of the two, written last: see torchcaffe/solvers/resume.py

Needs only the standard library and keeps to Python 2.7 and 3.5: it is imported beside a Caffe of one's own, which may be
built for them.
"""

import collections
import glob
import hashlib
import os
import re

RECORD_VERSION = 1

# Paths of the files of one snapshot: model, state and record; and its iteration, a number.
Snapshot = collections.namedtuple("Snapshot", ("iteration", "model", "state", "record"))


def snapshot_paths(prefix, iteration, hdf5=False):
    # type: (str, int, bool) -> Snapshot
    """Where the snapshot of `iteration` lies. prefix: the solver's snapshot_prefix."""
    stem, suffix = "%s_iter_%d" % (prefix, iteration), ".h5" if hdf5 else ""
    return Snapshot(iteration, stem + ".caffemodel" + suffix, stem + ".solverstate" + suffix, stem + ".json")


def record_path(state):
    # type: (str) -> str
    """Path of the record of a solver state: a_iter_5.json of a_iter_5.solverstate or a_iter_5.solverstate.h5."""
    folder, name = os.path.split(str(state))
    return os.path.join(folder, name.split(".solverstate")[0] + ".json")


def find_snapshots(prefix):
    # type: (str) -> list[Snapshot]
    """The snapshots of a prefix that have a record, which is written last; the oldest first."""
    found = []
    for path in glob.glob(glob.escape(str(prefix)) + "_iter_*.json"):
        number = re.search(r"_iter_(\d+)\.json$", path)
        if number:
            iteration = int(number.group(1))
            hdf5 = os.path.exists(snapshot_paths(prefix, iteration, hdf5=True).state)
            found.append(snapshot_paths(prefix, iteration, hdf5))
    return sorted(found)


def find_files(prefix):
    # type: (str) -> list[str]
    """All files of all snapshots of a prefix, also those of an interrupted write (hidden, or ending in .part)."""
    folder, name = os.path.split(str(prefix))
    patterns = (os.path.join(glob.escape(folder), start + glob.escape(name) + "_iter_*") for start in ("", "."))
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def checksum(path):
    # type: (str) -> dict
    """{"size": bytes, "sha256": hex digits} of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return {"size": os.path.getsize(path), "sha256": digest.hexdigest()}


def new_record(iteration, model, state):
    # type: (int, str, str) -> dict
    """The record of a snapshot whose two files are complete: its iteration and their checksums."""
    files = {os.path.basename(path): checksum(path) for path in (model, state)}
    return {"version": RECORD_VERSION, "iteration": iteration, "files": files}
