"""Permute (SSD, Liu et al. 2016): the axes of a blob in another order."""

from __future__ import annotations

from torchcaffe.layers.base import TorchLayer, register_layer


@register_layer
class Permute(TorchLayer):
    """Axis i of the top is axis order[i] of the bottom; axes that `order` does not name follow in their own order."""

    type = "Permute"
    in_place = False
    any_precision = True
    gradient_from_bottoms = True
    settings = {"permute_param": {"order": [int]}}
    settings_numbers = {"permute_param": 202}

    def order(self, axes: int) -> list[int]:
        order = list(self.param.permute_param.order)
        for axis in order:
            self.check(0 <= axis < axes, f"order names axis {axis}, but the bottom has {axes} axes")
        self.check(len(set(order)) == len(order), f"order names an axis twice: {order}")
        return order + [axis for axis in range(axes) if axis not in order]

    def shapes(self, shape):
        return [tuple(shape[axis] for axis in self.order(len(shape)))]

    def forward(self, x):
        return x.permute(self.order(x.dim())).contiguous()
