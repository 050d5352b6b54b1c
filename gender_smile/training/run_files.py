"""The files of a run's folder: net and solver with the row's overrides, what solve.py does, and the run's inputs."""

from __future__ import annotations

import os
import uuid
from typing import Optional

from common import files
from gender_smile.training import chain, fingerprints

NEVER = 2**31 - 1  # as a test_interval: gender_smile/training/solve.py tests instead of the solver, and so sees the numbers
LEARNING = ("Convolution", "InnerProduct")  # types of the paper's layers with weights


def definitions(row: chain.Row, passes: Optional[int] = None):
    """(SolverParameter, NetParameter) of a row as its run folder gets them, with the row's overrides.

    passes: iter_size instead of the solver's, with the batch divided by it. Raises chain.ChainError where it cannot be.
    """
    from torchcaffe.formats import files as caffe_files
    from torchcaffe.proto import caffe_pb2

    solver, net = caffe_files.read_solver(row.path(row.solver)), caffe_files.read_net(row.path(row.definition))
    faces = 0
    for part, path in row.databases.items():
        if part.startswith("val") and not part.endswith("_labels"):
            count = fingerprints.count_records(row.path(path))
            if count == 0:
                raise chain.ChainError(f"{row.title}: {path} holds no face; build it again")
            faces = max(faces, count)  # a smaller LMDB beside it begins again
    for layer in net.layer:
        phases = {rule.phase for rule in layer.include if rule.HasField("phase")}
        if layer.type != "Data":
            continue
        if phases == {caffe_pb2.TRAIN}:
            layer.data_param.batch_size = row.batch or layer.data_param.batch_size
            if passes is not None:
                layer.data_param.batch_size = _part(row, layer.data_param.batch_size * max(1, solver.iter_size), passes)
        elif phases == {caffe_pb2.TEST}:
            layer.data_param.batch_size = test_batch = even_batch(faces, layer.data_param.batch_size)
    if passes is not None:
        solver.iter_size = passes
    if row.max_iter:
        solver.max_iter = row.max_iter
    if row.base_lr:
        solver.base_lr = row.base_lr
    if row.seed is not None:
        solver.random_seed = row.seed
    place_solver(row, solver)
    del solver.test_iter[:]
    solver.test_iter.append(-(-faces // test_batch))
    return solver, net


def _part(row: chain.Row, batch: int, passes: int) -> int:
    """The batch of one pass. Raises chain.ChainError where `batch` is not a multiple of `passes`."""
    if batch % passes:
        fitting = [str(number) for number in range(2, batch + 1) if batch % number == 0]
        raise chain.ChainError(f"{row.title}: a batch of {batch} does not divide into {passes} passes: ITER_SIZE= "
                               f"(--iter-size) may be {', '.join(fitting)}")
    return batch // passes


def place_solver(row: chain.Row, solver):
    """Let `solver` work in the row's folder."""
    solver.net = os.path.join(row.folder, "net.prototxt")
    solver.snapshot_prefix = chain.snapshot_prefix(row.folder)


def rename_in_files(path: str, old: str, new: str):
    """Let the solver and the job in the run folder at `path` name the folder `new` instead of `old`."""
    for name in ("solver.prototxt", "job.json"):
        with open(os.path.join(path, name), encoding="utf-8") as stream:
            text = stream.read()
        files.write_text(os.path.join(path, name), text.replace(old + "/", new + "/"))


def even_batch(faces: int, most: int) -> int:
    """Test batch of at most `most`, and more than half where there are so many, that takes the fewest faces twice."""
    most = min(most, faces)
    return min(range(most, most // 2, -1), key=lambda size: -faces % size)


def write_files(row: chain.Row, module: str, solver, net, inputs: dict, gpu: Optional[int], resume: Optional[str],
                leader=None, deterministic: bool = False, passes: Optional[int] = None, compiles: Optional[bool] = None):
    """Put net.prototxt, solver.prototxt, job.json and run.json into the run folder.

    module: the engine's; inputs: see fingerprints.fingerprints; resume: .solverstate to resume from, or None; leader: see
    gender_smile/training/ranks.py, None where one process trains.
    """
    from google.protobuf import text_format

    note = "# {} with this run's batch size, iterations, base_lr and test_iter. Written by tools/train.py.\n"
    with open(row.path(solver.net), "w", encoding="utf-8") as stream:
        stream.write(note.format(row.definition) + text_format.MessageToString(net))
    job = {
        "module": module, "title": row.title, "gpu": gpu, "precision": row.precision,
        "deterministic": deterministic, "compile": compiles, "batch": row.batch or row.profile.batch_size,
        "solver": os.path.join(row.folder, "solver.prototxt"), "weights": row.weights_in,
        "expected": expected_layers(row, net), "resume": resume, "snapshot_prefix": solver.snapshot_prefix,
        "max_iter": solver.max_iter, "display": solver.display, "snapshot": solver.snapshot,
        "test_interval": solver.test_interval, "test_iter": solver.test_iter[0],
    }
    silent = type(solver)()
    silent.CopyFrom(solver)
    silent.test_interval, silent.test_initialization = NEVER, False
    silent.ClearField("snapshot")
    with open(row.path(job["solver"]), "w", encoding="utf-8") as stream:
        stream.write(note.format(row.solver) + f"# test_interval, in truth {solver.test_interval}, is out of reach, and "
                     f"snapshot, in truth {solver.snapshot}, is left out:\n# gender_smile/training/solve.py tests and takes "
                     "snapshots.\n" + text_format.MessageToString(silent))
    if leader is not None:
        job.update(gpu=0 if leader.gpus else None, turn=leader.turn)
        leader.publish(job, str(silent), str(net))
    files.write_json(row.path(os.path.join(row.folder, "job.json")), job)
    files.write_json(row.path(os.path.join(row.folder, "run.json")), {
        "run": _run_id(row, resume), "inputs": inputs, "max_iter": solver.max_iter, "options": row.options,
        "machine": machine(gpu, leader, deterministic, passes, compiles), "finished": False})


def _run_id(row: chain.Row, resume: Optional[str]) -> str:
    """What ties a run's folder to the record of its weights; a resumed run keeps its own."""
    old = files.read_json(row.path(os.path.join(row.folder, "run.json"))) or {}
    return str(old["run"]) if resume and old.get("run") else uuid.uuid4().hex


def machine(gpu: Optional[int], leader, deterministic: bool, passes: Optional[int], compiles: Optional[bool] = None) -> list:
    """Words of make's command line that say what trains, and how."""
    words = ["DETERMINISTIC=1"] if deterministic else []
    words += [f"ITER_SIZE={passes}"] if passes is not None else []
    words += [f"COMPILE={compiles:d}"] if compiles is not None else []
    if leader is not None:
        return [f"{'GPUS' if leader.gpus else 'PROCESSES'}={leader.count}", *words]
    return words if gpu is None else [f"GPU={gpu}", *words]


def expected_layers(row: chain.Row, net) -> list:
    """Layers that the weights have to fill: all that learn but a new last layer."""
    return [layer.name for layer in net.layer if layer.type in LEARNING and layer.name != row.head]
