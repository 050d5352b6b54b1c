"""images.read_image on every kind of file that a data set's folder can hold."""

from __future__ import annotations

import io
import struct
import sys

import bombs
import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from lmdb_builders.errors import ImageError
from lmdb_builders.images import Orientation, decode_image, read_image, read_with_orientation
from torchcaffe.core import memory


@pytest.fixture
def colors():
    """40 x 60, all three channels different everywhere."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y], axis=-1).astype(np.uint8)  # BGR


def save(array_rgb, path, **options):
    Image.fromarray(array_rgb).save(path, **options)
    return path


def test_photo_equals_opencv(real_fotw):
    for path in sorted((real_fotw / "smiles_trset").glob("*.jpg"))[:10]:
        assert np.array_equal(read_image(path), cv2.imread(str(path)))


def test_png_is_bgr(tmp_path, colors):
    cv2.imwrite(str(tmp_path / "a.png"), colors)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and image.flags.c_contiguous and np.array_equal(image, colors)


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_gray_becomes_three_equal_channels(tmp_path, colors, extension):
    gray = colors[:, :, 0]
    cv2.imwrite(str(tmp_path / f"a.{extension}"), gray)
    image = read_image(tmp_path / f"a.{extension}")
    assert image.shape == (40, 60, 3)
    assert np.abs(image.astype(int) - gray[:, :, None]).max() <= (0 if extension == "png" else 8)


def test_one_bit_and_gray_with_alpha(tmp_path, colors):
    Image.fromarray(colors[:, :, 0] > 100).save(tmp_path / "bit.png")
    assert set(np.unique(read_image(tmp_path / "bit.png"))) == {0, 255}
    Image.fromarray(colors[:, :, 0]).convert("LA").save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png")[:, :, 1], colors[:, :, 0])


def test_cmyk_keeps_its_colors(tmp_path, colors):
    Image.fromarray(colors[:, :, ::-1].copy()).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - colors).mean() < 4


def test_first_picture_of_several(tmp_path, colors):
    """Phones write MPO files, JPEGs with a second picture, under the name .jpg."""
    first, second = Image.fromarray(colors), Image.fromarray(255 - colors)
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=98)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - colors[:, :, ::-1]).mean() < 4


def test_palette(tmp_path, colors):
    picture = Image.fromarray(colors[:, :, ::-1].copy()).quantize(256)
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "t.png", transparency=3)
    expected = np.asarray(picture.convert("RGB"))[:, :, ::-1]
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)
    assert np.array_equal(read_image(tmp_path / "t.png"), expected)


def test_alpha_is_dropped_as_in_opencv(tmp_path, colors):
    alpha = np.full((40, 60, 1), 7, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([colors, alpha], axis=2))
    assert np.array_equal(read_image(tmp_path / "a.png"), cv2.imread(str(tmp_path / "a.png")))
    assert np.array_equal(read_image(tmp_path / "a.png"), colors)


@pytest.mark.parametrize("extension", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_high_byte(tmp_path, colors, channels, extension):
    deep = colors.astype(np.uint16) * 256 + 99
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), deep if channels == 3 else deep[:, :, 0])
    expected = colors if channels == 3 else np.repeat(colors[:, :, :1], 3, axis=2)
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("orientation", range(10))  # 1 to 8 are defined
def test_photos_are_turned_as_opencv_turns_them(tmp_path, colors, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(colors[:, :, ::-1].copy(), tmp_path / "a.jpg", quality=95, exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg")))


@pytest.mark.parametrize("tag, kind", [(0x0132, 5), (0x0132, 12), (0x0100, 11), (0x011A, 2)])
def test_other_tags_may_be_damaged(tmp_path, colors, tag, kind):
    """A date that is a fraction or a float, a width and a resolution that are no numbers."""
    entries = sorted([struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHII", tag, kind, 1, 38)])
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + b"\xff" * 64
    save(colors[:, :, ::-1].copy(), tmp_path / "a.jpg", quality=95, exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (60, 40, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_pixels_points_and_boxes_are_turned_as_pillow_turns_them(tmp_path, tag, form):
    """A white block's box, and the pixel in its first corner, before and after ImageOps.exif_transpose."""
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = np.zeros((40, 64, 3), np.uint8)
    stored[8:16, 24:40] = 255  # on JPEG's blocks: not blurred
    path = tmp_path / "photo"
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(form, {})
    Image.fromarray(stored).save(path, form, exif=exif, **options)
    pixels, orientation = read_with_orientation(path)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(pixels, expected[:, :, ::-1]) and orientation == (tag, 64, 40)
    rows, columns = np.nonzero(pixels[:, :, 0] > 128)
    box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert orientation.upright_box((24, 8, 16, 8)) == box and orientation.stored_box(box) == (24, 8, 16, 8)
    corners = [[24, 8], [39, 8], [39, 15], [24, 15]]
    turned = orientation.upright_points(corners)
    assert {tuple(corner) for corner in turned} == {(x, y) for x in (box[0], box[0] + box[2] - 1)
                                                  for y in (box[1], box[1] + box[3] - 1)}
    assert np.array_equal(orientation.stored_points(turned), corners)


@pytest.mark.parametrize("tag", range(1, 9))
def test_each_point_goes_where_its_pixel_goes(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    for x, y in ((3, 5), (17, 0), (0, 11)):
        stored = np.zeros((12, 18, 3), np.uint8)
        stored[y, x] = 255
        Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
        pixels, orientation = read_with_orientation(tmp_path / "a.png")
        (row, column), = np.argwhere(pixels[:, :, 0])
        assert orientation.upright_points([[x, y]]).tolist() == [[column, row]]


def test_stored_points_come_back_exactly():
    """Also those of a float32 near the border, whose difference from the side no float32 holds."""
    points = np.array([[0.0012345678, 3.1415927], [1234.5678, 0.1]], np.float32)
    for tag in range(1, 9):
        turn = Orientation(tag, 4000, 3000)
        assert np.array_equal(turn.upright_points(turn.stored_points(points)), points.astype(np.float64))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif"])
def test_truncated_is_refused(tmp_path, colors, extension, share):
    noise = np.random.RandomState(0).randint(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{extension}")
    data = (tmp_path / f"a.{extension}").read_bytes()
    (tmp_path / f"a.{extension}").write_bytes(data[: int(len(data) * share)])
    reason = "not an image of a known" if (extension, share) == ("gif", 0.02) else "cannot be decoded: "  # half a header
    with pytest.raises(ImageError, match=reason):
        read_image(tmp_path / f"a.{extension}")


def test_jpeg_that_lost_its_last_bytes_is_refused(tmp_path, colors):
    cv2.imwrite(str(tmp_path / "a.jpg"), colors)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-40])
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "a.jpg")


def test_what_is_no_image(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (
        ("empty.jpg", "empty"), ("text.jpg", "not an image"), ("folder.jpg", "folder"), ("none.jpg", "missing"),
        ("a\0b.jpg", "cannot be opened|missing"), ("x" * 300, "cannot be opened|missing"),
    ):
        with pytest.raises(ImageError, match=reason):
            read_image(f"{tmp_path}/{name}")


@pytest.mark.parametrize("size", [(10_001, 10_000), (60_000, 60_000), (40_000, 4)])
def test_enormous_is_refused_by_its_header(tmp_path, size):
    (tmp_path / "a.png").write_bytes(bombs.png(*size))
    with pytest.raises(ImageError, match="megapixels|longer"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", bombs.KINDS)
def test_bombs_of_every_format_are_refused_before_they_are_decoded(tmp_path, kind, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(bombs.bomb(kind))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="more than the limit of 100 megapixels"):
        read_image(tmp_path / "a.jpg")


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # as if our own limit were far above Pillow's
    (tmp_path / "a.png").write_bytes(bombs.picture("PNG", (200, 100)))
    assert read_image(tmp_path / "a.png").shape == (100, 200, 3)
    monkeypatch.setenv("MEGAPIXELS_LIMIT", "0.01")
    with pytest.raises(ImageError, match="200 x 100 pixels is more than the limit of 0.01 megapixels; set MEGAPIXELS_LIMIT=N"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("MEGAPIXELS_LIMIT", "many")
    with pytest.raises(ImageError, match="'many', not a number"):
        read_image(tmp_path / "a.png")


def test_more_scans_than_any_photo_has_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(bombs.many_scans(50))
    assert read_image(tmp_path / "a.jpg").shape == (64, 64, 3)
    (tmp_path / "a.jpg").write_bytes(bombs.many_scans(50) + bombs.many_scans(90))  # what follows is not decoded
    assert read_image(tmp_path / "a.jpg").shape == (64, 64, 3)
    (tmp_path / "a.jpg").write_bytes(bombs.many_scans(100))
    with pytest.raises(ImageError, match="more than 100 scans"):
        read_image(tmp_path / "a.jpg")


def test_what_the_memory_cannot_hold_is_refused_with_the_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 200 << 20)
    (tmp_path / "a.png").write_bytes(bombs.png(4000, 3000))
    with pytest.raises(ImageError, match=r"4000 x 3000 pixels needs 288,000,000 bytes .0.3 GB., and there are 209,715,200"):
        read_image(tmp_path / "a.png")


def test_program_running_formats_are_not_opened(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="not an image of a known format"):
        read_image(tmp_path / "a.jpg")


def test_a_file_larger_than_any_image_of_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.write(bombs.picture("JPEG"))
        file.truncate(1 << 34)  # sparse: takes no disk
    with pytest.raises(ImageError, match="a file of 17,179,869,184 bytes"):
        read_image(tmp_path / "a.jpg")


# ---------------------------------------------------------------------------------------------- at most so many pixels
@pytest.mark.parametrize("most_pixels, divisor", [(4000, 1), (2400, 1), (2399, 2), (600, 2), (599, 4), (150, 4), (40, 8)])
def test_a_large_jpeg_is_decoded_smaller(colors, most_pixels, divisor):
    """Against OpenCV's decoding at the same scale of libjpeg."""
    content = cv2.imencode(".jpg", colors, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    image = decode_image(content, most_pixels / 1e6)
    assert image.shape[0] * image.shape[1] <= most_pixels
    assert np.array_equal(image, cv2.imdecode(np.frombuffer(content, np.uint8), flags[divisor]))


def test_a_photo_that_is_decoded_smaller_is_upright(colors):
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colors).save(stream, "JPEG", exif=exif)
    assert decode_image(stream.getvalue(), 600 / 1e6).shape == (30, 20, 3)


def test_what_cannot_be_decoded_smaller_is_refused(colors):
    for suffix, most_pixels in ((".png", 2399), (".jpg", 39)):
        content = cv2.imencode(suffix, colors)[1].tobytes()
        with pytest.raises(ImageError, match="60 x 40 pixels is more than the limit of .* megapixels"):
            decode_image(content, most_pixels / 1e6)
    assert decode_image(cv2.imencode(".png", colors)[1].tobytes(), 2400 / 1e6).shape == (40, 60, 3)


def heic(image, **options) -> bytes:
    """A HEIC file of an RGB array; skips where pillow-heif is not installed."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    content = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(image)).save(content, quality=-1, **options)  # -1: lossless, but for the colors
    return content.getvalue()


def quarters_of_colors():
    """120 x 160 RGB: four quarters, no two alike, so that a turned picture is another one."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[:60, :80], image[:60, 80:], image[60:, :80], image[60:, 80:] = (200, 30, 40), (20, 180, 60), (30, 50, 220), (240, 240, 20)
    return image


@pytest.mark.parametrize("tag", [None, 6])
def test_a_phones_heic_is_read_and_turned_once(tag):
    """The picture's own turn is libheif's to apply; the EXIF tag, which repeats it, is not applied once more."""
    exif = Image.Exif()
    if tag:
        exif[274] = tag
    image = quarters_of_colors()
    read = decode_image(heic(image, exif=exif.tobytes()))
    assert read.dtype == np.uint8
    upright = [image, np.rot90(image, -1)] if tag else [image]
    fitting = [turned for turned in upright if turned.shape == read.shape and np.abs(read[:, :, ::-1].astype(int) - turned).mean() < 4]
    assert len(fitting) == 1


def test_heic_photos_have_limits_and_may_be_broken():
    content = heic(quarters_of_colors())
    with pytest.raises(ImageError, match="160 x 120 pixels is more than the limit of 0.01 megapixels here"):
        decode_image(content, most_megapixels=0.01)
    for size in (20, 100, len(content) // 2, len(content) - 10):
        with pytest.raises(ImageError):
            decode_image(content[:size])


def test_a_heic_without_its_package_is_told_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"type: pip install pillow-heif \(torchcaffe's extra 'heic'\); or save the photo as JPEG$"):
        decode_image(b"\0\0\0\x18ftypheic" + bytes(100))
