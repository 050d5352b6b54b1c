"""LMDBs that the whole nets train on: images, label maps, numbers, all made up here from fixed seeds."""

import cv2
import numpy as np  # noqa: E402

from lmdb_builders.lmdb_writer import LmdbWriter, record_key
from torchcaffe.formats.files import write_blob
from torchcaffe.proto import caffe_pb2

MARGIN = 8  # pixels that a stored image is larger than the crop of it


def images(folder, count, side, channels, classes):
    """LMDB of `count` images of `side` x `side` pixels with a label below `classes`."""
    random = np.random.RandomState(side)
    labels = random.randint(0, classes, count)
    pictures = [picture(random, side, channels, label / classes) for label in labels]
    return _database(folder / f"images_{side}x{channels}_{count}", pictures, labels)


def picture(random, side, channels, share):
    """uint8 (channels, side, side): a smooth random field, waves as dense as `share` (0 .. 1) says, and noise."""
    field = cv2.resize(random.normal(110, 50, (5, 5, channels)), (side, side), interpolation=cv2.INTER_CUBIC)
    waves = 30 * np.sin(np.arange(side) * (2 + 10 * share) * 2 * np.pi / side)
    image = field.reshape(side, side, channels) + waves[:, None] + random.normal(0, 10, (side, side, channels))
    return np.clip(image, 0, 255).astype(np.uint8).transpose(2, 0, 1)


def pairs(folder, count, side):
    """LMDB of `count` times two gray images as two channels; the label is 1 where both are of one class of ten."""
    random = np.random.RandomState(side)
    same = random.randint(0, 2, count)
    pictures = []
    for label in same:
        one, other = random.choice(10, 2, replace=False)
        both = [picture(random, side, 1, share / 10) for share in (one, one if label else other)]
        pictures.append(np.concatenate(both))
    return _database(folder / f"pairs_{side}", pictures, same)


def label_maps(folder, count, side, classes):
    """LMDB of `count` times one label a pixel: a background of 0, a rectangle of another class, its edges 255 (no answer)."""
    random = np.random.RandomState(side)
    maps = np.zeros((count, 1, side, side), np.uint8)
    for one in maps:
        left, top = random.randint(0, side // 2, 2)
        right, bottom = (left, top) + random.randint(side // 4, side // 2, 2)
        one[0, top:bottom, left:right] = 255
        one[0, top + 1 : bottom - 1, left + 1 : right - 1] = random.randint(1, classes)
    return _database(folder / f"maps_{side}", maps, np.zeros(count, int))


def mean(folder, side):
    """Mean file, smooth, of images(folder, side, 3, ...)'s shape."""
    path = folder / f"mean_{side}.binaryproto"
    write_blob(path, picture(np.random.RandomState(side + 1), side, 3, 0).astype(np.float32)[None])
    return path


def numbers(folder, count, length):
    """LMDB of `count` times `length` floats of -0.3 .. 0.3, as a twin of an LMDB of images."""
    values = np.random.RandomState(length).uniform(-0.3, 0.3, (count, length, 1, 1))
    return _database(folder / f"numbers_{length}", values, np.zeros(count, int))


def sentences(folder, count, steps, streams, words, starts=False):
    """LMDB of `count` sentences of 5 words and more in `streams` streams side by side: batches of `steps` x `streams` records.

    A record is a word, its label the one that follows (as a rule of three words before it); with `starts` it is 0 where a
    sentence begins, else 1.
    """
    random = np.random.RandomState(steps)
    length = count // streams * steps + 1
    text, cont = np.zeros((length, streams), int), np.ones((length, streams), int)
    for stream in range(streams):
        start = 0
        for step in range(length):
            if step == start:
                start, cont[step, stream] = step + random.randint(5, 12), 0
            drawn = random.randint(words) if random.rand() < 0.2 else 0
            text[step, stream] = (3 * text[step - 1, stream] + 5 * text[step - 2, stream] + 1 + drawn) % words
    values = (cont if starts else text)[:-1].reshape(-1, 1, 1, 1).astype(np.float64)
    return _database(folder / f"sentences_{steps}x{streams}_{words}{starts:d}", values, text[1:].reshape(-1))


def _database(path, arrays, labels):
    """LMDB of arrays (channels, height, width), uint8 or float; one that is there stays."""
    if path.exists():
        return path
    writer = LmdbWriter(str(path))
    for index, (array, label) in enumerate(zip(arrays, labels)):
        channels, height, width = array.shape
        datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=int(label))
        if array.dtype == np.uint8:
            datum.data = array.tobytes()
        else:
            datum.float_data.extend(array.reshape(-1))
        writer.put(record_key(index, "record"), datum.SerializeToString())
    writer.close()
    return path
