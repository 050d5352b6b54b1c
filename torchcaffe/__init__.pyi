# The types of the public names, for editors and type checkers: __init__.py resolves the same names on first use.
# tests/torchcaffe/test_types.py holds the two together.

from types import ModuleType
from typing import Final

from torchcaffe import _caffe as _caffe
from torchcaffe import classifier as classifier
from torchcaffe import coord_map as coord_map
from torchcaffe import detector as detector
from torchcaffe import draw as draw
from torchcaffe import errors as errors
from torchcaffe import export as export
from torchcaffe import files as files
from torchcaffe import io as io
from torchcaffe import net_spec as net_spec
from torchcaffe import parallel as parallel
from torchcaffe import proto as proto
from torchcaffe import pycaffe as pycaffe
from torchcaffe import rng as rng
from torchcaffe.aliases import install as install
from torchcaffe.classifier import Classifier as Classifier
from torchcaffe.core.compiled import set_compile as set_compile
from torchcaffe.core.determinism import set_deterministic as set_deterministic
from torchcaffe.core.log import init_log as init_log
from torchcaffe.core.mode import has_nccl as has_nccl
from torchcaffe.core.mode import set_device as set_device
from torchcaffe.core.mode import set_exact_draws as set_exact_draws
from torchcaffe.core.mode import set_mode_cpu as set_mode_cpu
from torchcaffe.core.mode import set_mode_gpu as set_mode_gpu
from torchcaffe.core.mode import set_multiprocess as set_multiprocess
from torchcaffe.core.mode import set_precision as set_precision
from torchcaffe.core.mode import set_solver_count as set_solver_count
from torchcaffe.core.mode import set_solver_rank as set_solver_rank
from torchcaffe.core.mode import solver_count as solver_count
from torchcaffe.core.mode import solver_rank as solver_rank
from torchcaffe.core.net import Net as Net
from torchcaffe.core.permission import allow_python_layers as allow_python_layers
from torchcaffe.core.rng import set_random_seed as set_random_seed
from torchcaffe.core.timer import Timer as Timer
from torchcaffe.core.torch_module import to_torch as to_torch
from torchcaffe.detector import Detector as Detector
from torchcaffe.distributed.nccl import NCCL as NCCL
from torchcaffe.layers import Layer as Layer
from torchcaffe.layers import TorchLayer as TorchLayer
from torchcaffe.layers import register_layer as register_layer
from torchcaffe.net_spec import NetSpec as NetSpec
from torchcaffe.net_spec import layers as layers
from torchcaffe.net_spec import params as params
from torchcaffe.net_spec import to_proto as to_proto
from torchcaffe.solvers.solver import AdaDeltaSolver as AdaDeltaSolver
from torchcaffe.solvers.solver import AdaGradSolver as AdaGradSolver
from torchcaffe.solvers.solver import AdamSolver as AdamSolver
from torchcaffe.solvers.solver import NesterovSolver as NesterovSolver
from torchcaffe.solvers.solver import RMSPropSolver as RMSPropSolver
from torchcaffe.solvers.solver import SGDSolver as SGDSolver
from torchcaffe.solvers.solver import get_solver as get_solver

__version__: str
TRAIN: Final = 0
TEST: Final = 1

class _Log(ModuleType):
    """caffe.log("text"), caffe.log.quiet(): a module that can be called."""

    INFO: int
    WARNING: int
    ERROR: int
    def __call__(self, message: str) -> None: ...
    def quiet(self, quiet: bool = True) -> None: ...

log: _Log

def layer_type_list() -> list[str]: ...
