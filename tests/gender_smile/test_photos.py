"""Where photos come from: files, folders, patterns, standard input, videos, a camera."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from lmdb_builders.errors import ImageError
from gender_smile.inference.photos import Source, camera, count_photos, expand, frames, read, read_all


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(name: str, color=(10, 20, 30), size=(40, 30)) -> str:
    """A plain photo, of a color given as B, G, R."""
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    Image.new("RGB", size, color[::-1]).save(name)
    return name


def video(name: str, count: int, rate: float = 10, codec: str = "MJPG", size=(64, 48)) -> str:
    """A video whose frame n has the brightness 5 n."""
    writer = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*codec), rate, size)
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((size[1], size[0], 3), 5 * number, np.uint8))
    writer.release()
    return name


def paths(*inputs: str) -> list:
    return [source.path for source in expand(inputs)]


# ------------------------------------------------------------------------------------------ files, folders, patterns
def test_folders_are_searched_in_order_and_hold_only_photos_and_videos():
    for name in ("b/2.png", "b/10.JPG", "b/.hidden.png", "b/.git/3.png", "b/deep/er/1.jpeg", "a.png"):
        save(name) if not name.endswith("JPG") else save("b/10.jpg") and os.rename("b/10.jpg", name)
    video("b/clip.avi", 2)
    open("b/notes.txt", "w").close()
    assert paths("b", "a.png") == ["b/10.JPG", "b/2.png", "b/clip.avi", "b/deep/er/1.jpeg", "a.png"]


def test_a_phones_photos_that_are_not_read_are_named():
    save("x/1.png")
    for name, brand in (("x/2.HEIC", b"heic"), ("x/3.avif", b"avif")):
        with open(name, "wb") as file:
            file.write(b"\0\0\0\x18ftyp" + brand + bytes(100))
    found = list(read_all(expand(["x"])))
    assert [photo.name for photo in found] == ["x/1.png", "x/2.HEIC", "x/3.avif"]
    assert found[0].error is None and found[1].error
    assert found[2].error == "an AVIF image, which is not supported: save it as JPEG or PNG"


def test_patterns_are_for_shells_that_leave_them():
    for name in ("x/1.png", "x/2.png", "x/y/3.png", "odd[1].png"):
        save(name)
    assert paths("x/*.png") == ["x/1.png", "x/2.png"]
    assert paths("x/**/*.png") == ["x/1.png", "x/2.png", "x/y/3.png"]
    assert paths("*") == ["odd[1].png", "x/1.png", "x/2.png", "x/y/3.png"]
    assert paths("odd[1].png") == ["odd[1].png"]  # a file of that very name
    assert paths("x/**") == ["x/1.png", "x/2.png", "x/y/3.png"]  # x and x/y match, too, but no file comes twice
    assert paths("x/1.png", "x/*.png") == ["x/1.png", "x/1.png", "x/2.png"]  # unless it is asked for twice


def test_what_leads_nowhere_is_named():
    os.mkdir("empty")
    found = list(read_all(expand(["empty", "*.png", "missing.jpg", "missing.mp4"])))
    assert [(photo.name, photo.pixels) for photo in found] == [
        ("empty", None), ("*.png", None), ("missing.jpg", None), ("missing.mp4", None)]
    assert [photo.error for photo in found] == ["is a folder without a photo or a video in it",
                                                "no file matches this pattern", "file is missing", "file is missing"]


def test_folders_that_cannot_be_read_are_named_and_the_others_searched(monkeypatch):
    """By a scandir that refuses: the tests may run as root, to whom every folder is open."""
    for name in ("x/1.png", "x/closed/2.png", "x/open/3.png"):
        save(name)
    scandir = os.scandir

    def refuse(folder):
        if "closed" in os.fspath(folder):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    reason = "this folder cannot be read: Permission denied"
    assert expand(["x"]) == [Source("x/1.png"), Source("x/closed", reason), Source("x/open/3.png")]
    assert expand(["x/closed"]) == [Source("x/closed", reason)]


def test_pixels_are_blue_green_red():
    assert read(save("a.png", (10, 20, 30))).pixels[0, 0].tolist() == [10, 20, 30]


# ------------------------------------------------------------------------------------------ standard input
def stdin(monkeypatch, content: bytes, terminal: bool = False) -> None:
    stream = types.SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stream)


def test_standard_input(monkeypatch):
    with open(save("a.png", (1, 2, 3)), "rb") as file:
        stdin(monkeypatch, file.read())
    (photo,) = read_all(expand(["-"]))
    assert photo.name == "-" and photo.pixels[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("content, terminal, reason", [
    (b"", False, "empty"), (b"no photo", False, "not an image"), (b"", True, "< photo.jpg"), (b"\0" * 900, False, "more than 800"),
])
def test_standard_input_without_a_photo(monkeypatch, content, terminal, reason):
    monkeypatch.setenv("MEGAPIXELS_LIMIT", "0.0001")
    stdin(monkeypatch, content, terminal)
    photo = read("-")
    assert photo.pixels is None and reason in photo.error


# ------------------------------------------------------------------------------------------ videos
@pytest.mark.parametrize("name, codec", [("clip.avi", "MJPG"), ("clip.mp4", "mp4v"), ("clip.mkv", "mp4v")])
def test_frames_of_a_video(name, codec):
    found = list(frames(video(name, 12, codec=codec), every=5))
    assert [photo.frame for photo in found] == [0, 5, 10]
    assert [photo.seconds for photo in found] == pytest.approx([0, 0.5, 1.0], abs=0.01)
    assert [photo.pixels.mean() for photo in found] == pytest.approx([0, 25, 50], abs=5)
    assert all(photo.error is None and photo.pixels.shape == (48, 64, 3) and photo.name == name for photo in found)
    assert count_photos([Source(name), Source("photo.jpg")], 5) == 4


def test_one_frame_a_second_unless_told():
    assert [photo.frame for photo in frames(video("clip.avi", 25))] == [0, 10, 20]


def test_a_video_that_was_cut_off_gives_what_it_has_and_says_so():
    whole = os.path.getsize(video("clip.avi", 40))
    os.truncate("clip.avi", whole // 2)
    found = list(frames("clip.avi", every=2))
    assert len(found) > 2 and all(photo.error is None for photo in found[:-1])
    assert "of 40: the rest is missing or damaged" in found[-1].error


def errors_elsewhere(root, *names: str):
    """[errors of the frames] of each video, read by a process of its own, and what that said on stderr."""
    code = "import sys; from gender_smile.inference.photos import frames\nfor name in sys.argv[1:]: print([photo.error for photo in frames(name)])"
    done = subprocess.run([sys.executable, "-c", code, *names], env={**os.environ, "PYTHONPATH": str(root)},
                          capture_output=True, text=True, timeout=60)
    return [ast.literal_eval(line) for line in done.stdout.splitlines()], done.stderr


def test_a_video_without_a_frame():
    (found,) = frames(video("none.avi", 0))
    assert found.error == "this video has no frame that can be decoded"


def test_what_is_no_video(root):
    contents = {"text.mp4": b"not a video", "empty.mp4": b"", "header.avi": b"RIFF\x10\0\0\0AVI LIST", "%d.mp4": b"\0\0\0\x18ftypmp42"}
    for name, content in contents.items():
        with open(name, "wb") as file:
            file.write(content)
    os.mkdir("folder.mp4")
    found, said = errors_elsewhere(root, *contents, "folder.mp4")
    assert found == [["not a video that OpenCV can decode"]] * 4 + [["not a regular file"]]
    assert said == ""  # nothing of what FFmpeg has to say about them


def test_frames_larger_than_the_limit_are_not_decoded(monkeypatch):
    video("clip.avi", 3)
    monkeypatch.setenv("MEGAPIXELS_LIMIT", "0.001")
    (photo,) = frames("clip.avi")
    assert "64 x 48 pixels is more than the limit" in photo.error


def test_a_video_that_names_other_files_or_addresses_opens_none(root):
    """An HLS list and an FFmpeg list named .mp4: neither the neighbor nor the server they name is read."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/secret.ts"
    with open("list.mp4", "w") as file:
        file.write(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n")
    with open("concat.mp4", "w") as file:
        file.write(f"ffconcat version 1.0\nfile {address}\n")
    with open(video("neighbor.avi", 3) + ".mp4", "w") as file:
        file.write("ffconcat version 1.0\nfile neighbor.avi\n")
    found, _ = errors_elsewhere(root, "list.mp4", "concat.mp4", "neighbor.avi.mp4", "neighbor.avi")
    server.shutdown()
    assert found == [["not a video that OpenCV can decode"]] * 3 + [[None]]
    assert asked == []


@pytest.mark.parametrize("name, codec", [("a.mov", "mp4v"), ("a.mkv", "mp4v"), ("a.webm", "VP80"), ("a.mpg", "mpg2"),
                                         ("a.ts", "mpg2"), ("a.wmv", "WMV2"), ("a.3gp", "mp4v"), ("a.ogv", "VP80")])
def test_containers_that_hold_their_pictures_are_read(name, codec):
    writer = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*codec), 25, (352, 288))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write one")
    for number in range(10):
        writer.write(np.full((288, 352, 3), 25 * number, np.uint8))
    writer.release()
    assert [(photo.frame, photo.error) for photo in frames(name)] == [(0, None)]


# ------------------------------------------------------------------------------------------ a camera
class FakeCamera:
    """A camera of 4 frames a second that is taken away after ten, as OpenCV shows it."""

    def __init__(self, number, backend):
        self.number, self.taken = number, 0

    def isOpened(self):
        return self.number == 0

    def get(self, name):
        return 4.0 if name == cv2.CAP_PROP_FPS else -1.0

    def grab(self):
        self.taken += 1
        return self.taken <= 10

    def retrieve(self):
        return True, np.full((6, 8), self.taken - 1, np.uint8)  # gray

    def release(self):
        pass


def test_a_camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    found = list(camera(0))
    assert [(photo.name, photo.frame, photo.seconds) for photo in found] == [
        ("camera 0", 0, 0.0), ("camera 0", 4, 1.0), ("camera 0", 8, 2.0)]
    assert found[1].pixels.shape == (6, 8, 3) and found[1].pixels[0, 0].tolist() == [4, 4, 4]
    with pytest.raises(ImageError, match="no camera 7"):
        next(camera(7))
