"""A small net, its weights, and the message that protobuf alone makes of them."""

import numpy as np

from torchcaffe.formats import files
from torchcaffe.proto import caffe_pb2

random = np.random.default_rng(5)


def floats(*shape):
    return random.standard_normal(shape).astype(np.float32)


def small_net():
    return files.parse_net(
        """name: "small"
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 6, 6] } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 } include { phase: TEST }
          phase: TEST convolution_param { num_output: 4 kernel_size: 3 } }
        layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
        layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }"""
    )


def small_blobs():
    return [[], [floats(4, 3, 3, 3), floats(4)], [floats(5, 64), floats(5)], []]


def plain_message(net, blobs, diffs=None):
    """The same net through protobuf alone."""
    message = caffe_pb2.NetParameter()
    message.CopyFrom(net)
    for layer, arrays, gradients in zip(message.layer, blobs, diffs or [[None] * len(a) for a in blobs]):
        for array, gradient in zip(arrays, gradients):
            blob = layer.blobs.add(data=array.ravel().tolist())
            if array.ndim:
                blob.shape.dim.extend(array.shape)
            if gradient is not None:
                blob.diff.extend(gradient.ravel().tolist())
    return message
