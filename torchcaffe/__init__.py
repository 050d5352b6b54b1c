"""pycaffe on PyTorch: `import torchcaffe as caffe`.

Reads and writes Caffe 1.0's own files and computes what Caffe computes, on any CPU and on today's GPUs. Names are
resolved on first use, so that importing this package loads neither torch nor protobuf. For code that says
`import caffe`:

    import torchcaffe; torchcaffe.install()
"""

import importlib
import os
import sys

__version__ = "1.0.0"  # the version of Caffe whose behavior this is
TRAIN, TEST = 0, 1

_HOMES = {
    "install": "aliases",
    "allow_python_layers": "core.permission",
    "Net": "core.net",
    "Classifier": "classifier",
    "Detector": "detector",
    "NCCL": "distributed.nccl",
    "Timer": "core.timer",
    "init_log": "core.log",
    "SGDSolver": "solvers.solver",
    "NesterovSolver": "solvers.solver",
    "AdaGradSolver": "solvers.solver",
    "RMSPropSolver": "solvers.solver",
    "AdaDeltaSolver": "solvers.solver",
    "AdamSolver": "solvers.solver",
    "get_solver": "solvers.solver",
    "set_mode_cpu": "core.mode",
    "set_mode_gpu": "core.mode",
    "set_precision": "core.mode",
    "set_exact_draws": "core.mode",
    "set_deterministic": "core.determinism",
    "set_compile": "core.compiled",
    "set_device": "core.mode",
    "solver_count": "core.mode",
    "set_solver_count": "core.mode",
    "solver_rank": "core.mode",
    "set_solver_rank": "core.mode",
    "set_multiprocess": "core.mode",
    "has_nccl": "core.mode",
    "set_random_seed": "core.rng",
    "Layer": "layers",
    "TorchLayer": "layers",
    "register_layer": "layers",
    "to_torch": "core.torch_module",
    "layers": "net_spec",
    "params": "net_spec",
    "NetSpec": "net_spec",
    "to_proto": "net_spec",
}
_MODULES = ("classifier", "coord_map", "detector", "draw", "io", "net_spec", "proto", "pycaffe", "_caffe")

# Threads that spin while they wait slow a training down several times where another process shares the cores; threads
# that sleep at once cost a third where none does. OpenMP reads these when torch is loaded: they have no effect where a
# script imports torch first. GNU's OpenMP, which PyTorch's Linux builds have, puts the second before the first.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # some ten microseconds
# Memory in pages of 2 MB, asked for from torch's first large tensor on: activations are new memory in each iteration, and
# pages of 4 KB cost a fifth of the time of a training on a CPU (benchmarks/training.py).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
if sys.version_info >= (3, 10):  # a Caffe of one's own may run in an older Python, which imports solvers/snapshots.py alone
    from torchcaffe.aliases import ALIASES, watch

    watch()  # for `sys.modules["caffe"] = torchcaffe` and torchcaffe.install()


def layer_type_list():
    """Names of the known layer types, sorted."""
    from torchcaffe.layers import layer_types

    return layer_types()


def __getattr__(name):
    if name in _MODULES or name in ALIASES:
        return importlib.import_module("torchcaffe." + name)
    if name in _HOMES:
        value = getattr(importlib.import_module("torchcaffe." + _HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError("module 'torchcaffe' has no attribute %r" % name)


def __dir__():
    public = list(_HOMES) + list(_MODULES) + list(ALIASES) + ["TEST", "TRAIN", "layer_type_list", "__version__"]
    return sorted(name for name in public if name != "_caffe")
