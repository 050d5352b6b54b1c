"""Which GPUs this machine has, without loading PyTorch: from what the NVIDIA driver shows of itself."""

from __future__ import annotations

import glob
import os
from importlib import metadata
from typing import List

DRIVER = "/proc/driver/nvidia/gpus/*/information"
HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES with which CUDA finds none


def models() -> List[str]:
    """Names of the NVIDIA GPUs that this process may use, such as "NVIDIA H100 80GB HBM3"."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in HIDDEN:
        return []
    found = []
    for path in sorted(glob.glob(DRIVER)):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                lines = dict(line.split(":", 1) for line in stream if ":" in line)
        except OSError:
            continue
        found.append(lines.get("Model", "NVIDIA GPU").strip())
    return found


def idle_note() -> str:
    """One line for a training on the CPU of a machine that has a GPU; "" where there is none."""
    found = models()
    if not found:
        return ""
    try:
        cpu_build = metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        cpu_build = False
    how = "make setup TORCH=cu130 installs PyTorch for it, and GPU=0 (--gpu 0)" if cpu_build else "GPU=0 (--gpu 0)"
    what = found[0] if len(found) == 1 else f"{len(found)} GPUs, {found[0]} first"
    return f"note: this machine's GPU is idle ({what}) and the CPU trains: {how} trains on it"
