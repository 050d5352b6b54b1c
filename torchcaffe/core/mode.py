"""Where and how this thread computes: set_mode_cpu, set_mode_gpu, set_device, set_precision, pycaffe's ranks."""

from __future__ import annotations

import threading

from torchcaffe.core.errors import CaffeError
from torchcaffe.distributed.shares import Share

PRECISIONS = ("float32", "tf32", "bf16")


class _Settings(threading.local):
    gpu = False
    precision = "float32"
    device_id = 0
    solver_count = 1
    solver_rank = 0
    split_batch = False
    multiprocess = False


_settings = _Settings()


def set_mode_cpu():
    """Nets built from now on in this thread compute on the CPU."""
    _settings.gpu = False


def set_mode_gpu():
    """Nets built from now on in this thread compute on the GPU chosen by set_device (0 unless called)."""
    check_gpu(_settings.device_id)
    _settings.gpu = True


def set_device(device_id: int):
    """Choose the GPU. Raises CaffeError where there is none of that number."""
    check_gpu(device_id)
    _settings.device_id = int(device_id)


def check_gpu(device_id: int):
    """Raise CaffeError where this machine has no GPU of that number that PyTorch can use."""
    import torch

    if not torch.cuda.is_available():
        raise CaffeError("no CUDA GPU is usable by this PyTorch; leave out GPU= (or -gpu) to compute on the CPU")
    if not 0 <= device_id < torch.cuda.device_count():
        raise CaffeError(f"there is no GPU {device_id}; this machine has 0 to {torch.cuda.device_count() - 1}")


def set_precision(name: str):
    """How nets built from now on in this thread multiply; weights, their updates and losses are float32 in each.

    "float32", Caffe's; "tf32": a GPU's tensor cores, with 10 bits of mantissa; "bf16": convolutions and inner products,
    and the activations between them, in bfloat16 (8 bits), on GPUs and on CPUs that have it. Raises ValueError for
    another name; a net on a CPU refuses "tf32".
    """
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; known: {', '.join(PRECISIONS)}")
    _settings.precision = name


def precision() -> str:
    """Precision of nets built now in this thread."""
    return _settings.precision


def device():
    """torch.device of this thread."""
    import torch

    return torch.device("cuda", _settings.device_id) if _settings.gpu else torch.device("cpu")


def solver_count() -> int:
    return _settings.solver_count


def set_solver_count(count: int):
    _settings.solver_count = int(count)


def solver_rank() -> int:
    return _settings.solver_rank


def set_solver_rank(rank: int):
    _settings.solver_rank = int(rank)


def share() -> Share:
    """This thread's part of every training batch."""
    return Share(_settings.solver_rank, _settings.solver_count, _settings.split_batch)


def set_split_batch(split: bool):
    """True: batch_size in a net's file counts the items of all solvers. False (Caffe): those of each solver."""
    _settings.split_batch = bool(split)


def set_multiprocess(multiprocess: bool):
    _settings.multiprocess = bool(multiprocess)


def has_nccl() -> bool:
    """True where PyTorch can reduce over NCCL."""
    import torch

    return torch.distributed.is_available() and torch.distributed.is_nccl_available()
