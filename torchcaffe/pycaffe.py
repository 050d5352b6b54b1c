"""`caffe.pycaffe`: where scripts written for pycaffe also look for nets and solvers."""

from torchcaffe.core.blob import Blob, BlobVec, IntVec
from torchcaffe.layers import Layer
from torchcaffe.core.log import init_log, log
from torchcaffe.core.mode import (
    has_nccl, set_device, set_mode_cpu, set_mode_gpu, set_multiprocess, set_solver_count, set_solver_rank,
    solver_count, solver_rank,
)
from torchcaffe.distributed.nccl import NCCL
from torchcaffe.core.net import Net
from torchcaffe.core.rng import set_random_seed
from torchcaffe.solvers.solver import (
    AdaDeltaSolver, AdaGradSolver, AdamSolver, NesterovSolver, RMSPropSolver, SGDSolver, get_solver,
)
from torchcaffe.core.timer import Timer
from torchcaffe.core.vectors import BoolVec, DtypeVec, LayerVec, NetVec, RawBlobVec, StringVec

Solver = SGDSolver

__all__ = [
    "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Blob", "BlobVec", "BoolVec", "DtypeVec", "IntVec", "Layer",
    "LayerVec", "NCCL", "Net", "NetVec", "NesterovSolver", "RMSPropSolver", "RawBlobVec", "SGDSolver", "Solver",
    "StringVec", "Timer", "get_solver", "has_nccl", "init_log", "layer_type_list", "log", "set_device", "set_mode_cpu",
    "set_mode_gpu", "set_multiprocess", "set_random_seed", "set_solver_count", "set_solver_rank", "solver_count",
    "solver_rank",
]  # fmt: skip


def layer_type_list() -> list[str]:
    """Names of the known layer types, sorted."""
    from torchcaffe.layers import layer_types

    return layer_types()
