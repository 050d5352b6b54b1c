"""The same bits from run to run on a GPU: caffe.set_deterministic(), and which layer lacks a kernel for it.

On a CPU all of torchcaffe is so anyway. On a GPU cuDNN and cuBLAS choose by measuring, and some kernels add up in the
order in which threads come; the switch, for the whole process, keeps to those that do neither.
"""

from __future__ import annotations

import contextlib
import os

from torchcaffe.core.errors import CaffeError, NetError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it when it starts
WORKSPACES = (":4096:8", ":16:8")  # those with which its results do not depend on timing
LACKING = "does not have a deterministic implementation"  # in PyTorch's message


def set_deterministic(deterministic: bool = True):
    """True: the same seed gives the same bits on the same GPU, PyTorch and CUDA, at some cost in speed.

    Call it before anything is computed on a GPU: raises CaffeError where it is too late. A layer without a deterministic
    kernel raises NetError when it runs.
    """
    import torch

    if deterministic and os.environ.setdefault(WORKSPACE, WORKSPACES[0]) not in WORKSPACES:
        raise CaffeError(f"{WORKSPACE}={os.environ[WORKSPACE]} is not deterministic: unset it, or give {' or '.join(WORKSPACES)}")
    if deterministic and not enabled() and torch.cuda.is_initialized():
        raise CaffeError("set_deterministic() comes too late, CUDA has started: call it before set_mode_gpu() and set_device()")
    torch.use_deterministic_algorithms(bool(deterministic))
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads such memory, and filling takes time
    torch.backends.cudnn.deterministic = bool(deterministic)
    torch.backends.cudnn.benchmark = False


def enabled() -> bool:
    """True after set_deterministic()."""
    import torch

    return torch.are_deterministic_algorithms_enabled()


def lacking(layer, problem) -> NetError:
    """The error of a layer for which PyTorch has no deterministic kernel."""
    operation = str(problem).split(LACKING)[0].strip()
    return NetError(f'layer "{layer.name}" ({layer.type}): {operation} {LACKING} on this device; leave out '
                    "set_deterministic() (DETERMINISTIC=), or replace the layer")


class Backward:
    """Which layer the backward pass of a whole net is in; nothing is watched where the switch is off."""

    def __init__(self):
        self.layer = None

    def watch(self, node, tops):
        """Note the layer as soon as the gradient reaches one of its tops."""
        if not enabled():
            return
        for tensor in tops:
            if tensor is not None and tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(lambda gradients, layer=node.layer: setattr(self, "layer", layer))

    @contextlib.contextmanager
    def named(self):
        """Turn PyTorch's error about a missing kernel into a NetError that names the layer."""
        try:
            yield
        except RuntimeError as problem:
            if self.layer is None or isinstance(problem, CaffeError) or LACKING not in str(problem):
                raise
            raise lacking(self.layer, problem) from problem
