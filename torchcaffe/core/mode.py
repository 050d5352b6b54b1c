"""Where and how this thread computes: set_mode_cpu, set_mode_gpu, set_device, set_precision, pycaffe's ranks."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

from torchcaffe.core.errors import CaffeError
from torchcaffe.distributed.shares import Share

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "tf32", "bf16")


class NoGPUError(CaffeError):
    """PyTorch cannot compute on the GPU that was asked for; `reason` is why_no_gpu()'s."""

    def __init__(self, reason):
        super().__init__(f"{reason}; call set_mode_cpu() instead to compute on the CPU")
        self.reason = reason


class _Settings(threading.local):
    gpu = False
    exact_draws = False
    precision = "float32"
    device_id = 0
    solver_count = 1
    solver_rank = 0
    split_batch = False
    multiprocess = False


_settings = _Settings()


def set_mode_cpu() -> None:
    """Nets built from now on in this thread compute on the CPU."""
    _settings.gpu = False


def set_mode_gpu() -> None:
    """Nets built from now on in this thread compute on the GPU chosen by set_device (0 unless called)."""
    check_gpu(_settings.device_id)
    _settings.gpu = True


def set_device(device_id: int) -> None:
    """Choose the GPU. Raises CaffeError where there is none of that number."""
    check_gpu(device_id)
    _settings.device_id = int(device_id)


def check_gpu(device_id: int) -> None:
    """Raise CaffeError where PyTorch cannot compute on the GPU of that number; says why, and what to call."""
    reason = why_no_gpu(device_id)
    if reason:
        raise NoGPUError(reason)


def why_no_gpu(device_id: int = 0) -> str:
    """Why PyTorch cannot compute on the GPU of that number, with the remedy; "" where it can."""
    import warnings

    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return (f"this PyTorch ({torch.__version__}) is a CPU build; install one for your GPU: make setup TORCH=cu130, or "
                "https://pytorch.org/get-started")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of what is returned here
        if not torch.cuda.is_available():
            return _why_no_cuda(torch)
        count = torch.cuda.device_count()
        if not 0 <= device_id < count:
            return f"there is no GPU {device_id}; this machine has " + (f"GPUs 0 to {count - 1}" if count > 1 else "GPU 0 only")
        built_for = torch.cuda.get_arch_list()
        if torch.version.hip is None and not _supported(torch.cuda.get_device_capability(device_id), built_for):
            return (f"GPU {device_id} ({torch.cuda.get_device_name(device_id)}) is not supported by this PyTorch "
                    f"({torch.__version__}), which is built for {', '.join(built_for)}; "
                    + _build_for(torch.cuda.get_device_capability(device_id)))
    return ""


OLDEST_CUDA_13 = (7, 5)  # compute capability: PyTorch's builds for CUDA 13 begin with Turing, those for 12.6 with Maxwell
OLDEST_DRIVER_12 = 12000  # CUDA version of the oldest driver that runs a build for CUDA 12


def _build_for(capability) -> str:
    """The remedy for a GPU of this compute capability that the installed build has no code for."""
    if capability < OLDEST_CUDA_13:
        return "install a build that still has this GPU: make setup TORCH=cu126"
    return "install a newer build: make setup TORCH=cu130"


def _driver_remedy(message: str) -> str:
    """What to do about a driver that is too old; `message` is PyTorch's, with the CUDA version that the driver has."""
    found = re.search(r"found version (\d+)", message)
    version = int(found.group(1)) if found else 0
    if version < OLDEST_DRIVER_12:
        return "update it: https://www.nvidia.com/drivers"
    return f"update it, or install a build for its CUDA {version // 1000}.{version % 1000 // 10}: make setup TORCH=cu126"


def _why_no_cuda(torch) -> str:
    """Why a build for GPUs finds none: what the driver says."""
    try:
        torch.cuda.init()
        message = "no GPU is found"
    except (RuntimeError, AssertionError) as problem:
        message = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
    if "too old" in message:
        return f"the NVIDIA driver is too old for this PyTorch ({torch.__version__}); {_driver_remedy(message)}"
    if "no NVIDIA driver" in message:
        return "no GPU can be used: there is no NVIDIA driver on this machine; install one: https://www.nvidia.com/drivers"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides all GPUs; unset it"
    return f"PyTorch finds no usable GPU ({message}); nvidia-smi shows what the driver finds"


def _supported(capability, built_for) -> bool:
    """True where a build for architectures such as sm_80, sm_90a and compute_90 runs on a GPU of this (major, minor)."""
    for name in built_for:
        parts = re.fullmatch(r"(sm|compute)_(\d+)([a-z]*)", name)
        if parts is None:
            continue
        kind, number, suffix = parts.groups()
        built = divmod(int(number), 10)
        if suffix == "a":  # for this architecture only
            fits = built == capability
        elif kind == "compute":  # is compiled for later architectures when it is loaded
            fits = built <= capability
        else:  # runs on later minor versions
            fits = built[0] == capability[0] and built[1] <= capability[1]
        if fits:
            return True
    return False


def set_precision(name: str) -> None:
    """How nets built from now on in this thread multiply; weights, their updates and losses are float32 in each.

    "float32", Caffe's; "tf32": a GPU's tensor cores, with 10 bits of mantissa; "bf16": convolutions and inner products,
    and the activations between them, in bfloat16 (8 bits), on GPUs and on CPUs that have it. Raises ValueError for
    another name; a net on a CPU refuses "tf32".
    """
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; known: {', '.join(PRECISIONS)}")
    _settings.precision = name


def set_exact_draws(exact: bool):
    """True: Dropout and STOCHASTIC pooling of nets built from now on in this thread draw the CPU's numbers on a GPU, too.

    They are drawn on the CPU and copied, which is slow: it is for comparing a GPU with a CPU. False: the GPU draws its own.
    """
    _settings.exact_draws = bool(exact)


def exact_draws() -> bool:
    """True where nets built now in this thread draw Caffe's numbers: always on the CPU."""
    return _settings.exact_draws or not _settings.gpu


def precision() -> str:
    """Precision of nets built now in this thread."""
    return _settings.precision


def device() -> torch.device:
    """torch.device of this thread."""
    import torch

    return torch.device("cuda", _settings.device_id) if _settings.gpu else torch.device("cpu")


def solver_count() -> int:
    return _settings.solver_count


def set_solver_count(count: int) -> None:
    _settings.solver_count = int(count)


def solver_rank() -> int:
    return _settings.solver_rank


def set_solver_rank(rank: int) -> None:
    _settings.solver_rank = int(rank)


def share() -> Share:
    """This thread's part of every training batch."""
    return Share(_settings.solver_rank, _settings.solver_count, _settings.split_batch)


def set_split_batch(split: bool) -> None:
    """True: batch_size in a net's file counts the items of all solvers. False (Caffe): those of each solver."""
    _settings.split_batch = bool(split)


def set_multiprocess(multiprocess: bool) -> None:
    _settings.multiprocess = bool(multiprocess)


def has_nccl() -> bool:
    """True where PyTorch can reduce over NCCL."""
    import torch

    return torch.distributed.is_available() and torch.distributed.is_nccl_available()
