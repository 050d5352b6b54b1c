"""What the lines of the whole nets are written with, and at which size a net is built: `Setting`."""

from pathlib import Path
from typing import NamedTuple

import net_data

from torchcaffe import layers, params

MEAN = [104, 117, 123]  # ImageNet's, BGR
XAVIER, MSRA = dict(type="xavier"), dict(type="msra")
WEIGHTS = dict(lr_mult=1, decay_mult=1)
BIASES = dict(lr_mult=2, decay_mult=0)


class Setting(NamedTuple):
    """A size of a net, and the folder that its LMDBs are in.

    `width` is the share of the paper's filters and hidden units that the net has, `side` its square input in pixels.
    """

    width: float
    side: int
    batch: int
    folder: Path = Path()

    @property
    def count(self):
        """Number of images to train on: few enough to be seen again and again."""
        return 4 * self.batch

    def units(self, full):
        """How many of `full` filters or units this width has: even, for the groups."""
        return full if self.width == 1 else max(2, 2 * round(full * self.width / 2))

    def images(self, classes, channels=3, crop=True, **transform):
        """Tops data and label of a Data layer: images cropped and mirrored at random, but for `crop=False`."""
        source = net_data.images(self.folder, self.count, self.side + (net_data.MARGIN if crop else 0), channels, classes)
        if crop:
            transform.update(crop_size=self.side, mirror=True, mean_value=MEAN[:channels])
        return self.records(source, ntop=2, transform_param=transform)

    def records(self, source, **more):
        """Top (with ntop=2 both, the second are labels) of a Data layer that reads the LMDB `source`."""
        return layers.Data(source=str(source), backend=params.Data.LMDB, batch_size=self.batch, **more)


def gaussian(std):
    return dict(type="gaussian", std=std)


def conv(bottom, units, kernel, fill=XAVIER, bias=0, **more):
    settings = dict(param=[WEIGHTS, BIASES], weight_filler=fill, bias_filler=dict(value=bias))
    return layers.Convolution(bottom, num_output=units, kernel_size=kernel, **{**settings, **more})


def dense(bottom, units, fill=XAVIER, bias=0, **more):
    settings = dict(param=[WEIGHTS, BIASES], weight_filler=fill, bias_filler=dict(value=bias))
    return layers.InnerProduct(bottom, num_output=units, **{**settings, **more})


def max_pool(bottom, kernel, stride, **more):
    return layers.Pooling(bottom, pool=params.Pooling.MAX, kernel_size=kernel, stride=stride, **more)


def average_pool(bottom, kernel, stride):
    return layers.Pooling(bottom, pool=params.Pooling.AVE, kernel_size=kernel, stride=stride)


def relu(bottom):
    return layers.ReLU(bottom, in_place=True)


def drop(bottom, ratio=0.5):
    return layers.Dropout(bottom, dropout_ratio=ratio, in_place=True)
