"""`caffe._caffe`: the names of pycaffe's compiled module."""

from torchcaffe.pycaffe import *  # noqa: F403
