"""What is computed from a parameter once and kept: filters in the form that a faster convolution wants."""

from __future__ import annotations

import torch


class Derived:
    """`make(tensor, *how)` of a blob's tensor, made again where the blob may have been written or `how` is another.

    Users of pycaffe write parameters through numpy, in place and unannounced. Where nobody holds the array, the blob
    knows when it last gave it away; while somebody does, the numbers themselves are compared with a copy.
    """

    def __init__(self, make):
        self._make = make
        self._value = self._memory = self._how = self._stamp = self._copy = None

    def get(self, blob, *how):
        """The value for what `blob` holds now."""
        memory, tensor = blob.data_memory, blob.tensor().detach()
        stamp = memory.stamp()
        if self._memory is memory and self._how == how and self._same(stamp, tensor):
            return self._value
        self._value = None  # so that the old and the new are not held at once
        self._value = self._make(tensor, *how)
        self._memory, self._how, self._stamp = memory, how, stamp
        self._copy = tensor.clone() if stamp is None else None
        return self._value

    def _same(self, stamp, tensor):
        if stamp is not None and stamp == self._stamp:
            return True
        if self._copy is None or not torch.equal(self._copy, tensor):
            return False
        if stamp is not None:  # let go without a change
            self._stamp, self._copy = stamp, None
        return True
