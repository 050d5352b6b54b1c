"""Step 1: VGG-Face becomes weights/<profile>/step1.caffemodel, checked and in Caffe's current format.

The release (V1 layers, four-axis blobs) fits the paper's width only. Narrower profiles take a random file of the same
form, which is made here: their step 1 has the paper's shape, not its knowledge, unless it trains from there (recipe.Teacher).
Only the file's format changes, so this needs no engine.
"""

from __future__ import annotations

import os
import platform

from gender_smile.nets.vgg_face import check_vgg_face, convert_vgg_face, same_as_first, write_random_vgg_face
from gender_smile.training import chain, fingerprints, origin, runs


def adopt(row: chain.Row, force: bool = False, header=(), say=print) -> bool:
    """Do step 1 unless its result stands; True when done. A result of another file is replaced with `force` only.

    `header`: command and commit, for the record. Raises chain.ChainError and WeightsError.
    """
    chain.check_inputs(row)
    with runs.only_one(row):
        make_stand_in(row, say)
        inputs = fingerprints.fingerprints(row)
        state = chain.state(row, inputs)
        if state.kind == "done" and not force:
            say(f"{row.title}: done, {row.weights_out}; FORCE=1 does it again")
            return False
        if state.kind == "changed" and not force:
            raise chain.ChainError(runs.refusal(row, state))
        weights = row.weights_in or ""  # a step 1 always has a file to start from
        source = row.path(weights)
        layers = check_vgg_face(source, row.profile.width, row.profile.crop_size, row.profile.fully_connected)
        if row.start is None and chain.is_full_size(row.profile):
            same_as_first(source, inputs[weights])
        runs.place(row, lambda path: convert_vgg_face(layers, row.path(row.definition), path), _record(row, inputs, header))
    say(f"{row.title}: {row.weights_out} from {row.weights_in}, 16 layers checked")
    return True


def make_stand_in(row: chain.Row, say):
    """Where step 1 starts from it, write a random file of VGG-Face's form, unless one of the profile's size is there."""
    from torchcaffe.core.errors import WeightsError

    if row.start is not None or chain.is_full_size(row.profile):
        return
    width, size, units = row.profile.width, row.profile.crop_size, row.profile.fully_connected
    path = row.path(row.weights_in or "")
    try:
        if os.path.exists(path):
            check_vgg_face(path, width, size, units)
            return
    except WeightsError:
        say(f"{row.title}: {row.weights_in} does not fit the profile any more")
    write_random_vgg_face(path, width, row.profile.random_seed, size, units)
    say(f"{row.title}: {row.weights_in} made, random weights in VGG-Face's form")


def _record(row: chain.Row, inputs: dict, header) -> dict:
    import numpy as np

    import torchcaffe

    engine = f"torchcaffe {torchcaffe.__version__}"
    return {"step": row.title, "iteration": 0, "loss": None, "accuracy": None, "engine": engine,
            "versions": {"engine": engine, "numpy": np.__version__, "python": platform.python_version()},
            "variant": row.variant, "made_by": list(header), "inputs": inputs,
            **origin.origin(row)}
