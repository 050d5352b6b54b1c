"""Axpy: the scaled shortcut of squeeze-and-excitation networks."""

from __future__ import annotations

from torchcaffe.layers.base import TorchLayer, register_layer


@register_layer
class Axpy(TorchLayer):
    """a x + y, with one number a for each channel of each item.

    Hu et al., "Squeeze-and-Excitation Networks", 2018. Bottoms: a (N×C or N×C×1×1), then x and y (N×C×…, of one shape).
    """

    type = "Axpy"
    bottoms = (3, 3)
    in_place = False

    def shapes(self, a, x, y):
        self.check_shape(len(x) >= 2, f"x needs channels in axis 1, got shape {x}")
        self.check_shape(x == y, f"x and y need one shape, not {x} and {y}")
        fits = a[:2] == x[:2] and all(size == 1 for size in a[2:])
        self.check_shape(fits, f"a of shape {a} does not fit {x}: it needs shape {x[:2]} or {x[:2] + (1, 1)}")
        return [x]

    def forward(self, a, x, y):
        return a.reshape(a.shape[:2] + (1,) * (x.dim() - 2)) * x + y
