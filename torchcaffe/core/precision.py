"""PyTorch's settings for a net's precision (mode.set_precision): "float32" as Caffe, "tf32", or "bf16" for products."""

from __future__ import annotations

import torch

from torchcaffe.core import determinism, log
from torchcaffe.core.errors import CaffeError


def checked(name: str, device) -> str:
    """`name`, if a net on `device` can use that precision; warns where it is slow. Raises CaffeError if it cannot."""
    if device.type == "cpu" and name == "tf32":
        raise CaffeError("precision tf32 is a GPU's; on a CPU use float32, or bf16 where the processor has it")
    if device.type == "cpu" and name == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        log.warning("This processor has no bfloat16 instructions: precision bf16 is slower than float32 here.")
    return name


def apply(net, training=False):
    """Set PyTorch's process-wide flags for this net. By default PyTorch lets cuDNN round float32 to tf32."""
    if net.device.type != "cuda":
        return
    # Not by fp32_precision, PyTorch's newer names: once they are set, torch.export fails, which asks by these.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = net.precision != "float32"
    # Benchmarking cuDNN's algorithms pays where batches keep their shape, but its choice varies from run to run: only in
    # training, since a prediction must not depend on what ran before.
    torch.backends.cudnn.benchmark = training and not determinism.enabled()


def cast(layer, tensors):
    """The tensors in the type that the layer computes in: float32, unless it works in any precision."""
    if layer.context.precision == "float32" or layer.any_precision:
        return tensors
    return [tensor.float() if tensor.dtype == torch.bfloat16 else tensor for tensor in tensors]
