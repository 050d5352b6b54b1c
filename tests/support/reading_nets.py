"""Reads the generated nets and solvers, and works out their shapes from the definitions alone."""

from pathlib import Path

import numpy as np
from google.protobuf import text_format

import recipe
from torchcaffe.proto import caffe_pb2

ROOT = Path(recipe.ROOT)
TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
TRAININGS = [(profile, net, step) for profile in recipe.PROFILES for net in recipe.NETS for step in (2, 3, 4)]
# Table 1 by hand: (name, filters, square of the support times the depth of what it reads).
TABLE1 = (
    ("conv1_1", 64, 3 * 3 * 3), ("conv1_2", 64, 3 * 3 * 64),
    ("conv2_1", 128, 3 * 3 * 64), ("conv2_2", 128, 3 * 3 * 128),
    ("conv3_1", 256, 3 * 3 * 128), ("conv3_2", 256, 3 * 3 * 256), ("conv3_3", 256, 3 * 3 * 256),
    ("conv4_1", 512, 3 * 3 * 256), ("conv4_2", 512, 3 * 3 * 512), ("conv4_3", 512, 3 * 3 * 512),
    ("conv5_1", 512, 3 * 3 * 512), ("conv5_2", 512, 3 * 3 * 512), ("conv5_3", 512, 3 * 3 * 512),
    ("fc6", 4096, 7 * 7 * 512), ("fc7", 4096, 4096), ("fc8", 2622, 4096),
)  # fmt: skip


def read_net(path):
    return text_format.Parse((ROOT / path).read_text(), caffe_pb2.NetParameter())


def read_solver(path):
    return text_format.Parse((ROOT / path).read_text(), caffe_pb2.SolverParameter())


def layers_of(net, phase):
    return [layer for layer in net.layer if not layer.include or any(rule.phase == phase for rule in layer.include)]


def layer_named(net, name, phase=TRAIN):
    (layer,) = [layer for layer in layers_of(net, phase) if layer.name == name]
    return layer


def infer(net, phase, size):
    """Blob shapes and parameter shapes by name, worked out here from the layers' definitions alone."""
    shapes, parameters = {}, {}
    for layer in layers_of(net, phase):
        inputs = [shapes[name] for name in layer.bottom]  # KeyError: a blob used before it is made
        outputs = [inputs[0]] if inputs else []
        if layer.type == "Input":
            outputs = [tuple(layer.input_param.shape[0].dim)]
        elif layer.type == "Data":
            count = layer.data_param.batch_size
            labels = 128 + 5 if "embeddings" in layer.data_param.source else 40 if "celeba" in layer.data_param.source else 2
            outputs = [(count, labels, 1, 1) if layer.top[0].startswith("labels") else (count, 3, size, size)]
        elif layer.type == "Convolution":
            setting, (count, channels, height, width) = layer.convolution_param, inputs[0]
            kernel, pad = setting.kernel_size[0], setting.pad[0]
            outputs = [(count, setting.num_output, height + 2 * pad - kernel + 1, width + 2 * pad - kernel + 1)]
            parameters[layer.name] = [(setting.num_output, channels, kernel, kernel), (setting.num_output,)]
        elif layer.type == "Pooling":
            assert (layer.pooling_param.kernel_size, layer.pooling_param.stride, layer.pooling_param.pad) == (2, 2, 0)
            outputs = [inputs[0][:2] + tuple(-(-side // 2) for side in inputs[0][2:])]
        elif layer.type == "InnerProduct":
            units, read = layer.inner_product_param.num_output, int(np.prod(inputs[0][1:]))
            outputs = [(inputs[0][0], units)]
            parameters[layer.name] = [(units, read), (units,)]
        elif layer.type == "Slice":
            cuts = [0, *layer.slice_param.slice_point, inputs[0][1]]
            outputs = [(inputs[0][0], b - a) + inputs[0][2:] for a, b in zip(cuts, cuts[1:])]
            assert all(shape[1] > 0 for shape in outputs) and len(outputs) == len(layer.top)
        elif layer.type == "Concat" and layer.concat_param.axis == 0:
            assert len({shape[1:] for shape in inputs}) == 1
            outputs = [(sum(shape[0] for shape in inputs), *inputs[0][1:])]
        elif layer.type == "Concat":
            outputs = [(inputs[0][0], sum(shape[1] for shape in inputs))]
        elif layer.type in ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "Accuracy"):
            assert inputs[0][0] == inputs[1][0]
            labels = np.prod(inputs[0]) if layer.type == "SigmoidCrossEntropyLoss" else inputs[0][0]
            assert np.prod(inputs[1]) == labels
            outputs = [()]
        elif layer.type == "EuclideanLoss":
            assert inputs[0][0] == inputs[1][0] and np.prod(inputs[0]) == np.prod(inputs[1])
            outputs = [()]
        elif layer.type == "Silence":
            outputs = []
        else:
            assert layer.type in ("ReLU", "Dropout", "Softmax", "Sigmoid", "Eltwise"), layer.type
            assert len(set(inputs)) == 1
        for name, shape in zip(layer.top, outputs):
            assert name not in shapes or list(layer.bottom) == list(layer.top), f"{name} is made twice"
            shapes[name] = shape
    return shapes, parameters


def dangling(net, phase):
    layers = layers_of(net, phase)
    used = {name for layer in layers for name in layer.bottom}
    return {name for layer in layers for name in layer.top} - used


def count(parameters):
    return sum(int(np.prod(shape)) for shapes in parameters.values() for shape in shapes)
