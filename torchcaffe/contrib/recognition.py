"""Losses of face recognition: CenterLoss, and MarginInnerProduct for the angular softmax of SphereFace."""

from __future__ import annotations

import enum
import math

import torch
import torch.nn.functional as F

from torchcaffe.distributed import parallel
from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.layers.loss import LossLayer, as_labels

TINY = 1e-12  # lengths below it count as this, so that nothing is divided by 0


@register_layer
class CenterLoss(LossLayer):
    """Half the mean squared distance of features to the center of their class, and centers that follow their class.

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", 2016. Bottoms: features
    (everything from `axis` on is one feature vector) and labels. Parameter: the centers, (num_output, features).

    The centers do not follow the derivative of the loss but equation 4 of the paper: the diff of center j is the sum of
    (center - feature) over the n items of its class, over 1 + n, whatever the loss weight. The solver's rate times
    lr_mult is therefore the paper's alpha. `loss_param` works as in SoftmaxWithLoss; without it the loss is divided by
    the number of items.
    """

    type = "CenterLoss"
    default_normalization = "BATCH_SIZE"
    settings = {
        "center_loss_param": {"num_output": int, "center_filler": "FillerParameter", "axis": (int, 1)},
    }

    def setup(self, bottom, top):
        super().setup(bottom, top)
        p, shape = self.param.center_loss_param, bottom[0].dims
        self.check(p.num_output > 0, "num_output, the number of classes, must be positive")
        self.first = self.axis(p.axis, len(shape))
        self.features = math.prod(shape[self.first :])
        self.add_parameter((p.num_output, self.features), p.center_filler)

    def shapes(self, features, labels):
        count = math.prod(features[self.first :])
        self.check_shape(count == self.features, f"built for {self.features} features an item, got shape {features}")
        items = math.prod(features[: self.first])
        self.check_shape(math.prod(labels) == items, f"{items} items need as many labels, got shape {labels}")
        return super().shapes(features, labels)

    def distances(self, features, labels):
        """(features - center of each item, labels, 1 for each item that counts and 0 for an ignored one)."""
        features, classes = features.reshape(-1, self.features), len(self.weight(0))
        labels = as_labels(self, labels, (len(features),), classes, self.ignore_label)
        used = torch.ones_like(labels, dtype=features.dtype)
        if self.ignore_label is not None:
            used = (labels != self.ignore_label).to(features.dtype)
            labels = torch.where(used > 0, labels, 0)
        return (features - self.weight(0)[labels]) * used[:, None], labels, used

    def forward(self, features, labels):
        distances, labels, used = self.distances(features, labels)
        self.counts = torch.zeros_like(self.weight(0)[:, 0]).index_add_(0, labels, used)  # items of each class
        if self.share.split:
            self.counts = parallel.current().total(self.counts)
        return 0.5 * (distances * distances).sum() / self.normalizer(len(used), 1, used.sum)

    def backward(self, bottoms, tops, gradients):
        distances, labels, used = self.distances(*bottoms)
        of_features = distances * (gradients[0] / self.normalizer(len(used), 1, used.sum))
        # Equation 4. Of a split batch: such that the mean over ranks is what the whole batch gives.
        sums = torch.zeros_like(self.weight(0)).index_add_(0, labels, -distances)
        of_centers = sums * (self.share.count if self.share.split else 1) / (1 + self.counts)[:, None]
        return of_features.reshape(bottoms[0].shape), None, of_centers


class MarginType(enum.IntEnum):
    """The margin m of MarginInnerProduct: an angle must be that many times smaller than to other classes."""

    SINGLE = 0
    DOUBLE = 1
    TRIPLE = 2
    QUADRUPLE = 3


@register_layer
class MarginInnerProduct(TorchLayer):
    """Class scores of the angular softmax: |x| cos(t), t the angle to a class's weights, with a margin for the label's.

    Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", 2017. For the label's class cos(t) becomes
    (lambda cos(t) + psi(t)) / (1 + lambda), where psi(t) = (-1)^k cos(m t) - 2k for t in [k pi/m, (k+1) pi/m], and m is
    1, 2, 3 or 4 (type SINGLE, DOUBLE, TRIPLE, QUADRUPLE). Bottoms: features (everything from `axis` on) and labels;
    tops: the scores and, if there is a second, lambda. Parameter: weights (num_output, features), whose rows count with
    length 1; in TRAIN each forward brings them to it.

    lambda is max(lambda_min, base (1 + gamma n)^-power) in the n-th forward of TRAIN, where n starts after `iteration`
    and resumes with the solver's snapshot. TEST uses the lambda of `iteration` itself. Gradients are this formula's.
    """

    type = "MarginInnerProduct"
    bottoms = (2, 2)
    tops = (1, 2)
    in_place = False
    gradient_to = (0,)
    refuses_gradient = (1,)
    settings = {
        "margin_inner_product_param": {
            "num_output": int,
            "type": (MarginType, MarginType.SINGLE),
            "weight_filler": "FillerParameter",
            "axis": (int, 1),
            "base": (float, 1.0),
            "gamma": (float, 0.0),
            "power": (float, 1.0),
            "iteration": (int, 0),
            "lambda_min": (float, 0.0),
        }
    }

    def setup(self, bottom, top):
        p, shape = self.param.margin_inner_product_param, bottom[0].dims
        self.check(p.num_output > 0, "num_output, the number of classes, must be positive")
        for name in ("base", "gamma", "iteration", "lambda_min"):
            self.check(getattr(p, name) >= 0, f"{name} is 0 or more, not {getattr(p, name)}")
        self.first = self.axis(p.axis, len(shape))
        self.features, self.margin = math.prod(shape[self.first :]), p.type + 1
        self.passes = p.iteration
        self.add_parameter((p.num_output, self.features), p.weight_filler)

    def shapes(self, features, labels):
        count = math.prod(features[self.first :])
        self.check_shape(count == self.features, f"built for {self.features} features an item, got shape {features}")
        items = math.prod(features[: self.first])
        self.check_shape(math.prod(labels) == items, f"{items} items need as many labels, got shape {labels}")
        return [features[: self.first] + (self.blobs[0].dims[0],), (1,)][: len(self.param.top)]

    def data_state(self):
        """How often it has run in TRAIN, which lambda depends on."""
        return {"passes": self.passes} if self.training else None

    def set_data_state(self, state):
        passes = int(state["passes"])
        if passes < 0:
            raise ValueError(f"passes are 0 or more, not {passes}")
        self.passes = passes

    def current_lambda(self) -> float:
        p = self.param.margin_inner_product_param
        return max(p.lambda_min, p.base * (1 + p.gamma * self.passes) ** -p.power)

    def bring_to_length_1(self):
        # Through .data: where layers share weights, the first one's graph already holds these numbers, of length 1.
        self.weight(0).data.copy_(F.normalize(self.weight(0).data, dim=1, eps=TINY))
        self.blobs[0].data_memory.written()

    def forward(self, x, labels):
        if self.training:
            self.passes += 1
            self.bring_to_length_1()
        shape, x = x.shape[: self.first], x.reshape(-1, self.features)
        classes = len(self.weight(0))
        labels = as_labels(self, labels, (len(x), 1), classes, None)
        scores = F.linear(x, F.normalize(self.weight(0), dim=1, eps=TINY))  # |x| cos(t)
        if self.margin > 1:
            length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
            own, weight = scores.gather(1, labels), self.current_lambda()
            with_margin = length * self.psi(own / length.clamp(min=TINY))
            scores = scores.scatter(1, labels, (weight * own + with_margin) / (1 + weight))
        scores = scores.reshape(*shape, classes)
        return scores if len(self.param.top) == 1 else (scores, scores.new_full((1,), self.current_lambda()))

    def psi(self, cosine):
        """(-1)^k cos(m t) - 2k, from cos(t)."""
        multiples = [torch.ones_like(cosine), cosine]  # cos(0), cos(t), cos(2t) …
        while len(multiples) <= self.margin:
            multiples.append(2 * cosine * multiples[-1] - multiples[-2])
        bounds = [math.cos(k * math.pi / self.margin) for k in range(1, self.margin)]
        k = torch.stack([cosine < bound for bound in bounds]).sum(0)
        return (1 - 2 * (k % 2)) * multiples[self.margin] - 2 * k
