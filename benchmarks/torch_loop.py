"""The hand-written baseline: VGG-16 trained in plain PyTorch as a good engineer would write it for this one job.

Same net, data, losses and update as prototxt/paper/step4_gnet.prototxt, and nothing else: no blobs that anyone could
look at, no files, no log. channels-last throughout, in-place ReLU, one fused update of all parameters; torch.compile'd
where asked. Nothing of torchcaffe is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg16(nn.Module):
    """N×3×224×224 float32, mean subtracted -> N×`classes` scores."""

    def __init__(self, classes=2):
        super().__init__()
        layers, channels = [], 3
        for block in BLOCKS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc6, self.fc7 = nn.Linear(512 * 7 * 7, 4096), nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, x):
        x = self.features(x).flatten(1)
        x = F.dropout(F.relu(self.fc6(x), inplace=True), 0.5, self.training)
        x = F.dropout(F.relu(self.fc7(x), inplace=True), 0.5, self.training)
        return self.fc8(x)


class Loop:
    """`step(images, labels)` trains one batch; `precision`: "float32", "tf32" or "bf16"; `compiled`: by torch.compile."""

    def __init__(self, device="cpu", precision="float32", compiled=False, rate=1e-4, momentum=0.9, decay=5e-4):
        torch.manual_seed(1)
        self.device, self.precision = torch.device(device), precision
        self.model = Vgg16().to(self.device, memory_format=torch.channels_last)
        self.momentum = momentum
        groups = {}  # (learning rate, weight decay) -> weights
        for name, weight in self.model.named_parameters():
            key = rate * (0.1 if name.startswith("features") else 1.0), 0.0 if name.endswith("bias") else decay
            groups.setdefault(key, []).append(weight)
        self.groups = [(*key, weights, [torch.zeros_like(w) for w in weights]) for key, weights in groups.items()]
        self.forward = torch.compile(self.model) if compiled else self.model
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
            torch.backends.cudnn.benchmark = True

    def step(self, images, labels):
        """images N×3×224×224 (any layout), labels N int64, on the CPU or the device. Returns the loss as a tensor."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = F.cross_entropy(self.forward(images).float(), labels)
        loss.backward()
        self.update()
        return loss.detach()

    @torch.no_grad()
    def update(self):
        """Caffe's: v = momentum v + rate (g + decay w); w = w - v."""
        for rate, decay, weights, history in self.groups:
            gradients = [weight.grad for weight in weights]
            if decay:
                torch._foreach_add_(gradients, weights, alpha=decay)
            torch._foreach_mul_(history, self.momentum)
            torch._foreach_add_(history, gradients, alpha=rate)
            torch._foreach_sub_(weights, history)
            for weight in weights:
                weight.grad = None
