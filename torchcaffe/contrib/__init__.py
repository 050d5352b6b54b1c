"""Layers of well-known published nets that Caffe 1.0 does not have; importing this package registers them.

    import torchcaffe.contrib

or `--contrib` of the command `torchcaffe`. docs/contrib.md lists the types, their papers and their settings.

A new layer needs its class in a module here, its name in `__all__` below and in `plugins.CONTRIBUTED` (so that an error
about an unknown type names this package where it was not imported), and a row in docs/contrib.md.
"""

from torchcaffe.contrib.batch_normalization import BN
from torchcaffe.contrib.mobile import ConvolutionDepthwise, DepthwiseConvolution, ReLU6, ShuffleChannel
from torchcaffe.contrib.normalize import Normalize
from torchcaffe.contrib.recognition import CenterLoss, MarginInnerProduct
from torchcaffe.contrib.segmentation import Interp, Upsample
from torchcaffe.contrib.squeeze_excitation import Axpy

__all__ = [
    "Axpy",
    "BN",
    "CenterLoss",
    "ConvolutionDepthwise",
    "DepthwiseConvolution",
    "Interp",
    "MarginInnerProduct",
    "Normalize",
    "ReLU6",
    "ShuffleChannel",
    "Upsample",
]
