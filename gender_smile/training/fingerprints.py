"""What decides a training's result, as texts that do not depend on protobuf's release: settings, net, files, LMDBs.

    from gender_smile.training.fingerprints import differences, fingerprints
    differences(record["inputs"], fingerprints(row, solver, net))    # [] where the result still stands
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from typing import Dict, List, Optional, Tuple

from common.files import read_json, sha256_of

FORM, CURRENT_FORM = "form", "2"  # names the way in which fingerprints are made

# Solver fields that change what is shown and kept, not what is learned.
INDIFFERENT = {"net", "snapshot_prefix", "snapshot", "display", "test_iter", "test_interval", "test_initialization",
               "snapshot_after_train", "snapshot_diff", "snapshot_format", "solver_mode", "device_id", "debug_info",
               "average_loss", "test_compute_loss", "test_net", "test_net_param", "test_state",
               "iter_size"}  # counts in the batch size, see `fingerprints`
PER_PASS = ("BatchNorm",)  # types of layers whose numbers depend on how an iteration's batch is divided into passes


def fingerprints(row, solver=None, net=None) -> Dict[str, str]:
    """What determines a row's result, by name: the solver's fields, the net in training, each file's contents.

    row: a chain.Row. solver, net: SolverParameter and NetParameter with the row's overrides (none in step 1). What only
    tests read is not in it: see `validation`. The batch is that of an iteration, in however many passes (iter_size): the
    gradient is the same but for rounding, and dropout's masks are others, as likely. Only with PER_PASS is it something else.
    """
    inputs = {FORM: CURRENT_FORM}
    if solver is not None:
        for field, value in solver.ListFields():
            if field.name not in INDIFFERENT:
                inputs[f"solver's {field.name}"] = field_text(field, value)
    if row.precision != "float32":
        inputs["solver's precision"] = row.precision
    if net is not None:
        inputs["net"], batch = training_net(net)
        passes = max(1, solver.iter_size) if solver is not None else 1
        inputs["batch size"] = str(batch * passes)
        if passes > 1 and any(layer.type in PER_PASS for layer in net.layer):
            inputs["solver's iter_size"] = str(passes)
    if row.weights_in:
        inputs[row.weights_in] = sha256_of(row.path(row.weights_in))
    for part, path in row.databases.items():
        if part.startswith("train"):
            inputs[path] = database_fingerprint(row.path(path))
    return inputs


def validation(row) -> Dict[str, str]:
    """Fingerprints of the LMDBs that a row's tests read: they determine its loss and accuracy, not its weights."""
    return {path: database_fingerprint(row.path(path)) for part, path in row.databases.items() if part.startswith("val")}


def differences(old: Dict[str, str], new: Dict[str, str]) -> List[str]:
    """Sentences on what is not the same in two results of `fingerprints`, with both values where they are short."""
    if old.get(FORM) != new.get(FORM):
        return ["it was made by another version of this project"]
    sentences = []
    for name in sorted(set(old) | set(new)):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if not _is_digest(before) and not _is_digest(now):
            sentences.append(f"{name} was {before or 'not set'}, is {now or 'not set'}")
        else:
            sentences.append(f"{name} has changed" if before and now else f"{name} is {'new' if now else 'no longer used'}")
    return sentences


def _is_digest(value: Optional[str]) -> bool:
    return value is not None and len(value) == 64 and set(value) <= set("0123456789abcdef")


def shortest(value: float) -> str:
    """The shortest decimal text of a float32."""
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    as_float32 = struct.pack("<f", value)
    return next((text for text in texts if struct.pack("<f", float(text)) == as_float32), repr(value))


def field_text(field, value) -> str:
    """A solver field's value as text that does not depend on protobuf's release; a message as a digest of its bytes."""
    if not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        return " ".join(field_text(field, single) for single in value)
    if hasattr(value, "SerializeToString"):
        return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()
    if field.type == field.TYPE_FLOAT:
        return shortest(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else str(value)


def training_net(net) -> Tuple[str, int]:
    """(SHA-256, batch size) of what a net computes in training: without the layers of the test phase, its own name, the
    batch size, and how data is fetched."""
    from torchcaffe.proto import caffe_pb2

    kept = caffe_pb2.NetParameter()
    kept.CopyFrom(net)
    kept.ClearField("name")
    kept.ClearField("debug_info")
    del kept.layer[:]
    batch = 0
    for layer in net.layer:
        phases = {rule.phase for rule in layer.include if rule.HasField("phase")}
        if phases == {caffe_pb2.TEST} or caffe_pb2.TRAIN in {rule.phase for rule in layer.exclude if rule.HasField("phase")}:
            continue
        copy = kept.layer.add()
        copy.CopyFrom(layer)
        if layer.type == "Data":
            if not any(top.startswith("labels") for top in layer.top):  # which have a Data layer of their own beside the faces'
                batch += layer.data_param.batch_size
            copy.data_param.ClearField("batch_size")
            copy.data_param.ClearField("prefetch")
    return hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest(), batch


def database_fingerprint(path: str) -> str:
    """Fingerprint of an LMDB folder: of what its builder's manifest says of it, or else of its size and its records' names.

    Of the manifest count the data set's facts, those of the LMDB's own split, and its own number of images.
    Raises torchcaffe's DataError for a damaged LMDB.
    """
    name = os.path.basename(path)
    manifest = read_json(os.path.join(os.path.dirname(path), "manifest.json")) or {}
    entry = manifest.get(name.split("_")[0])
    entry = entry if isinstance(entry, dict) else {}
    digest = hashlib.sha256()
    if isinstance(entry.get("facts"), dict) and name in entry.get("images", {}):
        split = name.removesuffix("_labels").rsplit("_", 1)[1]
        facts = {**entry["facts"], **entry.get("split_facts", {}).get(split, {})}
        digest.update(json.dumps([facts, name, entry["images"][name]], sort_keys=True).encode())
        return digest.hexdigest()
    for key, _ in _records(path):
        digest.update(bytes(key) + b"\0")
    digest.update(str(os.path.getsize(os.path.join(path, "data.mdb"))).encode())
    return digest.hexdigest()


def count_records(path: str) -> int:
    """Number of records of an LMDB folder. Raises torchcaffe's DataError where it cannot be read."""
    from torchcaffe.data.datasource import Environment

    return Environment.open(path).lmdb.stat()["entries"]


def stored_size(path: str):
    """(height, width) of the first image of an LMDB folder. Raises torchcaffe's DataError, also for a damaged one."""
    from torchcaffe.data.datasource import Environment
    from torchcaffe.data.datum import to_array

    environment = Environment.open(path)
    with contextlib.closing(_records(path)) as records:
        key, value = next(records)
        return to_array(environment.datum(key, value), environment.where(key)).shape[1:]


def _records(path: str):
    """(key, value) of each record. Raises torchcaffe's DataError, also for a damaged LMDB."""
    from torchcaffe.data.datasource import Environment

    return Environment.open(path).records_from(0, False, endless=False)
