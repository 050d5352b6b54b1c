"""Tell whether an input is still what it was: fingerprints of files and LMDBs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Dict, List, Optional

CHUNK = 1 << 20  # bytes read at a time


def differences(old: Dict[str, str], new: Dict[str, str]) -> List[str]:
    """Sentences on what is not the same in two results of `fingerprints`."""
    found = []
    for name in sorted(set(old) | set(new)):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if name.startswith("solver's "):
            found.append(f"{name} was {before or 'not set'}, is {now or 'not set'}")
        else:
            found.append(f"{name} has changed" if before and now else f"{name} is {'new' if now else 'no longer used'}")
    return found


def sha256_of(path: str) -> str:
    """sha256 of a file, 64 hexadecimal digits."""
    return digest_of(path, hashlib.sha256())


def digest_of(path: str, digest) -> str:
    """Hexadecimal digits of a file by a hash of hashlib."""
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def database_fingerprint(path: str) -> str:
    """Fingerprint of an LMDB folder: of its builder's notes, or else of its size and its records' names.

    Raises torchcaffe's DataError for a damaged LMDB.
    """
    name = os.path.basename(path)
    manifest = read_json(os.path.join(os.path.dirname(path), "manifest.json")) or {}
    entry = manifest.get(name.split("_")[0], {})
    digest = hashlib.sha256()
    if "facts" in entry and name in entry.get("images", {}):
        facts = {key: value for key, value in entry["facts"].items() if key != "splits"}  # not of this LMDB
        digest.update(json.dumps([facts, name, entry["images"][name]], sort_keys=True).encode())
        return digest.hexdigest()
    for key, _ in _records(path):
        digest.update(bytes(key) + b"\0")
    digest.update(str(os.path.getsize(os.path.join(path, "data.mdb"))).encode())
    return digest.hexdigest()


def count_records(path: str) -> int:
    """Number of records of an LMDB folder. Raises torchcaffe's DataError where it cannot be read."""
    from torchcaffe.datasource import Environment

    return Environment.open(path).lmdb.stat()["entries"]


def stored_size(path: str):
    """(height, width) of the first image of an LMDB folder. Raises torchcaffe's DataError, also for a damaged one."""
    from torchcaffe.datasource import Environment
    from torchcaffe.datum import to_array

    environment = Environment.open(path)
    with contextlib.closing(_records(path)) as records:
        key, value = next(records)
        return to_array(environment.datum(key, value), environment.where(key)).shape[1:]


def read_json(path: str) -> Optional[dict]:
    """Object in a JSON file; None where the file is missing, torn, or holds something else."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _records(path: str):
    """(key, value) of each record. Raises torchcaffe's DataError, also for a damaged LMDB."""
    from torchcaffe.datasource import Environment

    return Environment.open(path).records_from(0, False, endless=False)
