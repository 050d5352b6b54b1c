"""Content hashes that detect stale results: of nets, solvers, files and LMDBs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from common.files import read_json
from typing import Dict, List, Optional, Tuple

FORM = "form"  # names the way in which fingerprints are made; earlier versions of the project had none


def differences(old: Dict[str, str], new: Dict[str, str]) -> List[str]:
    """Sentences on what is not the same in two results of chain.fingerprints, with both values where they are short."""
    found = []
    for name in sorted((set(old) | set(new)) - {FORM}):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if not _is_digest(before) and not _is_digest(now):
            found.append(f"{name} was {before or 'not set'}, is {now or 'not set'}")
        else:
            found.append(f"{name} has changed" if before and now else f"{name} is {'new' if now else 'no longer used'}")
    return found


def converted(old: Dict[str, str], now: Dict[str, str], net=None) -> Dict[str, str]:
    """`old` in today's form, where an earlier version of this project made it: numbers were as protobuf printed them.

    net: the NetParameter that was trained. What cannot be converted exactly is taken from `now`, so that it does not
    count as a difference: LMDBs, and the net where it is not given.
    """
    if FORM in old:
        return old
    found = {name: value for name, value in now.items() if not name.startswith("solver's ") and not name.endswith(".caffemodel")}
    for name, value in old.items():
        if name.startswith("solver's "):
            found[name] = _number(value)
        elif name.endswith(".caffemodel"):
            found[name] = value
    if net is not None:
        found["net"], batch = training_net(net)
        found["batch size"] = str(batch)
    return found


def _number(text: str) -> str:
    """A float as `shortest` has it; other text as it is."""
    try:
        return text if text.isdecimal() else shortest(float(text))
    except ValueError:
        return text


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
            batch = batch or layer.data_param.batch_size
            copy.data_param.ClearField("batch_size")
            copy.data_param.ClearField("prefetch")
    return hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest(), batch


def database_fingerprint(path: str) -> str:
    """Fingerprint of an LMDB folder: of what its builder's manifest says of it, or else of its size and its records' names.

    Of the manifest count the data set's facts, those of the LMDB's own split, and its own number of images. A manifest of
    earlier versions has all splits' facts together. Raises torchcaffe's DataError for a damaged LMDB.
    """
    name = os.path.basename(path)
    manifest = read_json(os.path.join(os.path.dirname(path), "manifest.json")) or {}
    entry = manifest.get(name.split("_")[0])
    entry = entry if isinstance(entry, dict) else {}
    digest = hashlib.sha256()
    if isinstance(entry.get("facts"), dict) and name in entry.get("images", {}):
        facts = {key: value for key, value in entry["facts"].items() if key != "splits"}  # not of this LMDB
        split = name.removesuffix("_labels").rsplit("_", 1)[1]
        facts.update((entry.get("split_facts") or {}).get(split, {}))
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
