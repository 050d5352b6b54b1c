"""Step 1: VGG-Face becomes weights/<profile>/step1.caffemodel, checked and in today's format.

The release (V1 layers, four-axis blobs) fits the paper's width only. Narrower profiles take a random stand-in of the
same form, which is made here: their step 1 has the paper's shape, not its knowledge.
"""

from __future__ import annotations

import os

from common import files
from gender_smile.training import chain, runs


def adopt(row: chain.Row, interpreter, force: bool = False, header=(), say=print) -> bool:
    """Do step 1 unless its result stands; True when done. A result of another file is replaced with `force` only.

    Raises chain.ChainError, runs.Stopped and WeightsError.
    """
    chain.check_inputs(row)
    with runs.only_one(row):
        if row.start is None and not chain.is_full_size(row.profile):
            _make_stand_in(row, say)
        inputs = chain.fingerprints(row)
        state = chain.state(row, inputs)
        if state.kind == "done" and not force:
            say(f"{row.title}: done, {row.weights_out}; FORCE=1 does it again")
            return False
        if state.kind == "changed" and not force:
            raise chain.ChainError(runs.refusal(row, state))
        _check_source(row)
        os.makedirs(row.path(row.folder), exist_ok=True)
        _convert(row, interpreter, header, say, inputs)
    say(f"{row.title}: {row.weights_out} from {row.weights_in}, 16 layers checked")
    return True


def _check_source(row: chain.Row):
    """Raise WeightsError unless the row starts from VGG-Face, or a file of its form."""
    from gender_smile.nets.vgg_face import check_vgg_face, verify_vgg_face

    if row.start is None and chain.is_full_size(row.profile):
        verify_vgg_face(row.path(row.weights_in))
    else:
        check_vgg_face(row.path(row.weights_in), width=row.profile.width, input_size=row.profile.crop_size)


def _make_stand_in(row: chain.Row, say):
    """Write a random file of VGG-Face's form, unless one of the profile's width and size is there."""
    from torchcaffe.core.errors import WeightsError
    from gender_smile.nets.vgg_face import check_vgg_face, write_random_vgg_face

    form = {"width": row.profile.width, "input_size": row.profile.crop_size}
    path = row.path(row.weights_in)
    try:
        if os.path.exists(path):
            check_vgg_face(path, **form)
            return
    except WeightsError:
        say(f"{row.title}: {row.weights_in} does not fit the profile any more")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_random_vgg_face(path + ".part", seed=row.profile.random_seed, **form)
    os.replace(path + ".part", path)
    say(f"{row.title}: {row.weights_in} made, random weights in VGG-Face's form")


def _convert(row: chain.Row, interpreter, header, say, inputs: dict):
    """Let the engine load the file by layer name and save it as it writes today."""
    converted = os.path.join(row.folder, "converted.caffemodel")
    job = {"kind": "convert", "module": interpreter.module, "net": row.definition, "weights": row.weights_in,
           "output": converted}
    path = os.path.join(row.folder, "job.json")
    files.write_json(row.path(path), job)
    ends = []
    try:
        runs.run_process(row, path, interpreter, header, ends.append, say)
        versions = ends[-1]["versions"]
        record = {"step": row.title, "iteration": 0, "loss": None, "accuracy": None, "engine": versions["engine"],
                  "versions": versions, "variant": row.variant,
                  "sha256": files.sha256_of(row.path(converted)), "inputs": inputs}
        runs.place(row, converted, record)
    finally:
        if os.path.exists(row.path(converted)):
            os.remove(row.path(converted))
