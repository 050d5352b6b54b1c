"""transform_param: mirror, crop, mean and scale, with Caffe's random numbers."""

from __future__ import annotations

import numpy as np
import torch

from torchcaffe.core import extras, rng
from torchcaffe.data.prefetch import Batch, Buffers


class UnequalShapes(Exception):
    """An array of a batch that differs from the first: `index`, and the shapes `first` and `other`."""

    def __init__(self, index, first, other):
        super().__init__(f"shape {other}, the first of its batch has {first}")
        self.index = index


class Transformer:
    """Makes batches of C×H×W arrays, uint8 or float32: (pixel - mean) * scale of the crop, mirrored.

    For a net on the CPU the batch is computed here, image by image to stay in the cache. For a GPU only the crops are
    gathered here, in their stored dtype (uint8 is a quarter of the bytes), and the GPU does the rest.
    """

    def __init__(self, layer):
        p = self.param = layer.param.transform_param
        layer.check(not (p.mean_file and len(p.mean_value)), "give mean_file or mean_value, not both")
        layer.check(not (p.force_color and p.force_gray), "give force_color or force_gray, not both")
        self.force = "color" if p.force_color else "gray" if p.force_gray else ""
        self.random_crop = bool(p.crop_size) and layer.training
        self.generator = None
        self.mean = None  # float32 C×1×1 or C×H×W
        if p.mean_file:
            from torchcaffe.formats.files import read_blob

            mean = read_blob(p.mean_file)
            self.mean = np.array(mean, np.float32).reshape(mean.shape[-3:])
        elif len(p.mean_value):
            self.mean = np.array(p.mean_value, np.float32).reshape(-1, 1, 1)
        self.device, self.share = layer.context.device, layer.share
        self.buffers = Buffers(pinned=self.device.type == "cuda")
        self.mean_images = []  # as it is, and mirrored, H×W×C
        self.mean_tensor = None  # on the device

    def seed(self, generator):
        """Draw a seed from the net's generator where mirror or random crops need one."""
        if self.param.mirror or self.random_crop:
            self.generator = rng.Generator(generator.draw())

    def state(self) -> dict:
        """State of the random numbers, as plain data; see set_state."""
        return {"generator": self.generator.state_dict()} if self.generator is not None else {}

    def set_state(self, state):
        """Resume from state(); None: the beginning."""
        if state and self.generator is not None:
            self.generator.load_state_dict(state["generator"])

    def output_shape(self, layer, shape):
        """Shape of an item made of records of `shape`. Raises NetError where transform_param does not fit them."""
        size = self.param.crop_size
        layer.check(
            not size or min(shape[1:]) >= size, f"crop_size {size} is larger than the records' {shape[1]}x{shape[2]}"
        )
        values = len(self.param.mean_value)
        layer.check(values in (0, 1, shape[0]), f"{values} mean values do not fit {shape[0]} channels")
        if self.param.mean_file:
            layer.check(
                self.mean.shape == tuple(shape),
                f"{self.param.mean_file} is {self.mean.shape}, the records are {tuple(shape)}",
            )
        return (shape[0], size, size) if size else tuple(shape)

    def batch(self, arrays, labels, apply=map) -> Batch:
        """N arrays C×H×W and their labels (float32 of N) -> Batch of N×C×H×W, float32, channels-last in memory.

        Args:
            apply: maps a function over the images, such as workers.thread_map.
        Raises:
            UnequalShapes: the arrays differ in shape.
        """
        self.check_shapes(arrays)
        choices = self.choices(arrays)
        shape, size = arrays[0].shape, self.param.crop_size
        if size:
            arrays = [a[:, r : r + size, c : c + size] for a, (_, r, c) in zip(arrays, choices.tolist())]
        shape = (len(arrays), *arrays[0].shape)
        if self.finishes_on(self.device):
            return self.staged(arrays, choices, shape, labels, apply)
        return Batch((self.finished(arrays, choices, shape, apply), torch.from_numpy(labels)))

    @staticmethod
    def finishes_on(device) -> bool:
        """True where the device computes the batch from the stored crops."""
        return device.type != "cpu"

    def check_shapes(self, arrays):
        first, size = arrays[0].shape, self.param.crop_size
        for index, array in enumerate(arrays):
            fits = size and array.shape[0] == first[0] and min(array.shape[1:]) >= size and not self.param.mean_file
            if array.shape != first and not fits:
                raise UnequalShapes(index, first, array.shape)

    def choices(self, arrays):
        """N×3 int64: mirrored (0 or 1), row and column of the crop."""
        size, count = self.param.crop_size, len(arrays)
        chosen = np.zeros((count, 3), np.int64)
        free = np.array([(a.shape[1] - size, a.shape[2] - size) for a in arrays]) if size else chosen[:, 1:]
        chosen[:, 1:] = free // 2
        if self.generator is not None:
            shape = (count, bool(self.param.mirror) + 2 * self.random_crop)
            draws = self.share.of_batch(self.generator.draws, shape)
            if self.random_crop:
                chosen[:, 1:] = draws[:, -2:] % (free + 1)
            if self.param.mirror:
                chosen[:, 0] = draws[:, 0] % 2
        return chosen

    # ---- for a net on the CPU
    def finished(self, arrays, choices, shape, apply) -> torch.Tensor:
        """The finished batch."""
        count, channels, height, width = shape
        buffer, tensor = self.buffers.take((count, height, width, channels), np.float32)
        scale = np.float32(self.param.scale)

        def place(index):
            out, (mirrored, row, column) = buffer[index], choices[index]
            np.copyto(out, interleaved(arrays[index], mirrored).reshape(out.shape))
            if self.mean is not None:
                np.subtract(out, self.mean_window(out.shape, mirrored, row, column), out=out)
            if scale != 1:
                np.multiply(out, scale, out=out)

        list(apply(place, range(count)))
        return tensor.permute(0, 3, 1, 2)

    def mean_window(self, shape, mirrored, row, column):
        """The mean to subtract from an image of `shape` H×W×C: its crop of the mean image, mirrored like the image."""
        if self.param.mean_file and not self.mean_images:
            image = self.mean.transpose(1, 2, 0)
            self.mean_images = [np.ascontiguousarray(image), np.ascontiguousarray(image[:, ::-1])]
        elif not self.param.mean_file and (not self.mean_images or self.mean_images[0].shape != shape):
            # Values are spelled out: numpy goes through two arrays of one layout in one sweep.
            self.mean_images = [np.ascontiguousarray(np.broadcast_to(self.mean.reshape(-1), shape))] * 2
        image = self.mean_images[mirrored]
        start = image.shape[1] - column - shape[1] if mirrored else column
        return image[row : row + shape[0], start : start + shape[1]] if self.param.mean_file else image

    # ---- for a net on a GPU
    def staged(self, arrays, choices, shape, labels, apply) -> Batch:
        """The crops as they are stored, to be finished on the device."""
        dtype = np.result_type(*{array.dtype for array in arrays})
        if is_interleaved(arrays[0]):
            buffer, tensor = self.buffers.take((shape[0], *shape[2:], shape[1]), dtype)
            buffer, tensor = buffer.transpose(0, 3, 1, 2), tensor.permute(0, 3, 1, 2)
        else:
            buffer, tensor = self.buffers.take(shape, dtype)
        list(apply(lambda index: np.copyto(buffer[index], arrays[index]), range(len(arrays))))
        return Batch((tensor, torch.from_numpy(choices), torch.from_numpy(labels)), self.finish)

    def finish(self, batch, choices, labels):
        """(data, labels) of the batch, computed on the device."""
        layout = torch.channels_last if batch.shape[1] > 1 else torch.contiguous_format
        batch = batch.to(torch.float32, memory_format=layout)
        mirrored, rows, columns = choices.unbind(1)
        if self.mean is not None:
            if self.mean_tensor is None:
                self.mean_tensor = torch.from_numpy(self.mean).to(batch.device)
            mean, size = self.mean_tensor, self.param.crop_size
            if self.param.mean_file and size:
                mean = mean.unfold(1, size, 1).unfold(2, size, 1)[:, rows, columns].transpose(0, 1)
            batch -= mean
        if self.param.mirror:
            batch = torch.where(mirrored.bool().reshape(-1, 1, 1, 1), batch.flip(3), batch)
        return (batch.mul_(self.param.scale) if self.param.scale != 1 else batch), labels


def is_interleaved(array) -> bool:
    """True for C×H×W arrays that lie in memory as H×W×C, row by row, as decoded images do."""
    item, channels = array.itemsize, array.shape[0]
    return channels > 1 and array.strides[0] == item and array.strides[2] == channels * item


def interleaved(array, mirrored):
    """C×H×W -> H×W×C, or H×W for one channel, each row from right to left where mirrored."""
    cv2 = extras.load_or_none("cv2")  # several times as fast as numpy
    image = array.transpose(1, 2, 0)
    if len(array) > 4 or cv2 is None:  # OpenCV's functions for images take up to 4 channels
        return image[:, ::-1] if mirrored else image
    if is_interleaved(array):
        return cv2.flip(image, 1) if mirrored else image
    return cv2.merge([cv2.flip(plane, 1) for plane in array] if mirrored else list(array))
