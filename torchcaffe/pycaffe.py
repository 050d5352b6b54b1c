"""`caffe.pycaffe`: where scripts written for pycaffe also look for nets and solvers."""

from torchcaffe.blob import Blob, BlobVec, IntVec
from torchcaffe.layers import Layer
from torchcaffe.log import init_log, log
from torchcaffe.mode import (
    has_nccl,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from torchcaffe.nccl import NCCL
from torchcaffe.net import Net
from torchcaffe.rng import set_random_seed
from torchcaffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from torchcaffe.timer import Timer
from torchcaffe.vectors import BoolVec, DtypeVec, LayerVec, NetVec, RawBlobVec, StringVec

Solver = SGDSolver

__all__ = [
    "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Blob", "BlobVec", "BoolVec", "DtypeVec", "IntVec", "Layer",
    "LayerVec", "NCCL", "Net", "NetVec", "NesterovSolver", "RMSPropSolver", "RawBlobVec", "SGDSolver", "Solver",
    "StringVec", "Timer", "get_solver", "has_nccl", "init_log", "layer_type_list", "log", "set_device", "set_mode_cpu",
    "set_mode_gpu", "set_multiprocess", "set_random_seed", "set_solver_count", "set_solver_rank", "solver_count",
    "solver_rank",
]  # fmt: skip


def layer_type_list():
    """Names of the known layer types, sorted."""
    from torchcaffe.layers import layer_types

    return layer_types()
