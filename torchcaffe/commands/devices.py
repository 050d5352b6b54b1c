"""Which GPU a command computes on, and `device_query`."""

from __future__ import annotations

from torchcaffe.core import log, mode
from torchcaffe.commands.flags import UsageError
from torchcaffe.core.errors import CaffeError

# label of Caffe's device_query -> attribute of torch's device properties
_PROPERTIES = (
    ("Major revision number", "major"),
    ("Minor revision number", "minor"),
    ("Name", "name"),
    ("Total global memory", "total_memory"),
    ("Total shared memory per block", "shared_memory_per_block"),
    ("Total registers per block", "regs_per_multiprocessor"),
    ("Warp size", "warp_size"),
    ("Clock rate", "clock_rate"),
    ("Number of multiprocessors", "multi_processor_count"),
)
IN_SOLVER, IN_WORDS = "solver_mode: GPU", "GPU"  # what asks for a GPU besides -gpu
_ON_CPU = {IN_SOLVER: "write solver_mode: CPU", IN_WORDS: "give CPU instead"}


def numbers(text: str) -> list:
    """GPU numbers of the flag -gpu ("", "0,1" or "all"). Raises UsageError, CaffeError."""
    if text == "all":
        import torch

        check(0, "-gpu all")
        return list(range(torch.cuda.device_count()))
    try:
        return [int(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"flag '-gpu' takes GPU numbers such as 0 or 0,1, or all, not '{text}'") from None


def check(number: int, flag: str = ""):
    """Raise CaffeError where PyTorch cannot compute on this GPU; `flag`: what asked for it (-gpu unless given)."""
    reason = mode.why_no_gpu(number)
    if reason:
        raise CaffeError(f"{flag or f'-gpu {number}'}: {reason}; {_ON_CPU.get(flag, 'leave out -gpu')} to compute on the CPU")


def use(gpus, training=False, rank=0, flag=""):
    """Compute on one of these GPUs, or on the CPU where there are none; says which, as Caffe does.

    `rank`: of this process among those that train on this machine; it counts into `gpus`. `flag`: see check.
    Raises UsageError, CaffeError.
    """
    if not gpus:
        log.info("Use CPU.")
        mode.set_mode_cpu()
        return
    import torch

    if rank >= len(gpus):
        raise UsageError(
            f"-gpu names {len(gpus)} of this machine's GPUs, but there is a rank {rank} here: "
            "name one for each rank, or all"
        )
    check(gpus[rank], flag)
    mode.set_device(gpus[rank])
    mode.set_mode_gpu()
    if training:
        log.info(f"Using GPUs {', '.join(map(str, gpus))}")
    else:
        log.info(f"Use GPU with device ID {gpus[rank]}")
    for number in gpus if training else gpus[:1]:
        name = torch.cuda.get_device_name(number)
        log.info(f"GPU {number}: {name}" if training else f"GPU device name: {name}")


def stages(text: str) -> list:
    """Names in the flag -stage."""
    return [name for name in text.split(",") if name]


def device_query(flags):
    """Log what the GPUs of -gpu are."""
    import torch

    gpus = numbers(flags.gpu)
    log.info(f"Querying GPUs {flags.gpu}")
    for number in gpus:
        check(number)
        found = torch.cuda.get_device_properties(number)
        log.info(f"{'Device id:':<31}{number}")
        for label, name in _PROPERTIES:
            if hasattr(found, name):
                log.info(f"{label + ':':<31}{getattr(found, name)}")
