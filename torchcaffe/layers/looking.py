"""When the host may look at a tensor's numbers: on a GPU that waits for it; in a compiled or captured pass it cannot."""

from __future__ import annotations

import contextlib
import threading

import torch

NONE = torch.iinfo(torch.int64).min  # no number was out of range


class _Tracing(threading.local):
    active = False


_tracing = _Tracing()


@contextlib.contextmanager
def nowhere():
    """While a pass is traced (core/compiled.py): it holds for all numbers, so layers look at none, and defer their checks."""
    _tracing.active = True
    try:
        yield
    finally:
        _tracing.active = False


def waits(tensor) -> bool:
    """True where to look at numbers of `tensor` is to wait for a GPU, or cannot be done."""
    return tensor.device.type != "cpu" or _tracing.active


def possible(tensor) -> bool:
    """False in a pass that is being compiled, or captured into a CUDA graph: nothing may depend on a number there."""
    if _tracing.active or torch.compiler.is_compiling():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def in_range(layer, numbers, count: int, what: str, ignore=None):
    """`numbers` (int64, such as labels), each 0 to `count` - 1 or `ignore`. Raises NetError, with the largest that is not.

    Where the check would wait for a GPU it is deferred (Layer.flush), and numbers out of range become 0 until then; a
    traceable layer leaves it to torch. `what` is the message, with {} for the number.
    """
    if layer.context.traceable:
        return numbers
    if not waits(numbers) and numbers.numel():
        smallest, largest = torch.aminmax(numbers)
        if 0 <= smallest.item() and largest.item() < count:
            return numbers
    wrong = (numbers < 0) | (numbers >= count)
    if ignore is not None:
        wrong &= numbers != ignore
    layer.deferred_check = layer.deferred_check or RangeCheck(layer, what)
    layer.deferred_check.look(numbers, wrong)
    if waits(numbers):
        return numbers.masked_fill(wrong, 0)
    layer.flush()
    return numbers


class RangeCheck:
    """The check of a layer's labels or indices, of one batch or of many: the largest one out of range is named."""

    def __init__(self, layer, what: str):
        self.layer, self.what, self.largest = layer, what, None

    def look(self, numbers, wrong):
        if numbers.numel():
            self.add(torch.where(wrong, numbers, NONE).amax())

    def add(self, largest):
        """Note the largest number of a batch that is out of range, or NONE."""
        self.largest = largest if self.largest is None else torch.maximum(largest, self.largest)

    def __call__(self):
        number = NONE if self.largest is None else int(self.largest)
        self.layer.check(number == NONE, self.what.format(number))
