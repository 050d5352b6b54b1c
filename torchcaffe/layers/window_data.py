"""WindowData: windows of images as R-CNN trains on them, objects and background drawn at random from a file's lists."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from torchcaffe.core import extras, log
from torchcaffe.data import image_file, workers
from torchcaffe.data.datasource import seed_thread
from torchcaffe.core.errors import DataError
from torchcaffe.layers.base import register
from torchcaffe.layers.data import Prefetched
from torchcaffe.data.prefetch import Batch, Buffers
from torchcaffe.core.rng import Generator
from torchcaffe.distributed.shares import WHOLE
from torchcaffe.formats.storage import read_bytes
from torchcaffe.data.transformer import Transformer

CHANNELS = 3  # images are read in color, whatever the file says of them


@register
class WindowData(Prefetched):
    """Windows N×3×crop_size×crop_size and their labels, 0 for background, which come first in each batch.

    `source` lists images: `# index`, path, channels, height, width, number of windows, then for each its class, overlap
    with an object, x1, y1, x2, y2 (pixels, both included). Everything is separated by white space.
    """

    type = "WindowData"
    tops = (2, 2)

    def setup(self, bottom, top):
        p, transform = self.param.window_data_param, self.param.transform_param
        self.check(p.source, "window_data_param.source is missing")
        self.check(p.batch_size > 0, "window_data_param.batch_size must be positive")
        self.check(transform.crop_size > 0, "transform_param.crop_size must be positive: windows are scaled to it")
        self.check(
            2 * p.context_pad < transform.crop_size,
            f"context_pad {p.context_pad} on both sides leaves nothing of crop_size {transform.crop_size}",
        )
        self.check(0 <= p.fg_fraction <= 1, f"fg_fraction must be between 0 and 1, not {p.fg_fraction:g}")
        if transform.scale != 1:
            log.warning(f'layer "{self.name}" (WindowData): only window_data_param.scale is used, as in Caffe')
        batches, shape = window_batches(self)
        self.read_ahead(top, batches, self.param.data_param.prefetch, shape)


class Window(NamedTuple):
    """A window of an image: its class, and the first and last column and row, in pixels."""

    path: str
    label: int
    x1: int
    y1: int
    x2: int
    y2: int
    line: int  # of the file that lists it


def read_windows(path, root_folder="", foreground=0.5, background=0.5):
    """(objects, background): lists of Window. Those that overlap an object less than `background` are background.

    Raises:
        DataError: the file is missing or not such a list; the message names the line.
    """
    objects, others = [], []
    words = _Words(path)
    while not words.ended():
        words.next("#", lambda word: word if word == "#" else None)
        words.next("an image's number", whole)
        image = root_folder + words.next("an image's path", str)
        channels = words.next("the image's channels", whole)
        if channels != CHANNELS:
            raise DataError(f"{words.where()}: {channels} channels; windows are of color images: {CHANNELS}")
        for what in ("height", "width"):
            words.next(f"the image's {what}", whole)
        for _ in range(words.next("the number of windows", whole)):
            label, overlap = words.next("a window's class", whole), words.next("a window's overlap", float)
            corners = [words.next(f"a window's {name}", whole) for name in ("x1", "y1", "x2", "y2")]
            if overlap >= foreground:
                if label <= 0:
                    raise DataError(f"{words.where()}: an object's class is 1 or more, not {label}; 0 is the background")
                objects.append(Window(image, label, *corners, words.line))
            elif overlap < background:
                others.append(Window(image, 0, *corners, words.line))
    return objects, others


def whole(word) -> int:
    """A whole number of 32 bits, as Caffe's. Raises ValueError."""
    number = int(word)
    if not -(2**31) <= number < 2**31:
        raise ValueError(word)
    return number


class _Words:
    """A file's words one by one, and the lines they are in."""

    def __init__(self, path):
        self.path = path
        lines = read_bytes(path, DataError, "list of windows").decode("utf-8", "surrogateescape").split("\n")
        self.words = [(word, number) for number, line in enumerate(lines, 1) for word in line.split()]
        self.position, self.line = 0, 1

    def ended(self):
        return self.position == len(self.words)

    def where(self):
        return f"{self.path}, line {self.line}"

    def next(self, what, kind):
        """The next word as `kind` makes it; DataError where it raises ValueError or gives None."""
        word = None
        if not self.ended():
            word, self.line = self.words[self.position]
            self.position += 1
            try:
                value = kind(word)
            except ValueError:
                value = None
            if value is not None:
                return value
        found = "the end of the file" if word is None else f'"{word}"'
        raise DataError(f"{self.where()}: expected {what}, found {found}; is this a file of windows for WindowData?")


def window_batches(layer):
    """(batches for a Prefetcher, shape of the data) of a WindowData layer; draws the same random numbers as Caffe."""
    p, transform, generator = layer.param.window_data_param, layer.param.transform_param, layer.context.generator
    objects, others = read_windows(p.source, p.root_folder, p.fg_threshold, p.bg_threshold)
    transformer = Transformer(layer)
    transformer.seed(generator)  # Caffe makes two seeds for it, although it draws nothing here
    draws = Generator(generator.draw())
    transformer.seed(generator)
    seed_thread(generator)
    wanted = int(np.float32(p.batch_size) * np.float32(p.fg_fraction))
    for count, windows, what in ((wanted, objects, "objects"), (p.batch_size - wanted, others, "background")):
        layer.check(windows or not count, f"{p.source} has no windows of {what}, and each batch needs {count}")
    values = len(transform.mean_value)
    layer.check(values in (0, 1, CHANNELS), f"{values} mean values do not fit {CHANNELS} channels")
    cutter = Cutter(layer, transformer.mean)
    share = layer.share if layer.share.split else WHOLE
    size = share.size(p.batch_size, layer)
    buffers = Buffers(pinned=layer.context.device.type == "cuda")
    shape = (size, CHANNELS, transform.crop_size, transform.crop_size)

    def drawn(item):
        windows = others if item < p.batch_size - wanted else objects
        window = windows[draws.draw() % len(windows)]
        return window, bool(transform.mirror and draws.draw() % 2)

    def batches(state=None):
        if state:
            draws.load_state_dict(state["generator"])
        position = int(state["position"]) if state else 0
        while True:
            chosen = [drawn(item) for item in range(p.batch_size)]
            ours = [one for item, one in enumerate(chosen) if share.owns(item, p.batch_size)]
            array, tensor = buffers.take(shape, np.float32)
            array[...] = 0
            workers.thread_map(lambda one: cutter.cut(*one), list(zip(ours, array)))
            labels = np.array([window.label for window, _ in ours], np.float32)
            position += p.batch_size
            yield Batch((tensor, torch.from_numpy(labels)), state={"position": position, "generator": draws.state_dict()})

    return batches, shape


class Cutter:
    """Cuts windows out of their images, with the context around them, at the net's size."""

    def __init__(self, layer, mean):
        p, transform = layer.param.window_data_param, layer.param.transform_param
        self.source, self.name = p.source, layer.name
        self.side, self.scale, self.mean = transform.crop_size, np.float32(p.scale), mean
        self.square, self.context_pad = p.crop_mode == "square", p.context_pad
        self.files = {} if p.cache_images else None
        if transform.mean_file:
            off = (mean.shape[2] - self.side) // 2
            self.mean = mean[:, off : off + self.side, off : off + self.side]
            layer.check(
                off >= 0 and self.mean.shape == (CHANNELS, self.side, self.side),
                f"{transform.mean_file} is {mean.shape}, too small for windows of {(CHANNELS, self.side, self.side)}",
            )

    def cut(self, drawn, out):
        """Write a window, (pixel - mean) * scale, into `out`, 3×side×side of zeros. drawn: (Window, mirrored)."""
        cv2 = extras.load("cv2")

        window, mirrored = drawn
        image = self.image(window)
        (x1, y1, x2, y2), (left, top), (width, height) = self.place(window, image.shape, mirrored)
        inside = 0 <= x1 <= x2 < image.shape[1] and 0 <= y1 <= y2 < image.shape[0]
        if not inside or width < 1 or height < 1:
            raise DataError(
                f'layer "{self.name}" (WindowData): {self.source}, line {window.line}: the window {window[2:6]} is not in '
                f"{window.path}, which has {image.shape[1]} columns and {image.shape[0]} rows; correct the list"
            )
        part = cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1], (width, height), interpolation=cv2.INTER_LINEAR)
        part = (part[:, ::-1] if mirrored else part).transpose(2, 0, 1).astype(np.float32)
        where = (slice(None), slice(top, top + height), slice(left, left + width))
        if self.mean is not None:
            part -= self.mean[where] if self.mean.shape[1:] == out.shape[1:] else self.mean
        out[where] = part * self.scale

    def place(self, window, shape, mirrored):
        """(x1, y1, x2, y2) in the image, (column, row) and (width, height) in the output."""
        x1, y1, x2, y2 = window.x1, window.y1, window.x2, window.y2
        side = self.side
        if not (self.context_pad or self.square):
            return (x1, y1, x2, y2), (0, 0), (side, side)
        larger = np.float32(side) / np.float32(side - 2 * self.context_pad)
        half_width, half_height = np.float32(x2 - x1 + 1) / 2, np.float32(y2 - y1 + 1) / 2
        center_x, center_y = np.float32(x1) + half_width, np.float32(y1) + half_height
        if self.square:
            half_width = half_height = max(half_width, half_height)
        x1, x2 = rounded(center_x - half_width * larger), rounded(center_x + half_width * larger)
        y1, y2 = rounded(center_y - half_height * larger), rounded(center_y + half_height * larger)
        scale_x, scale_y = np.float32(side) / np.float32(x2 - x1 + 1), np.float32(side) / np.float32(y2 - y1 + 1)
        before_x, before_y = max(0, -x1), max(0, -y1)
        behind_x, behind_y = max(0, x2 - shape[1] + 1), max(0, y2 - shape[0] + 1)
        x1, x2, y1, y2 = x1 + before_x, x2 - behind_x, y1 + before_y, y2 - behind_y
        width, height = rounded(np.float32(x2 - x1 + 1) * scale_x), rounded(np.float32(y2 - y1 + 1) * scale_y)
        left = rounded(np.float32(behind_x if mirrored else before_x) * scale_x)
        top = rounded(np.float32(before_y) * scale_y)
        return (x1, y1, x2, y2), (left, top), (min(width, side - left), min(height, side - top))

    def image(self, window):
        """H×W×3 uint8, B, G, R, of the window's image."""
        try:
            data = self.files.get(window.path) if self.files is not None else None
            if data is None:
                data = image_file.read_image_file(window.path)
                if self.files is not None:
                    self.files[window.path] = data
            return image_file.decode(data, "color")
        except (image_file.ImageFileError, OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise DataError(
                f'layer "{self.name}" (WindowData): {self.source}: {window.path}: {reason}; correct the list, root_folder '
                "or the image"
            ) from None


def rounded(value) -> int:
    """The nearest integer, halves away from zero, as in C."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))
