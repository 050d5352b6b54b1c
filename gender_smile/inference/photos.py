"""Photos from files, folders, patterns, standard input, videos and cameras."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Sequence

from lmdb_builders.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")  # of what --draw writes
MARK, MARK_WITHIN = "picture of a prediction, written by predict.py", 4096  # a comment within its first bytes
STANDARD_INPUT = "-"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
                  ".pbm", ".pnm", ".jp2")
PHONE_SUFFIXES = (".heic", ".heif", ".avif")  # read, or listed with what to do: not skipped
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv", ".3gp", ".ts")
# FFmpeg's names of containers that hold their frames; not of playlists (hls, concat, dash), which name other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,asf,ogg,flv,gif,ivf,mxf"
FRAME_RATE = 30.0  # frames a second, where a camera or a video does not state it
COMPLETE = 0.9  # share of the frames that a video's header states: with fewer, its end is missing


@dataclass(frozen=True)
class Photo:
    """One picture to predict: its pixels, or why there are none.

    name: the file's path, "-" or "camera 0"; pixels: height x width x 3 uint8, BGR, upright; frame counts a video's or
    a camera's frames from 0, seconds since its start.
    """

    name: str = ""
    pixels: Optional["np.ndarray"] = None
    error: Optional[str] = None
    frame: Optional[int] = None
    seconds: Optional[float] = None


@dataclass(frozen=True)
class Source:
    """A file to read, or an input without one, and why."""

    path: str
    error: Optional[str] = None

    @property
    def is_video(self) -> bool:
        return os.path.splitext(self.path)[1].lower() in VIDEO_SUFFIXES


def read_photo(path: str) -> "np.ndarray":
    """A photo as the pipeline sees it, upright by its EXIF tag: height x width x 3 uint8, BGR. Raises ImageError."""
    from lmdb_builders.images import read_image

    return read_image(path)


def expand(inputs: Sequence[str]) -> List[Source]:
    """Files in the order of `inputs`: of a folder its images and videos, of a pattern what it matches, sorted.

    An input without a file has an error: a pattern without a match, a folder that is empty or cannot be read. Folders are
    searched recursively, except hidden ones. In folders and patterns, pictures that --draw wrote are skipped, so that
    predict.py can draw there again. A pattern (*, ?, [...], ** for folders at any depth) is one only where no file has
    exactly that name.
    """
    sources: List[Source] = []
    for text in inputs:
        if os.path.isdir(text):
            sources += _folder(text)
        elif glob.has_magic(text) and not os.path.lexists(text):
            sources += _matches(text) or [Source(text, "no file matches this pattern")]
        else:
            sources.append(Source(text))
    return sources


def is_own_picture(path: str) -> bool:
    """True for a picture that predict.py --draw has written, which contains MARK."""
    try:
        with open(path, "rb") as stream:
            return MARK.encode() in stream.read(MARK_WITHIN)
    except OSError:
        return False


def _is_input(path: str) -> bool:
    return os.path.splitext(path)[1].lower() not in PICTURE_SUFFIXES or not os.path.isfile(path) or not is_own_picture(path)


def _matches(pattern: str) -> List[Source]:
    """The files that a pattern matches, each once: ** matches a folder, and what is in it again."""
    sources: List[Source] = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        sources += _folder(path) if os.path.isdir(path) else [Source(path)] if _is_input(path) else []
    return list(dict.fromkeys(sources))


def _folder(folder: str) -> List[Source]:
    suffixes = IMAGE_SUFFIXES + PHONE_SUFFIXES + VIDEO_SUFFIXES
    paths: List[str] = []
    unreadable: List[Source] = []  # folders
    for parent, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(_unreadable(error))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in files
                  if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes]
    paths = [path for path in paths if _is_input(path)]
    if not paths and not unreadable:
        return [Source(folder, "is a folder without a photo or a video in it")]
    return sorted([*unreadable, *map(Source, paths)], key=lambda source: source.path)


def _unreadable(error: OSError) -> Source:
    return Source(str(error.filename), f"this folder cannot be read: {error.strerror}")


def read_all(sources: Sequence[Source], every: Optional[int] = None) -> Iterator[Photo]:
    """The photos of all sources in order, one in memory at a time; of a video each `every`-th frame (see frames)."""
    for source in sources:
        if source.error is not None:
            yield Photo(source.path, error=source.error)
        elif source.is_video:
            yield from frames(source.path, every)
        else:
            yield read(source.path)


def read(path: str) -> Photo:
    """The photo in a file, or on standard input for "-"."""
    try:
        return Photo(path, _standard_input() if path == STANDARD_INPUT else read_photo(path))
    except ImageError as error:
        return Photo(path, error=str(error))


def _standard_input() -> "np.ndarray":
    from lmdb_builders.images import decode_image
    from torchcaffe.data.image_file import FILE_BYTES_A_PIXEL, megapixels_limit

    if sys.stdin is None or sys.stdin.isatty():
        raise ImageError("no photo comes from standard input: add < photo.jpg")
    most = int(megapixels_limit() * 1e6 * FILE_BYTES_A_PIXEL)
    content = sys.stdin.buffer.read(most + 1)
    if not content:
        raise ImageError("standard input is empty (0 bytes)")
    if len(content) > most:
        raise ImageError(f"more than {most:,} bytes on standard input")
    return decode_image(content)


# ------------------------------------------------------------------------------------------ videos and cameras
def frames(path: str, every: Optional[int] = None) -> Iterator[Photo]:
    """Frame 0 of a video and each `every`-th after it (default: about one a second), turned upright by its tag."""
    if not os.path.isfile(path):
        yield Photo(path, error="file is missing" if not os.path.lexists(path) else "not a regular file")
        return
    with _capture(os.path.abspath(path)) as capture:
        problem = _video_problem(capture)
        if problem:
            yield Photo(path, error=problem)
            return
        count = 0
        for photo in _captured(capture, Photo(path), every):
            count = (photo.frame or 0) + 1
            yield photo
        stated, step = int(_positive(capture, "CAP_PROP_FRAME_COUNT", 0)), every or _one_a_second(capture)
        if not count:
            yield Photo(path, error="this video has no frame that can be decoded")
        elif count + step < stated * COMPLETE:
            yield Photo(path, error=f"the video ends at frame {count} of {stated}: the rest is missing or damaged")


def camera(number: int, every: Optional[int] = None) -> Iterator[Photo]:
    """Frames of a camera, as frames() of a video, until it is unplugged. Raises ImageError where there is none."""
    with _capture(number) as capture:
        if not capture.isOpened():
            raise ImageError(f"there is no camera {number} that OpenCV can open")
        yield from _captured(capture, Photo(f"camera {number}"), every)


def count_photos(sources: Sequence[Source], every: Optional[int] = None) -> int:
    """About how many photos read_all() will yield: of videos, as many as their headers state."""
    total = 0
    for source in sources:
        if source.is_video and source.error is None and os.path.isfile(source.path):
            with _capture(os.path.abspath(source.path)) as capture:
                stated = _positive(capture, "CAP_PROP_FRAME_COUNT", 1)
                total += max(1, -(-int(stated) // (every or _one_a_second(capture))))
        else:
            total += 1
    return total


@contextlib.contextmanager
def _capture(source: Any) -> Iterator[Any]:
    """cv2.VideoCapture of a path or a camera's number. Files and addresses that a video refers to are not opened."""
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", f"protocol_whitelist;file|format_whitelist;{CONTAINERS}")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # we report what is wrong with a video
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source, cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG)
        try:
            yield capture
        finally:
            capture.release()
    finally:
        cv2.utils.logging.setLogLevel(level)


def _video_problem(capture: Any) -> Optional[str]:
    from torchcaffe.data.image_file import ImageFileError, check_size

    if not capture.isOpened():
        return "not a video that OpenCV can decode"
    try:
        check_size(int(_positive(capture, "CAP_PROP_FRAME_WIDTH", 0)), int(_positive(capture, "CAP_PROP_FRAME_HEIGHT", 0)))
    except ImageFileError as error:
        return str(error)
    return None


def _captured(capture: Any, template: Photo, every: Optional[int]) -> Iterator[Photo]:
    """Each `every`-th frame; those between are decoded, as videos demand, but not converted."""
    import cv2

    step, rate = every or _one_a_second(capture), _positive(capture, "CAP_PROP_FPS", FRAME_RATE)
    number = 0
    while capture.grab():
        if number % step == 0:
            seconds = _positive(capture, "CAP_PROP_POS_MSEC", 0.0) / 1000
            photo = replace(template, frame=number, seconds=seconds or number / rate)
            decoded, pixels = capture.retrieve()
            if decoded and pixels.ndim == 2:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
            yield replace(photo, pixels=pixels) if decoded else replace(photo, error="this frame cannot be decoded")
        number += 1


def _one_a_second(capture: Any) -> int:
    return max(1, round(_positive(capture, "CAP_PROP_FPS", FRAME_RATE)))


def _positive(capture: Any, name: str, otherwise: float) -> float:
    """A property of a capture; `otherwise` where it is unknown (0, negative or NaN)."""
    import cv2

    value = capture.get(getattr(cv2, name))
    return value if 0 < value < 1e12 else otherwise
