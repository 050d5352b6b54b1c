"""A layer in its place in a net: its blobs, its loss weights, and what running it needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, List, Optional

from torchcaffe.core.blob import Blob


@dataclass(eq=False)
class Node:
    """One layer of a built net.

    bottom_needs_backward: for each bottom, whether backward gives it a gradient.
    may_overwrite: the layer works in place on what a layer that does not need its top for backward has just computed.
    fused_relu: index of the ReLU that this layer may compute with its own output, or None.
    """

    index: int
    layer: Any  # torchcaffe.layers.base.Layer
    bottoms: List[Blob]
    tops: List[Blob]
    top_names: List[str]
    bottom_needs_backward: List[bool]
    loss_weights: List[float] = field(default_factory=list)
    needs_backward: bool = False
    may_overwrite: bool = False
    fused_relu: Optional[int] = None
    recorded: Optional[tuple] = None  # (inputs, tops) of the last forward, with its graph, for a backward layer by layer
    _seen_shapes: Optional[list] = None  # of the bottoms, at the last reshape
    _memory_unchecked: bool = True
    _gradients_unchecked: bool = True

    @property
    def in_place(self) -> bool:
        return bool(self.tops and self.bottoms) and self.tops[0] is self.bottoms[0]

    def reshape(self):
        """Give the tops the shapes that follow from the bottoms'."""
        self.layer.reshape(self.bottoms, self.tops)
        self._seen_shapes = [blob.dims for blob in self.bottoms]
        self._memory_unchecked = True

    def prepare(self):
        """Reshape where a bottom has changed its shape; a Python layer always, as in Caffe. Raises NetError, ShapeError."""
        if self.layer.works_on_blobs or self._seen_shapes != [blob.dims for blob in self.bottoms]:
            self.reshape()
        if self._memory_unchecked:
            self.require_memory()
            self._memory_unchecked = False

    def check_gradients(self):
        """NetError where backward wants a gradient that the layer does not have."""
        if self._gradients_unchecked:
            self.layer.check_gradients(self.bottom_needs_backward)
            self._gradients_unchecked = False

    def require_memory(self, there=None):
        """NetError with the sum where the tops need more bytes than are available, or than `there`."""
        tops = [blob for blob in self.tops if blob not in self.bottoms and not self.layer.is_view]
        shapes = ", ".join(str(blob.dims) for blob in tops)
        self.layer.require(4 * sum(blob.count for blob in tops), f"its output of shape {shapes}", there)
