"""Solver states (.solverstate, .solverstate.h5): what a training needs besides the weights to resume."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field


from torchcaffe.formats import storage, wire
from torchcaffe.core.errors import SolverError
from torchcaffe.formats.weights import write_buffers

_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP = 1, 2, 3, 4  # fields of SolverState


@dataclass
class SolverState:
    """Iterations done, path of the weights, steps taken by lr_policy multistep, and the update rule's arrays.

    history: float32 arrays, one per learnable parameter (two for AdaDelta and Adam: all first ones, then all second).
    """

    iter: int = 0
    learned_net: str = ""
    current_step: int = 0
    history: list = field(default_factory=list)


def write_solver_state(path, state: SolverState):
    """Write a solver state, atomically: HDF5 where the name ends in .h5, otherwise binary."""
    path = os.fspath(path)
    if path.endswith(".h5"):
        from torchcaffe.formats.weights_hdf5 import write_solver_state_hdf5

        return write_solver_state_hdf5(path, state)
    buffers = wire.number_field(_ITER, state.iter) + wire.delimited(_LEARNED_NET, [state.learned_net.encode()])
    for array in state.history:
        buffers += wire.delimited(_HISTORY, wire.blob_buffers(array))
    return write_buffers(path, buffers + wire.number_field(_CURRENT_STEP, state.current_step), SolverError)


def read_solver_state(path) -> SolverState:
    """Read a solver state, binary or HDF5 according to its content.

    Raises:
        SolverError: missing, truncated, or another kind of file, such as the weights beside it.
    """
    path = os.fspath(path)
    state = _read_hdf5(path) if storage.is_hdf5(path) else _read_binary(path)
    if "\0" in state.learned_net:
        raise SolverError(f"{path}: its learned_net {state.learned_net!r} holds a NUL character; resume from another snapshot")
    return state


def _read_binary(path) -> SolverState:
    content = storage.read_bytes(path, SolverError, "solver state", mapped=True)
    storage.refuse_other_kind(path, content, "solverstate", SolverError)
    state, seen = SolverState(), set()
    try:
        for number, wire_type, value in wire.walk(content):
            seen.add(number)
            if (number, wire_type) == (_ITER, wire.VARINT):
                state.iter = wire.signed(value)
            elif (number, wire_type) == (_LEARNED_NET, wire.DELIMITED):
                state.learned_net = content[slice(*value)].decode("utf-8", "replace")
            elif (number, wire_type) == (_HISTORY, wire.DELIMITED):
                state.history.append(_read_history(path, content, value, len(state.history)))
            elif (number, wire_type) == (_CURRENT_STEP, wire.VARINT):
                state.current_step = wire.signed(value)
    except wire.TruncatedError as problem:
        raise SolverError(
            f"{path}: is truncated: {len(content):,} bytes are there, {problem}; resume from an earlier snapshot"
        ) from None
    except wire.WireError as problem:
        raise SolverError(f"{path}: is not a .solverstate ({problem}); give a solver state of Caffe") from None
    if _ITER not in seen:
        raise SolverError(f"{path}: holds no iteration number; give a solver state of Caffe")
    return state


def _read_history(path, content, span, index):
    try:
        shape, _, data, _ = wire.read_blob(content, *span)
    except wire.WireError as problem:
        raise wire.WireError(f"history blob {index}: {problem}") from None
    if data.size != math.prod(shape):
        raise SolverError(
            f"{path}: history blob {index} has {data.size:,} numbers for shape {shape}; resume from an earlier snapshot"
        )
    return data.reshape(shape)


def _read_hdf5(path):
    from torchcaffe.formats.hdf5 import member, names, open_hdf5, read_array, read_numbers, read_text

    with open_hdf5(path, SolverError) as file:
        missing = [name for name in ("iter", "learned_net", "current_step", "history") if name not in file]
        if missing:
            what = "it is weights; give the .solverstate.h5 beside it" if "data" in file else "not a solver state"
            raise SolverError(f"{path}: has no {', '.join(missing)}: {what}")
        found = {name: member(path, file, name, SolverError) for name in names(path, file, SolverError)}
        counts = {}
        for name in ("iter", "current_step"):
            numbers = read_numbers(path, found[name], name, SolverError)
            if numbers.size != 1 or numbers.dtype.kind not in "iu":
                raise SolverError(f"{path}: {name} is not a whole number")
            counts[name] = int(numbers.reshape(()))
        history = found["history"]
        if not hasattr(history, "keys") or not all(key.isdecimal() for key in names(path, history, SolverError)):
            raise SolverError(f"{path}: history is not a group of numbered arrays: not a solver state of Caffe")
        return SolverState(
            learned_net=read_text(path, found["learned_net"], "learned_net", SolverError),
            history=[
                read_array(path, member(path, history, key, SolverError), f"history {key}", SolverError)
                for key in sorted(history, key=int)
            ],
            **counts,
        )
