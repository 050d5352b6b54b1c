"""Values computed from a parameter and cached until it changes: filters in the layout of a faster convolution."""

from __future__ import annotations

import torch


class Derived:
    """Cache of `make(tensor, *how)` for a blob's tensor, computed again when the blob or `how` has changed.

    Users of pycaffe write parameters through numpy, in place. While no array is held outside, the blob's stamp tells
    whether it was written; while one is, the numbers are compared with a copy.
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
