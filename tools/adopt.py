"""Step 1: VGG-Face becomes weights/<profile>/step1.caffemodel, checked and in today's format.

The release (V1 layers, four-axis blobs) fits the paper's width only. Narrower profiles take a random stand-in of the
same form, which is made here: their step 1 has the paper's shape, not its knowledge.
"""

from __future__ import annotations

import os

from tools import chain, runs


def adopt(row: chain.Row, interpreter, force: bool = False, header=(), say=print) -> bool:
    """Do step 1 unless its result stands; True when it was done. Raises chain.ChainError and WeightsError."""
    from tools.vgg_face import check_vgg_face, write_random_vgg_face

    chain.check_inputs(row)
    profile, source = row.profile, row.path(row.weights_in)
    if row.start is None and not chain.is_full_size(profile) and not os.path.exists(source):
        os.makedirs(os.path.dirname(source), exist_ok=True)
        write_random_vgg_face(source + ".part", width=profile.width, seed=profile.random_seed,
                              input_size=profile.crop_size)
        os.replace(source + ".part", source)
        say(f"{row.title}: {row.weights_in} made, random weights in VGG-Face's form")
    inputs = chain.fingerprints(row)
    state = chain.state(row, inputs)
    if state.kind == "done" and not force:
        say(f"{row.title}: done, {row.weights_out}; FORCE=1 does it again")
        return False
    for change in state.changes:
        say(f"{row.title}: {change}")
    check_vgg_face(source, width=profile.width, input_size=profile.crop_size)
    os.makedirs(row.path(row.folder), exist_ok=True)
    _convert(row, interpreter, header, say, inputs)
    say(f"{row.title}: {row.weights_out} from {row.weights_in}, 16 layers checked")
    return True


def _convert(row: chain.Row, interpreter, header, say, inputs: dict):
    """Let the engine load the file by layer name and save it as it writes today."""
    converted = os.path.join(row.folder, "converted.caffemodel")
    job = {"kind": "convert", "module": interpreter.module, "net": row.definition, "weights": row.weights_in,
           "output": converted}
    path = os.path.join(row.folder, "job.json")
    chain.write_json(row.path(path), job)
    ends = []
    try:
        status = runs.run_job(row, path, interpreter, header, ends.append, say)
        if status != 0:
            raise chain.ChainError(f"{row.title}: {runs.failure(row, ends[-1] if ends else None, status)}")
        versions = ends[-1]["versions"]
        record = {"step": row.title, "iteration": 0, "loss": None, "accuracy": None, "engine": versions["engine"],
                  "versions": versions, "sha256": chain.sha256(row.path(converted)), "inputs": inputs}
        runs.place(row, converted, record)
    finally:
        if os.path.exists(row.path(converted)):
            os.remove(row.path(converted))
