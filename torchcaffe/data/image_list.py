"""Lists of images with labels, one `path label` a line, as ImageData and convert_imageset read them."""

from __future__ import annotations

import os
import re

import numpy as np

from torchcaffe.core import extras, log
from torchcaffe.data import image_file, workers
from torchcaffe.data.datasource import seed_thread
from torchcaffe.core.errors import DataError
from torchcaffe.core.rng import Generator
from torchcaffe.distributed.shares import WHOLE
from torchcaffe.data.shuffles import shuffle
from torchcaffe.formats.storage import read_bytes
from torchcaffe.data.transformer import Transformer, UnequalShapes

EPOCHS_LIMIT = 10**6  # that a snapshot's record can have behind it


def read_list(path, blank_lines=False):
    """[(name, label)] of a list file. Names may hold spaces; a label that is not a number counts as 0, as in C.

    Args:
        blank_lines: keep them, as ("", 0).
    Raises:
        DataError: the file is missing, or a line is empty.
    """
    lines = read_bytes(path, DataError, "list of images").decode("utf-8", "surrogateescape").splitlines()
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip() and not blank_lines:
            raise DataError(f"{path}, line {number} is empty; a line is an image's path, a space and a label")
        if "\0" in line:
            raise DataError(f"{path}, line {number} holds a NUL character; save the list as UTF-8 text")
        name, _, label = line.rpartition(" ")
        entries.append((name or line, _label(label)))
    return entries


def _label(text):
    """The number at the start of a text as C++'s streams read an int: 0 where there is none, the nearest one in range."""
    leading = re.match(r"[ \t\v\f\r]*([+-]?[0-9]{1,20})", text)
    return max(-(2**31), min(2**31 - 1, int(leading[1]))) if leading else 0


def read_image(path, height=0, width=0, color=True, where=""):
    """C×H×W uint8, B, G, R (one plane where not `color`), resized where a size is given. Raises DataError."""
    if not os.path.isfile(path):
        raise DataError(f"{where}: {path} does not exist; correct the list or root_folder")
    try:
        image = image_file.decode(image_file.read_image_file(path), "color" if color else "gray")
    except (image_file.ImageFileError, OSError) as problem:
        raise DataError(f"{where}: {path}: {problem}; correct the list or the image") from None
    if height and width:
        cv2 = extras.load("cv2")

        image = cv2.resize(image, (width, height))
    return image.transpose(2, 0, 1) if image.ndim == 3 else image[None]


def image_batches(layer):
    """(batches for a Prefetcher, shape of the data) of an ImageData layer; draws the same random numbers as Caffe.

    Without a split batch every rank reads the whole list, as Caffe's GPUs do.
    """
    p, generator = layer.param.image_data_param, layer.context.generator
    transformer = Transformer(layer)
    transformer.seed(generator)  # the first of Caffe's two seeds is not used
    lines = Lines(read_list(p.source), generator.draw() if p.shuffle else None)
    entries = lines.entries
    layer.check(entries, f"{p.source} lists no images")
    start = generator.draw() % p.rand_skip if p.rand_skip else 0
    layer.check(start < len(entries), f"rand_skip {p.rand_skip} skips all {len(entries)} lines of {p.source}")

    def image(entry):
        return read_image(p.root_folder + entry[0], p.new_height, p.new_width, p.is_color, p.source)

    shape = transformer.output_shape(layer, image(entries[start]).shape)
    transformer.seed(generator)
    seed_thread(generator)
    share = layer.share if layer.share.split else WHOLE
    size = share.size(p.batch_size, layer)

    def batches(state=None):
        position = int(state["position"]) if state else start
        if not 0 <= position < len(lines.entries):
            raise DataError(f"{p.source} has no line {position + 1}, where the snapshot resumes; use the list of the original "
                            "training")
        transformer.set_state(state)
        lines.set_state(state)
        while True:
            chosen = []
            for item in range(p.batch_size):
                if share.owns(item, p.batch_size):
                    chosen.append(lines.entries[position])
                position += 1
                if position == len(lines.entries):
                    if share.rank == 0:
                        log.info("Restarting data prefetching from start.")
                    position = 0
                    lines.shuffle()
            labels = np.array([label for _, label in chosen], np.float32)
            arrays = workers.thread_map(image, chosen)
            try:
                batch = transformer.batch(arrays, labels, workers.thread_map)
            except UnequalShapes as odd:
                raise DataError(f'layer "{layer.name}" (ImageData): {p.source}: {chosen[odd.index][0]} has {odd}; set '
                                "new_height and new_width, so that all images have one size") from None
            yield batch._replace(state={"position": position, **lines.state(), **transformer.state()})

    return batches, (size, *shape)


class Lines:
    """A list's entries, shuffled anew in each epoch where there is a seed."""

    def __init__(self, entries, seed):
        self.listed, self.seed = entries, seed
        self._begin()

    def _begin(self):
        self.entries, self.shuffles = list(self.listed), 0
        self.generator = None if self.seed is None else Generator(self.seed)
        self.shuffle()

    def shuffle(self):
        if self.generator is not None:
            shuffle(self.entries, self.generator)
            self.shuffles += 1

    def state(self) -> dict:
        """The current order, as plain data for JSON."""
        return {"seed": self.seed, "shuffles": self.shuffles}

    def set_state(self, state):
        """Restore the order of state() by repeating its shuffles; None: the initial order."""
        if state is None or (state["seed"], state["shuffles"]) == (self.seed, self.shuffles):
            return
        if not 0 <= state["shuffles"] <= EPOCHS_LIMIT:
            raise DataError(f"the snapshot's record has {state['shuffles']} shuffles of an image list; resume from another "
                            "snapshot")
        self.seed = None if state["seed"] is None else int(state["seed"])
        self._begin()
        while self.generator is not None and self.shuffles < state["shuffles"]:
            self.shuffle()
