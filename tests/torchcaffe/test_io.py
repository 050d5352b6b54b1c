"""pycaffe's image functions, against arithmetic written out here."""

import numpy as np
import pytest

from torchcaffe import io
from torchcaffe.proto import caffe_pb2

random = np.random.default_rng(3)


def save(path, array):
    import cv2

    channels = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    cv2.imwrite(str(path), array[..., channels[array.shape[2]]] if array.ndim == 3 else array)
    return str(path)


# ---- messages ----


def test_datum_of_bytes():
    array = random.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    datum = io.array_to_datum(array, 7)
    assert (datum.channels, datum.height, datum.width, datum.label, datum.data) == (3, 4, 5, 7, array.tobytes())
    assert not datum.float_data and not datum.HasField("encoded")
    np.testing.assert_array_equal(io.datum_to_array(datum), array)
    assert io.datum_to_array(datum).dtype == np.uint8 and not io.array_to_datum(array).HasField("label")


def test_datum_of_floats():
    array = random.standard_normal((2, 1, 3)).astype(np.float32)
    back = io.datum_to_array(io.array_to_datum(array, 0))
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, array)


def test_datum_refuses():
    with pytest.raises(ValueError, match="channels x height x width"):
        io.array_to_datum(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="compressed"):
        io.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"x"))


def test_blobproto():
    array = random.standard_normal((2, 3)).astype(np.float32)
    blob = io.array_to_blobproto(array, diff=2 * array)
    assert list(blob.shape.dim) == [2, 3] and not blob.HasField("num")
    np.testing.assert_array_equal(io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(io.blobproto_to_array(blob, return_diff=True), 2 * array)
    assert io.blobproto_to_array(blob).dtype == np.float64
    legacy = caffe_pb2.BlobProto(num=1, channels=3, height=1, width=2, data=range(6))
    assert io.blobproto_to_array(legacy).shape == (1, 3, 1, 2)


def test_blobproto_vector():
    arrays = [np.arange(6.0).reshape(1, 2, 3), np.ones((4,))]
    back = io.blobprotovector_str_to_arraylist(io.arraylist_to_blobprotovector_str(arrays))
    for old, new in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(old, new)


# ---- images ----


def test_load_image(tmp_path):
    pixels = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = save(tmp_path / "rgb.png", pixels)
    image = io.load_image(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, pixels / 255, atol=1e-7)
    gray = io.load_image(path, color=False)
    assert gray.shape == (5, 7, 1)
    np.testing.assert_allclose(gray[..., 0], pixels / 255 @ [0.2125, 0.7154, 0.0721], atol=1e-6)


def test_load_gray_and_transparent_images(tmp_path):
    pixels = random.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    np.testing.assert_allclose(io.load_image(save(tmp_path / "a.png", pixels)), pixels[..., :3] / 255, atol=1e-7)
    gray = save(tmp_path / "g.png", pixels[..., 0])
    np.testing.assert_allclose(io.load_image(gray), np.repeat(pixels[..., :1], 3, axis=2) / 255, atol=1e-7)
    assert io.load_image(gray, False).shape == (5, 7, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_resize_image(channels):
    ramp = np.linspace(-3, 5, 40)[:, None, None] * np.ones((1, 20, channels))
    small = io.resize_image(ramp, (20, 10))
    assert small.shape == (20, 10, channels) and small.dtype == np.float32
    assert np.all(np.diff(small[2:-2, 5], axis=0) > 0) and ramp.min() <= small.min() and small.max() <= ramp.max()
    np.testing.assert_array_equal(io.resize_image(np.full((4, 4, channels), 2.0), (3, 5)), np.full((3, 5, channels), 2))


@pytest.mark.parametrize("size, center", [((8, 8), (2, 2)), ((7, 9), (1, 2)), ((4, 4), (0, 0))])
def test_oversample(size, center):
    images = [random.standard_normal((*size, 3)) for _ in range(2)]
    crops = io.oversample(images, (4, 4))
    assert crops.shape == (20, 4, 4, 3) and crops.dtype == np.float32
    bottom, right = size[0] - 4, size[1] - 4
    starts = [(0, 0), (0, right), (bottom, 0), (bottom, right), center]
    for number, image in enumerate(images):
        for index, (top, left) in enumerate(starts):
            crop = image[top : top + 4, left : left + 4].astype(np.float32)
            np.testing.assert_array_equal(crops[10 * number + index], crop)
            np.testing.assert_array_equal(crops[10 * number + index + 5], crop[:, ::-1])


@pytest.fixture
def transformer():
    result = io.Transformer({"data": (1, 3, 6, 4)})
    result.set_transpose("data", (2, 0, 1))
    result.set_channel_swap("data", (2, 1, 0))
    result.set_raw_scale("data", 255)
    result.set_mean("data", np.array([10.0, 20.0, 30.0]))
    result.set_input_scale("data", 0.5)
    return result


def test_transformer(transformer):
    image = random.random((6, 4, 3)).astype(np.float32)
    kept = image.copy()
    result = transformer.preprocess("data", image)
    expected = (image[..., ::-1].transpose(2, 0, 1) * 255 - np.array([10, 20, 30])[:, None, None]) * 0.5
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert result.dtype == np.float32 and result.shape == (3, 6, 4)
    np.testing.assert_allclose(transformer.deprocess("data", result[None]), image, atol=1e-6)
    np.testing.assert_array_equal(image, kept)


def test_transformer_leaves_the_callers_image():
    image = np.ones((6, 4, 3), np.float32)
    transformer = io.Transformer({"data": (1, 3, 6, 4)})
    transformer.set_raw_scale("data", 255)
    assert transformer.preprocess("data", image).max() == 255 and image.max() == 1


def test_transformer_resizes(transformer):
    image = np.full((12, 12, 3), 0.25)
    expected = (0.25 * 255 - np.array([10, 20, 30])) * 0.5
    np.testing.assert_allclose(transformer.preprocess("data", image)[:, 3, 2], expected, atol=1e-4)


def test_mean_images(transformer):
    image = random.random((3, 6, 4))
    transformer.set_mean("data", image)
    assert transformer.mean["data"] is image
    transformer.set_mean("data", np.linspace(0, 90, 3)[:, None, None] * np.ones((3, 12, 8)))
    np.testing.assert_allclose(transformer.mean["data"][:, 3, 2], [0, 45, 90], atol=1e-3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda t: t.preprocess("image", np.zeros((6, 4, 3))), Exception, "image is not one of the net inputs: data"),
        (lambda t: t.set_raw_scale("image", 1), Exception, "image is not one of the net inputs: data"),
        (lambda t: t.set_transpose("data", (1, 0)), Exception, r"transpose order \(1, 0\) needs one entry for each axis"),
        (lambda t: t.set_channel_swap("data", (1, 0)), Exception, r"swap \(1, 0\) needs one entry for each of 3 channels"),
        (lambda t: t.set_mean("data", np.zeros(2)), ValueError, "2 mean values for 3 channels"),
        (lambda t: t.set_mean("data", np.zeros((6, 4))), ValueError, r"a mean has shape \(3,\) or .* not \(6, 4\)"),
    ],
)
def test_transformer_refuses(transformer, call, error, message):
    with pytest.raises(error, match=message):
        call(transformer)
