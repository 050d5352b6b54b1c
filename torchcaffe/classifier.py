"""pycaffe's Classifier: a net for whole images, with their preparation and the ten-crop average."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Iterable, Sequence, Union

import numpy as np

from torchcaffe import TEST, io
from torchcaffe.core.net import Net

if TYPE_CHECKING:
    from numpy.typing import NDArray

Path = Union[str, os.PathLike]


def transformer_of(net: Net, mean=None, input_scale=None, raw_scale=None, channel_swap=None) -> io.Transformer:
    """Transformer of a net's first input for images H x W x K; settings that are None are left out."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].data.shape})
    transformer.set_transpose(name, (2, 0, 1))
    for value, setter in (
        (mean, transformer.set_mean),
        (input_scale, transformer.set_input_scale),
        (raw_scale, transformer.set_raw_scale),
        (channel_swap, transformer.set_channel_swap),
    ):
        if value is not None:
            setter(name, value)
    return transformer


class Classifier(Net):
    """Classifier(model_file, pretrained_file, image_dims=None, mean=None, input_scale=None, raw_scale=None,
    channel_swap=None).

    Args:
        image_dims: (height, width) that images are resized to before cropping; default the net's input size.
        mean, input_scale, raw_scale, channel_swap: as io.Transformer's.
    """

    def __init__(
        self,
        model_file: Path,
        pretrained_file: Path,
        image_dims: Sequence[int] | None = None,
        mean: NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_of(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = image_dims if image_dims else self.crop_dims

    def predict(self, inputs: Iterable[NDArray[Any]], oversample: bool = True) -> NDArray[np.float32]:
        """Predictions (N, C) of the net's first output for N images H x W x K, RGB float32 in [0, 1].

        Args:
            oversample: average over ten crops (io.oversample); False: the center crop alone.
        """
        height, width = self.image_dims
        images = np.stack([io.resize_image(image, (height, width)) for image in inputs])
        if oversample:
            crops = io.oversample(images, self.crop_dims)
        else:
            size = np.asarray(self.crop_dims)
            top, left = (np.array([height, width]) / 2.0 - size / 2.0).astype(int)
            crops = images[:, top : top + size[0], left : left + size[1]]
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: prepared})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape((len(predictions) // 10, 10) + predictions.shape[1:]).mean(1)
        return predictions
