"""Images and arrays in and out of nets: pycaffe's `caffe.io`, same names, arguments and defaults.

Images here are height x width x channels, RGB (not BGR), float32 in [0, 1]; a Transformer turns them into what a net
takes: channels first, BGR by a channel swap, 0..255 by a raw scale, mean subtracted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence, Union

import numpy as np

from torchcaffe.core import extras, names
from torchcaffe.data import image_file
from torchcaffe.core.errors import DataError
from torchcaffe.proto import caffe_pb2

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Image = NDArray[np.float32]

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # of R, G, B


# ---- arrays and protobuf messages ----


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> NDArray[np.float64]:
    """Array (float64) of a BlobProto's `data`, or of its `diff`; a legacy blob has four axes."""
    data = np.array(blob.diff if return_diff else blob.data, float)
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return data.reshape(blob.num, blob.channels, blob.height, blob.width)
    return data.reshape(tuple(blob.shape.dim))


def array_to_blobproto(arr: NDArray[Any], diff: NDArray[Any] | None = None) -> caffe_pb2.BlobProto:
    """BlobProto (`shape` and `data`, and `diff` where given) of an array of any shape."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(arr.astype(float).flat)
    if diff is not None:
        blob.diff.extend(diff.astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[NDArray[Any]]) -> bytes:
    """Bytes of a BlobProtoVector that holds the arrays."""
    return caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(arr) for arr in arraylist]).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[NDArray[np.float64]]:
    """List of arrays of a BlobProtoVector's bytes."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: NDArray[Any], label: int | None = None) -> caffe_pb2.Datum:
    """Datum of an array C x H x W: `data` for uint8, `float_data` for anything else; `label` unset where None.

    Raises:
        ValueError: the array has not three axes.
    """
    if arr.ndim != 3:
        raise ValueError(f"a Datum holds channels x height x width, not an array of shape {arr.shape}")
    datum = caffe_pb2.Datum(channels=arr.shape[0], height=arr.shape[1], width=arr.shape[2])
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).flat)
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> NDArray[Any]:
    """Array C x H x W of a Datum: uint8 where it has `data`, else float64.

    Raises:
        ValueError: the Datum holds a compressed image, or another number of values than its shape says.
    """
    if datum.encoded:
        raise ValueError("the Datum holds a compressed image; decode datum.data with cv2.imdecode")
    values = np.frombuffer(datum.data, np.uint8).copy() if datum.data else np.array(datum.float_data, float)
    return values.reshape(datum.channels, datum.height, datum.width)


# ---- images ----


def load_image(filename: Union[str, os.PathLike], color: bool = True) -> Image:
    """Read an image: H x W x 3 float32 RGB in [0, 1], or H x W x 1 luminance with color=False.

    A gray image is repeated in three channels, an alpha channel is dropped.

    Raises:
        DataError: a file that is not of image_file.FORMATS, or larger than its limit.
    """
    skimage_io, skimage_util = extras.load("skimage.io"), extras.load("skimage.util")
    if os.path.isfile(filename):
        try:
            image_file.check_image(image_file.read_image_file(filename))
        except image_file.ImageFileError as problem:
            raise DataError(f"{filename}: {problem}") from None
    image = skimage_util.img_as_float(skimage_io.imread(filename))
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    elif image.shape[2] in (2, 4):
        image = image[:, :, :-1]
    if not color and image.shape[2] == 3:
        image = (image @ _LUMINANCE)[:, :, np.newaxis]
    elif color and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return image.astype(np.float32)


def resize_image(im: NDArray[Any], new_dims: Sequence[int], interp_order: int = 1) -> Image:
    """Resize an image H x W x K to `new_dims` (height, width): float32, K unchanged.

    Args:
        interp_order: 0 nearest, 1 bilinear, ... 5, as scikit-image and SciPy count.
    """
    if im.shape[-1] not in (1, 3):
        zoom = extras.load("scipy.ndimage").zoom
        scale = tuple(np.array(new_dims, float) / np.array(im.shape[:2]))
        return zoom(im, scale + (1,), order=interp_order).astype(np.float32)
    low, high = im.min(), im.max()
    if not high > low:
        return np.full((new_dims[0], new_dims[1], im.shape[-1]), low, np.float32)
    resize = extras.load("skimage.transform").resize
    unit = resize((im - low) / (high - low), new_dims, order=interp_order, mode="constant")
    return (unit * (high - low) + low).astype(np.float32)


def oversample(images: Sequence[NDArray[Any]] | NDArray[Any], crop_dims: Sequence[int] | NDArray[Any]) -> Image:
    """Ten crops an image: top left, top right, bottom left, bottom right, center, then these five mirrored.

    Args:
        images: images H x W x K, all of the first one's size.
        crop_dims: (height, width) of the crops.
    Returns:
        10 * len(images) x height x width x K, float32.
    """
    height, width, channels = np.shape(images[0])
    crop_height, crop_width = crop_dims
    corners = [(top, left) for top in (0, height - crop_height) for left in (0, width - crop_width)]
    corners.append((int(height / 2.0 - crop_height / 2.0), int(width / 2.0 - crop_width / 2.0)))
    crops = np.empty((10 * len(images), crop_height, crop_width, channels), np.float32)
    for index, image in enumerate(images):
        five = crops[10 * index : 10 * index + 5]
        for crop, (top, left) in zip(five, corners):
            crop[...] = image[top : top + crop_height, left : left + crop_width, :]
        crops[10 * index + 5 : 10 * index + 10] = five[:, :, ::-1, :]
    return crops


class Transformer:
    """Between images and a net's inputs.

    `preprocess` does, each where it was set: resize to the input's height and width (always where they differ),
    transpose, channel swap, times raw scale, minus mean, times input scale. `deprocess` undoes all but the resize.

    Args:
        inputs: {input name: shape of its blob (N, C, H, W)}.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, NDArray[Any]] = {}
        self.input_scale: dict[str, float] = {}

    def __check_input(self, in_: str) -> None:
        if in_ not in self.inputs:
            raise Exception(f"{in_} is not one of the net inputs: {names.listed(self.inputs)}")

    def preprocess(self, in_: str, data: ArrayLike) -> NDArray[np.float32]:
        """Net input (C, H, W) float32 from an image H' x W' x K; the image itself is left as it is."""
        self.__check_input(in_)
        result = np.array(data, np.float32)  # a copy: pycaffe at times works in the caller's array
        size = tuple(self.inputs[in_][2:])
        if result.shape[:2] != size:
            result = resize_image(result, size)
        if self.transpose.get(in_) is not None:
            result = result.transpose(self.transpose[in_])
        if self.channel_swap.get(in_) is not None:
            result = result[list(self.channel_swap[in_]), :, :]
        if self.raw_scale.get(in_) is not None:
            result *= self.raw_scale[in_]
        if self.mean.get(in_) is not None:
            result -= self.mean[in_]
        if self.input_scale.get(in_) is not None:
            result *= self.input_scale[in_]
        return result

    def deprocess(self, in_: str, data: NDArray[Any]) -> NDArray[Any]:
        """Image H x W x K from a net input (C, H, W), or (1, C, H, W)."""
        self.__check_input(in_)
        result = data.copy().squeeze()
        if self.input_scale.get(in_) is not None:
            result /= self.input_scale[in_]
        if self.mean.get(in_) is not None:
            result += self.mean[in_]
        if self.raw_scale.get(in_) is not None:
            result /= self.raw_scale[in_]
        if self.channel_swap.get(in_) is not None:
            result = result[np.argsort(self.channel_swap[in_]), :, :]
        if self.transpose.get(in_) is not None:
            result = result.transpose(np.argsort(self.transpose[in_]))
        return result

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Order of the image's axes in the net, as for numpy's transpose: (2, 0, 1) puts channels first."""
        self.__check_input(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise Exception(f"transpose order {order} needs one entry for each axis of {self.inputs[in_][1:]}")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Order of the channels: (2, 1, 0) makes RGB images BGR. Done after the transpose: channels are then first."""
        self.__check_input(in_)
        if len(order) != self.inputs[in_][1]:
            raise Exception(f"channel swap {order} needs one entry for each of {self.inputs[in_][1]} channels")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Factor before the mean is subtracted: 255 for images in [0, 1] and a mean in 0..255."""
        self.__check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: NDArray[Any]) -> None:
        """Mean to subtract, in the net's channel order and after the raw scale.

        Args:
            mean: one value a channel (C,), or an image (C, H, W), resized where it has another size.
        Raises:
            ValueError: the mean does not fit the input.
        """
        self.__check_input(in_)
        shape = tuple(self.inputs[in_][1:])
        if mean.ndim == 1:
            if mean.shape[0] != shape[0]:
                raise ValueError(f"{mean.shape[0]} mean values for {shape[0]} channels")
            mean = mean[:, np.newaxis, np.newaxis]
        elif mean.shape != shape and (1,) + mean.shape != shape:
            if mean.ndim != 3:
                raise ValueError(f"a mean has shape ({shape[0]},) or {shape} or another size, not {mean.shape}")
            mean = resize_image(mean.transpose((1, 2, 0)), shape[1:]).transpose((2, 0, 1))
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Factor after the mean is subtracted."""
        self.__check_input(in_)
        self.input_scale[in_] = scale
