"""SmoothL1Loss: Fast R-CNN's loss on boxes (Girshick 2015), with the sigma and weights of Faster R-CNN (Ren et al. 2015)."""

from __future__ import annotations

import torch

from torchcaffe.core import log
from torchcaffe.layers.base import register_layer
from torchcaffe.layers.loss import LossLayer


def smooth_l1(difference: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """(sigma x)^2 / 2 where |x| < 1 / sigma^2, else |x| - 1 / (2 sigma^2); elementwise."""
    squared = sigma * sigma
    size = difference.abs()
    return torch.where(size < 1 / squared, 0.5 * squared * difference * difference, size - 0.5 / squared)


@register_layer
class SmoothL1Loss(LossLayer):
    """Sum of outside * smooth_l1(inside * (first - second)), divided by the batch size.

    Bottoms: predictions and targets, equal in shape; then, where they are given, the inside weights and the outside weights.
    """

    type = "SmoothL1Loss"
    bottoms = (2, 4)
    gradient_to = (0, 1)
    refuses_gradient = ()
    settings = {"smooth_l1_loss_param": {"sigma": (float, 1.0)}}
    settings_numbers = {"smooth_l1_loss_param": 8266712}

    def setup(self, bottom, top):
        self.check(self.param.smooth_l1_loss_param.sigma > 0, "sigma must be positive")
        if self.param.HasField("loss_param"):
            log.warning(f'layer "{self.name}" (SmoothL1Loss) divides by the batch size: loss_param has no effect')

    def shapes(self, *bottoms):
        for shape in bottoms[1:]:
            self.check_shape(shape == bottoms[0], f"bottoms differ in shape: {', '.join(map(str, bottoms))}")
        return super().shapes(*bottoms)

    def forward(self, predictions, targets, *weights):
        difference = predictions - targets
        if weights:
            difference = difference * weights[0].detach()
        loss = smooth_l1(difference, self.param.smooth_l1_loss_param.sigma)
        if len(weights) > 1:
            loss = loss * weights[1].detach()
        return loss.sum() / max(len(predictions), 1)
