"""pycaffe's Detector: a net applied to windows of images, as R-CNN does, with some context around each window."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Iterable, Sequence, Union

import numpy as np

from torchcaffe import TEST, io
from torchcaffe.classifier import transformer_of
from torchcaffe.core.errors import CaffeError
from torchcaffe.core.net import Net

if TYPE_CHECKING:
    from numpy.typing import NDArray

Path = Union[str, os.PathLike]


class Detector(Net):
    """Detector(model_file, pretrained_file, mean=None, input_scale=None, raw_scale=None, channel_swap=None,
    context_pad=None).

    Args:
        context_pad: pixels of context on each side of a window, counted in the net's (square) input.
        mean, input_scale, raw_scale, channel_swap: as io.Transformer's.
    """

    def __init__(
        self,
        model_file: Path,
        pretrained_file: Path,
        mean: NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_of(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(
        self, images_windows: Iterable[tuple[str, Iterable[Sequence[float]]]]
    ) -> list[dict[str, Any]]:
        """Run the net on windows.

        Args:
            images_windows: (file name, windows) for each image; a window is (ymin, xmin, ymax, xmax) in pixels.
        Returns:
            One dict a window, in order: `window`, `prediction` (the first output's row), `filename`.
        """
        found, crops = [], []
        for filename, windows in images_windows:
            image = io.load_image(filename).astype(np.float32)
            for window in windows:
                found.append({"window": window, "filename": filename})
                crops.append(self.crop(image, window))
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: prepared})[self.outputs[0]]
        for entry, prediction in zip(found, predictions):
            entry["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Iterable[str]) -> list[dict[str, Any]]:
        """Windows from selective search, which Caffe gets from a MATLAB package. Raises CaffeError."""
        raise CaffeError(
            "detect_selective_search needs MATLAB and the package selective_search_ijcv_with_python, which are not "
            "part of Caffe; find windows with another tool and pass them to detect_windows"
        )

    def crop(self, im: NDArray[Any], window: Sequence[float]) -> NDArray[Any]:
        """The window of an image H x W x K: as it is, or with its context, at the net's size, the mean where the
        context leaves the image."""
        top, left, bottom, right = (int(edge) for edge in window)
        if not self.context_pad:
            return im[top:bottom, left:right]
        height, width = self.crop_mean.shape[:2]
        size = width  # R-CNN's inputs are square
        scale = size / (size - 2.0 * self.context_pad)
        half = np.array([bottom - top + 1, right - left + 1]) / 2.0
        center = np.array([top, left]) + half
        low, high = np.round(center - scale * half), np.round(center + scale * half)
        zoom = size / (high - low + 1.0)
        pad = np.round(np.maximum(0, -low) * zoom).astype(int)
        low, high = np.clip(low, 0, im.shape[:2]), np.clip(high, 0, im.shape[:2])
        wanted = np.round((high - low + 1.0) * zoom).astype(int)
        wanted = np.minimum(wanted, size - pad)
        (y0, x0), (y1, x1) = low.astype(int), high.astype(int)
        inside = io.resize_image(im[y0:y1, x0:x1], tuple(wanted))
        result = np.array(self.crop_mean, np.float32)
        result[pad[0] : pad[0] + wanted[0], pad[1] : pad[1] + wanted[1]] = inside
        return result

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context; `crop_mean` (H x W x K, as images are) fills what lies outside the image."""
        self.context_pad = context_pad
        if not context_pad:
            return
        name = self.inputs[0]
        shape = tuple(self.blobs[name].data.shape[1:])
        mean = np.zeros(shape, np.float32)
        if self.transformer.mean.get(name) is not None:
            mean = np.array(np.broadcast_to(self.transformer.mean[name], shape), np.float32)
        raw_scale = self.transformer.raw_scale.get(name)
        swap = self.transformer.channel_swap.get(name)
        if raw_scale:
            mean /= raw_scale
        if swap is not None:
            mean = mean[np.argsort(swap)]
        self.crop_mean = mean.transpose(np.argsort(self.transformer.transpose[name]))
