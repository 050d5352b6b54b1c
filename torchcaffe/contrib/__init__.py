"""Layers of well-known published nets that Caffe 1.0 does not have; importing this package registers them.

    import torchcaffe.contrib

or `--contrib` of the command `torchcaffe`. docs/contrib.md lists the types, their papers and their settings.

A new layer needs its class in a module here, its name in `__all__` below and in `plugins.CONTRIBUTED` (so that an error
about an unknown type names this package where it was not imported), and a row in docs/contrib.md.
"""

from torchcaffe.contrib.batch_normalization import BN
from torchcaffe.contrib.detection_output import DetectionOutput
from torchcaffe.contrib.mobile import ConvolutionDepthwise, DepthwiseConvolution, ReLU6, ShuffleChannel
from torchcaffe.contrib.multibox_loss import MultiBoxLoss
from torchcaffe.contrib.normalize import Normalize
from torchcaffe.contrib.permute import Permute
from torchcaffe.contrib.prior_box import PriorBox
from torchcaffe.contrib.proposal import Proposal
from torchcaffe.contrib.recognition import CenterLoss, MarginInnerProduct
from torchcaffe.contrib.roi_pooling import ROIPooling
from torchcaffe.contrib.segmentation import Interp, Upsample
from torchcaffe.contrib.smooth_l1_loss import SmoothL1Loss
from torchcaffe.contrib.squeeze_excitation import Axpy

__all__ = [
    "Axpy",
    "BN",
    "CenterLoss",
    "ConvolutionDepthwise",
    "DepthwiseConvolution",
    "DetectionOutput",
    "Interp",
    "MarginInnerProduct",
    "MultiBoxLoss",
    "Normalize",
    "Permute",
    "PriorBox",
    "Proposal",
    "ROIPooling",
    "ReLU6",
    "ShuffleChannel",
    "SmoothL1Loss",
    "Upsample",
]
