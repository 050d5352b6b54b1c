"""Images in databases and lists are looked at before OpenCV decodes them, and decoded as OpenCV decodes them."""

import bombs
import cv2
import numpy as np
import pytest

from torchcaffe.data.datum import to_array
from torchcaffe.core.errors import DataError
from torchcaffe.data.image_file import ImageFileError, check_image, check_jpeg, decode
from torchcaffe.data.image_list import read_image
from torchcaffe.io import load_image
from torchcaffe.proto import caffe_pb2

COLORS = np.random.RandomState(0).randint(0, 256, (40, 30, 3), np.uint8)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".gif", ".ppm"])
def test_decoded_as_opencv_does(tmp_path, kind):
    path = str(tmp_path / f"image{kind}")
    cv2.imwrite(path, COLORS)
    data = (tmp_path / f"image{kind}").read_bytes()
    for form, flag in (("color", cv2.IMREAD_COLOR), ("gray", cv2.IMREAD_GRAYSCALE), ("", cv2.IMREAD_UNCHANGED)):
        np.testing.assert_array_equal(decode(data, form), cv2.imdecode(np.frombuffer(data, np.uint8), flag))
    np.testing.assert_array_equal(read_image(path), cv2.imread(path).transpose(2, 0, 1))


def test_real_photographs_are_taken(real_celeba):
    """Cameras' and programs' files hold more than an image: previews, profiles, comments."""
    for path in sorted((real_celeba / "Img" / "img_celeba").glob("*.jpg"))[:50]:
        check_jpeg(path.read_bytes())
        np.testing.assert_array_equal(read_image(str(path)), cv2.imread(str(path)).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", bombs.KINDS)
def test_bombs_are_refused_before_opencv_sees_them(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    data = bombs.bomb(kind, 30_000, 30_000)  # fewer than OpenCV's own limit, 2**30
    with pytest.raises(DataError, match="record 7 is .*the limit of 100 megapixels.*build the database again"):
        to_array(caffe_pb2.Datum(data=data, encoded=True), "record 7")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match="list.txt: .*a.png: .*the limit of 100 megapixels"):
        read_image(str(tmp_path / "a.png"), where="list.txt")


def test_pycaffes_load_image_is_as_careful(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), COLORS)
    np.testing.assert_array_equal(load_image(str(path)), (COLORS[:, :, ::-1] / 255).astype(np.float32))
    path.write_bytes(bombs.bomb("GIF", 30_000, 30_000))
    with pytest.raises(DataError, match="a.png: .*the limit of 100 megapixels"):
        load_image(str(path))
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")  # Pillow would start Ghostscript
    with pytest.raises(DataError, match="a.png: not an image of a known format"):
        load_image(path)


def test_a_jpeg_with_endless_scans_is_refused():
    check_image(bombs.many_scans(90))
    with pytest.raises(ImageFileError, match="more than 100 scans"):
        check_image(bombs.many_scans(5000))


def test_damaged_jpegs_are_left_to_the_decoder():
    """The walk from marker to marker ends, wherever the file is cut or changed."""
    data, draw = bombs.many_scans(3), np.random.RandomState(0)
    for size in range(0, len(data), 7):
        check_jpeg(data[:size])
    for _ in range(300):
        broken = bytearray(data)
        broken[draw.randint(2, len(data))] = draw.randint(256)
        try:
            check_jpeg(bytes(broken))
        except ImageFileError as problem:
            assert "megapixels" in str(problem) or "scans" in str(problem)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image of a known format"),
        (bytes(bombs.picture("PNG"))[:20], "cannot be decoded"),
        (bytes(bombs.picture("JPEG"))[:30], "not an image that OpenCV can decode"),
        (cv2.imencode(".png", COLORS.astype(np.uint16))[1].tobytes(), "uint16, not of 8 bits"),
    ],
)
def test_what_is_no_image(data, message):
    with pytest.raises(ImageFileError, match=message):
        decode(data)
