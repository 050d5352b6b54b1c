"""WindowData where real Caffe says nothing: errors, what a snapshot keeps, what the parts of a batch are."""

import cv2
import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.core.errors import CaffeError, DataError, NetError
from torchcaffe.formats.files import write_blob
from torchcaffe.layers.window_data import read_windows

WINDOWS = "# 0 a.png 3 30 40 4\n1 0.9 0 0 9 9\n2 0.8 5 5 39 29\n3 0.2 3 4 20 25\n3 0.4 0 9 0 9\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.RandomState(2).randint(0, 256, (30, 40, 3)).astype(np.uint8)
    cv2.imwrite("a.png", image)
    (tmp_path / "w.txt").write_text(WINDOWS)
    return tmp_path


def text(settings="", transform="crop_size: 8", source="w.txt"):
    return (
        f'layer {{ name: "d" type: "WindowData" top: "data" top: "label" window_data_param {{ source: "{source}" '
        f"batch_size: 8 {settings} }} transform_param {{ {transform} }} }}"
    )


def test_the_first_windows_are_background(folder, make_net):
    caffe.set_random_seed(1)
    net = make_net(text("bg_threshold: 0.3"))
    net.forward()
    labels = net.blobs["label"].data
    assert labels[:6].tolist() == [0] * 6 and set(labels[6:].tolist()) <= {1, 2}
    pixels = cv2.resize(cv2.imread("a.png")[4:26, 3:21], (8, 8))  # the one window of background
    for item in net.blobs["data"].data[:6]:
        np.testing.assert_array_equal(item, pixels.transpose(2, 0, 1))


def test_context_is_zero_where_the_image_ends(folder, make_net):
    (folder / "corner.txt").write_text("# 0 a.png 3 30 40 1 1 1 0 0 3 3\n")
    net = make_net(text("fg_fraction: 1 context_pad: 2", source="corner.txt"))
    net.forward()
    data = net.blobs["data"].data[0]
    assert not data[:, :2].any() and not data[:, :, :2].any() and data[:, 2:, 2:].any()
    seen = cv2.resize(cv2.imread("a.png")[:7, :7], (6, 6))  # columns and rows -2 to 6, of which the image has seven
    np.testing.assert_array_equal(data[:, 2:, 2:], seen.transpose(2, 0, 1))


def test_lists(folder):
    objects, background = read_windows("w.txt", "there/", foreground=0.85, background=0.4)
    assert [window.label for window in objects] == [1] and objects[0][2:] == (0, 0, 9, 9, 2)
    assert [window.line for window in background] == [4]
    assert background[0].label == 0 and background[0].path == "there/a.png"


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "is empty"),
        ("0 a.png", 'line 1: expected #, found "0"'),
        ("# 0", "line 1: expected an image's path, found the end of the file"),
        ("# 0 a.png 3 1 1 1\n99999999999 1 0 0 0 0\n", "line 2: expected a window's class, found \"99999999999\""),
        ("# x a.png 3 1 1 0", 'expected an image\'s number, found "x"'),
        ("# 0 a.png 3 1 1 2\n1 1 0 0 0 0\n", "line 2: expected a window's class, found the end"),
        ("# 0 a.png 3 1 1 1\n1 1 0 0 0 0.5\n", 'line 2: expected a window\'s y2, found "0.5"'),
        ("# 0 a.png 3 1 1 1\n0 1 0 0 0 0\n", "line 2: an object's class is 1 or more, not 0"),
        ("# 0 a.png 1 1 1 0", "1 channels; windows are of color images: 3"),
    ],
)
def test_bad_lists_are_named_with_the_line(folder, content, words):
    (folder / "bad.txt").write_text(content)
    with pytest.raises(DataError, match=words):
        read_windows("bad.txt")


@pytest.mark.parametrize(
    "settings, transform, kind, words",
    [
        ("", "", NetError, "crop_size must be positive"),
        ("context_pad: 4", "crop_size: 8", NetError, "leaves nothing of crop_size 8"),
        ("fg_threshold: 2", "crop_size: 8", NetError, "no windows of objects, and each batch needs 2"),
        ("bg_threshold: 0", "crop_size: 8", NetError, "no windows of background, and each batch needs 6"),
        ("", 'crop_size: 8 mean_file: "small"', NetError, r"small is \(3, 5, 9\), too small for windows"),
        ('root_folder: "no/"', "crop_size: 8", DataError, '"d" .WindowData.: w.txt: no/a.png: No such file'),
    ],
)
def test_what_cannot_be_is_said(folder, make_net, settings, transform, kind, words):
    write_blob("small", np.zeros((1, 3, 5, 9), np.float32))
    with pytest.raises(kind, match=words):
        make_net(text(settings, transform)).forward()


def test_a_window_outside_its_image_is_named(folder, make_net):
    (folder / "out.txt").write_text("# 0 a.png 3 30 40 1\n1 1 0 0 40 3\n")
    with pytest.raises(CaffeError, match=r"out.txt, line 2: the window \(0, 0, 40, 3\) is not in a.png.*40 columns and 30 rows"):
        make_net(text("fg_fraction: 1", source="out.txt")).forward()


def test_a_sliver_of_which_nothing_remains_is_named(folder, make_net):
    """With the context around it the window is so high that the part of it in the image is less than half a pixel."""
    (folder / "high.txt").write_text("# 0 a.png 3 30 40 1\n1 1 0 29 3 2000\n")
    with pytest.raises(CaffeError, match="high.txt, line 2: the window .* is not in a.png"):
        make_net(text("fg_fraction: 1 context_pad: 3", source="high.txt")).forward()


def test_scale_beside_crop_size_is_warned_of(folder, make_net, capfd, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    make_net(text("", "crop_size: 8 scale: 0.5"))
    assert '"d" (WindowData): only window_data_param.scale is used' in capfd.readouterr().err


def test_a_snapshot_goes_on_with_the_next_windows(folder, make_net):
    caffe.set_random_seed(5)
    net = make_net(text("", "crop_size: 8 mirror: true"))
    net.forward()
    state = net.built_layers[0].data_state()
    following = [net.forward()["data"].copy() for _ in range(3)]
    caffe.set_random_seed(6)
    again = make_net(text("", "crop_size: 8 mirror: true"))
    again.forward()
    again.built_layers[0].set_data_state(state)
    for expected in following:
        np.testing.assert_array_equal(again.forward()["data"], expected)
