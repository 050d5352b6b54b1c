"""How Caffe's layers are said in ONNX: a function for each class, from the values of its bottoms to those of its tops.

Caffe's meaning is kept where ONNX has another: pooled sizes are rounded up and clipped, means divide by what Caffe counts,
of equal values ArgMax takes the last. A layer class that is not here says it itself, in a method `to_onnx`.
"""

from __future__ import annotations

import math

import numpy as np

from torchcaffe.formats.onnx_graph import Unsupported, Value, product
from torchcaffe.layers import activation, affine, common, data, normalization, pooling, recurrent, reduction, utility, vision

WRITERS = {}  # layer class -> function(graph, layer, *bottoms): a Value, or several
BACKWARD = -(2**62)  # as the end of a Slice that runs to the first


def writes(*classes):
    """The decorated function writes layers of these classes."""
    return lambda function: WRITERS.update(dict.fromkeys(classes, function)) or function


# ---- vision
@writes(vision.Convolution)
def convolution(graph, layer, *inputs):
    return [_spatial(graph, layer, "Conv", x, _short(layer, x)) for x in inputs]


@writes(vision.Deconvolution)
def deconvolution(graph, layer, *inputs):
    return [_spatial(graph, layer, "ConvTranspose", x, [0] * len(layer.kernel)) for x in inputs]


def _spatial(graph, layer, operation, x, far):
    parameters = [graph.parameter(layer, name) for name in layer.named_tensors()]
    return _by_channel(graph, layer, x, lambda image: graph.add(
        operation, image, *parameters, kernel_shape=layer.kernel, strides=layer.stride, dilations=layer.dilation,
        pads=[*layer.pad, *(pad + more for pad, more in zip(layer.pad, far))], group=layer.group,
    ))  # fmt: skip


def _short(layer, x):
    """What the kernel lacks behind each axis: Caffe gives one output where it sticks out by less than the stride."""
    sizes = x.shape[layer.channel_axis + 1 :]
    return [
        max(0, dilation * (kernel - 1) + 1 - size - 2 * pad)
        for dilation, kernel, size, pad in zip(layer.dilation, layer.kernel, sizes, layer.pad)
    ]


def _by_channel(graph, layer, x, apply):
    """apply() to x with one batch axis before its channels, as ONNX wants it."""
    if layer.channel_axis == 1:
        return apply(x)
    image = graph.reshape(x, (product(x.shape[: layer.channel_axis]), *x.shape[layer.channel_axis :]))
    return graph.reshape(Value(apply(image)), graph.tops[0])


@writes(vision.Im2col)
def im2col(graph, layer, x):
    """A convolution whose filters pick one number each."""
    channels, count = x.shape[layer.channel_axis], math.prod(layer.kernel)
    picks = np.tile(np.eye(count, dtype=np.float32).reshape(count, 1, *layer.kernel), (channels, *[1] * (1 + len(layer.kernel))))
    return _by_channel(graph, layer, x, lambda image: graph.add(
        "Conv", image, graph.constant(picks, "filters"), kernel_shape=layer.kernel, strides=layer.stride,
        dilations=layer.dilation, pads=[*layer.pad, *(a + b for a, b in zip(layer.pad, _short(layer, x)))], group=channels,
    ))  # fmt: skip


@writes(pooling.Pooling)
def pool(graph, layer, x):
    p = layer.param.pooling_param
    kernel, count = layer.window(x.shape), layer.shapes(x.shape)[0][2:]
    if layer.method == p.MAX:
        return _maximum(graph, layer, x, kernel, count)
    pads, fits = _padding(layer, x.shape, kernel, count)
    window = dict(kernel_shape=kernel, strides=layer.stride, pads=pads if fits else [0] * 4)
    if layer.method == p.STOCHASTIC:
        parts = [part if fits else _padded(graph, part, pads, 0.0) for part in (x, graph.add("Mul", x, x))]
        mean, squares = (graph.add("AveragePool", part, **window) for part in parts)
        positive = graph.add("Greater", mean, 0.0)
        return graph.add("Where", positive, graph.add("Div", squares, graph.add("Where", positive, mean, 1.0)), 0.0)
    mean = graph.add("AveragePool", x if fits else _padded(graph, x, pads, 0.0), **window)
    rows, columns = (_shares(layer, x.shape[2 + i], kernel[i], count[i], i, fits) for i in (0, 1))
    factors = rows[:, None] * columns[None, :]
    return mean if (factors == 1).all() else graph.add("Mul", mean, graph.constant(factors[None, None], "factors"))


def _shares(layer, size, kernel, count, axis, fits):
    """What ONNX divides each window's sum by, the numbers in the image or all, over Caffe's divisor: with near padding."""
    start = np.arange(count) * layer.stride[axis] - layer.pad[axis]
    inside = np.minimum(start + kernel, size) - np.maximum(start, 0)
    with np.errstate(divide="ignore"):  # a window outside the image: 0 / 0, as in Caffe
        return (inside if fits else kernel) / (np.minimum(start + kernel, size + layer.pad[axis]) - start).astype(np.float64)


def _padding(layer, shape, kernel, count):
    """(pads for `count` windows, whether ONNX's pooling takes them: each less than the kernel)."""
    far = [max(0, (count[i] - 1) * layer.stride[i] + kernel[i] - shape[2 + i] - layer.pad[i]) for i in (0, 1)]
    return [*layer.pad, *far], all(far[i] < kernel[i] for i in (0, 1))


def _padded(graph, x, pads, value):
    return graph.add("Pad", x, [0, 0, *pads[:2], 0, 0, *pads[2:]], value)


def _maximum(graph, layer, x, kernel, count):
    pads, fits = _padding(layer, x.shape, kernel, count)
    window = dict(kernel_shape=kernel, strides=layer.stride)
    if len(layer.param.top) < 2:
        if fits:
            return graph.add("MaxPool", x, pads=pads, **window)
        return graph.add("MaxPool", _padded(graph, x, pads, pooling.LOWEST), **window)
    wide, width = _padded(graph, x, pads, pooling.LOWEST) if any(pads) else x, pads[1] + x.shape[3] + pads[3]
    y, index = graph.add("MaxPool", wide, outputs=2, **window)
    index = graph.add("Mod", index, (pads[0] + x.shape[2] + pads[2]) * width)
    row = graph.add("Sub", graph.add("Div", index, width), pads[0])
    column = graph.add("Sub", graph.add("Mod", index, width), pads[1])
    index = graph.add("Cast", graph.add("Add", graph.add("Mul", row, x.shape[3]), column), to=graph.onnx.TensorProto.FLOAT)
    return y, graph.add("Where", graph.add("Greater", y, pooling.LOWEST), index, -1.0)


@writes(pooling.SPP)
def spp(graph, layer, x):
    levels = [pool(graph, level, x) for level in layer.levels]
    if len(levels) == 1:
        return levels
    return graph.add("Concat", *(graph.add("Flatten", level, axis=1) for level in levels), axis=1)


@writes(utility.Crop)
def crop(graph, layer, x, like):
    sizes = [graph.size(size) for size in like.shape[layer.first :]]
    ends = [offset + size for offset, size in zip(layer.offsets, sizes)]
    return graph.add("Slice", x, list(layer.offsets), ends, list(range(layer.first, len(x.shape))))


# ---- products
@writes(common.InnerProduct)
def inner_product(graph, layer, x):
    if layer.first == 1:
        rows = x if len(x.shape) == 2 else graph.add("Flatten", x, axis=1)
    else:
        rows = graph.reshape(x, (product(x.shape[: layer.first]), layer.inputs))
    parameters = [graph.parameter(layer, name) for name in layer.named_tensors()]
    y = graph.add("Gemm", rows, *parameters, transB=0 if layer.param.inner_product_param.transpose else 1)
    return y if layer.first == 1 else graph.reshape(y, graph.tops[0])


@writes(common.Embed)
def embed(graph, layer, x):
    y = graph.add("Gather", graph.parameter(layer, "weight"), _whole(graph, x), axis=0)
    return graph.add("Add", y, graph.parameter(layer, "bias")) if len(layer.blobs) > 1 else y


def _whole(graph, x):
    return graph.add("Cast", x, to=graph.onnx.TensorProto.INT64)


@writes(affine.Bias, affine.Scale)
def broadcast(graph, layer, x, operand=None):
    """x * factor + bias, or x + bias; the factor or bias of a second bottom is not learned."""
    names, axis = list(layer.named_tensors()), layer.parameter().axis
    shape = layer.place(x.shape, layer.blobs[0].dims if operand is None else operand.shape, axis)
    given = [] if operand is None else [graph.reshape(operand, shape)]
    operands = given + [graph.parameter(layer, name, shape) for name in names]
    first = "Mul" if isinstance(layer, affine.Scale) else "Add"
    for operation, value in zip((first, "Add"), operands):
        x = graph.add(operation, x, value)
    return x


# ---- normalization
@writes(normalization.LRN)
def lrn(graph, layer, x):
    p = layer.param.lrn_param
    if p.norm_region == p.ACROSS_CHANNELS:
        return graph.add("LRN", x, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)
    squares = _padded(graph, graph.add("Mul", x, x), [(p.local_size - 1) // 2] * 4, 0.0)  # zeros around count
    mean = graph.add("AveragePool", squares, kernel_shape=[p.local_size] * 2)
    return graph.add("Mul", x, graph.add("Pow", _affine(graph, mean, p.alpha, 1.0), -p.beta))


@writes(normalization.BatchNorm)
def batch_norm(graph, layer, x):
    eps, channels = layer.param.batch_norm_param.eps, layer.blobs[0].count
    if layer.global_statistics:
        statistics = [graph.parameter(layer, name) for name in ("running_mean", "running_var")]
        ones, zeros = (graph.constant(np.full(channels, value, np.float32)) for value in (1, 0))
        return graph.add("BatchNormalization", x, ones, zeros, *statistics, epsilon=eps)
    axes = [axis for axis in range(len(x.shape)) if axis != 1]
    y = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes))
    variance = graph.add("ReduceMean", graph.add("Mul", y, y), axes=axes)
    return graph.add("Div", y, graph.add("Sqrt", graph.add("Add", variance, eps)))


@writes(normalization.MVN)
def mvn(graph, layer, x):
    p = layer.param.mvn_param
    x, axes = graph.reshape(x, graph.tops[0]), [1, 2, 3] if p.across_channels else [2, 3]
    y = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes))
    if not p.normalize_variance:
        return y
    deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", y, y), axes=axes))
    return graph.add("Div", y, graph.add("Add", deviation, p.eps))


# ---- activations
@writes(activation.ReLU)
def relu(graph, layer, x):
    slope = layer.param.relu_param.negative_slope
    return graph.add("LeakyRelu", x, alpha=slope) if slope else graph.add("Relu", x)


@writes(activation.PReLU)
def prelu(graph, layer, x):
    shape = (1,) if layer.param.prelu_param.channel_shared else (-1, *[1] * (len(x.shape) - 2))
    return graph.add("PRelu", x, graph.parameter(layer, "weight", shape))


for _class, _operation in {
    activation.Sigmoid: "Sigmoid", activation.TanH: "Tanh", activation.AbsVal: "Abs", activation.BNLL: "Softplus",
}.items():  # fmt: skip
    WRITERS[_class] = lambda graph, layer, x, operation=_operation: graph.add(operation, x)


@writes(activation.ELU)
def elu(graph, layer, x):
    return graph.add("Elu", x, alpha=layer.param.elu_param.alpha)


@writes(activation.Power)
def power(graph, layer, x):
    p = layer.param.power_param
    if p.power * p.scale == 0:
        value = np.array([1.0 if p.power == 0 else p.shift**p.power], np.float32)
        return graph.add("ConstantOfShape", graph.add("Shape", x), value=graph.onnx.numpy_helper.from_array(value))
    y = _affine(graph, x, p.scale, p.shift)
    return y if p.power == 1 else graph.add("Pow", y, p.power)


def _affine(graph, x, scale, shift):
    x = graph.add("Mul", x, scale) if scale != 1 else x
    return graph.add("Add", x, shift) if shift != 0 else x


@writes(activation.Exp)
def exp(graph, layer, x):
    p = layer.param.exp_param
    return graph.add("Exp", _affine(graph, _affine(graph, x, p.scale, p.shift), layer.logarithm, 0))


@writes(activation.Log)
def log(graph, layer, x):
    p = layer.param.log_param
    return _affine(graph, graph.add("Log", _affine(graph, x, p.scale, p.shift)), layer.factor, 0)


@writes(activation.Threshold)
def threshold(graph, layer, x):
    above = graph.add("Greater", x, layer.param.threshold_param.threshold)
    return graph.add("Cast", above, to=graph.onnx.TensorProto.FLOAT)


@writes(activation.Clip)
def clip(graph, layer, x):
    return graph.add("Clip", x, layer.param.clip_param.min, layer.param.clip_param.max)


@writes(activation.Swish)
def swish(graph, layer, x):
    return graph.add("Mul", x, graph.add("Sigmoid", _affine(graph, x, layer.param.swish_param.beta, 0)))


@writes(activation.Dropout)
def dropout(graph, layer, x):
    if layer.training:
        raise Unsupported("phase: TRAIN makes it draw at random: remove that line")
    return x


# ---- several blobs
@writes(utility.Split)
def split(graph, layer, x):
    return [x] * len(layer.param.top)


@writes(utility.Concat)
def concat(graph, layer, *inputs):
    return graph.add("Concat", *inputs, axis=layer.along) if len(inputs) > 1 else inputs


@writes(utility.Slice)
def slices(graph, layer, x):
    lengths = [graph.size(shape[layer.along]) for shape in graph.tops]
    return graph.add("Split", x, lengths, outputs=len(lengths), axis=layer.along) if len(lengths) > 1 else x


@writes(reduction.Eltwise)
def eltwise(graph, layer, *inputs):
    p = layer.param.eltwise_param
    if p.operation == p.SUM:
        inputs = [_affine(graph, x, factor, 0) for x, factor in zip(inputs, p.coeff or [1.0] * len(inputs))]
        return graph.add("Add" if len(inputs) == 2 else "Sum", *inputs)
    if p.operation == p.MAX:
        return graph.add("Max", *inputs)
    result = inputs[0]
    for x in inputs[1:]:
        result = graph.add("Mul", result, x)
    return result


@writes(utility.BatchReindex)
def batch_reindex(graph, layer, x, index):
    return graph.add("Gather", x, _whole(graph, index), axis=0)


@writes(utility.Filter)
def filter_items(graph, layer, *inputs):
    *items, selector = inputs
    if selector.shape[0] is not None:
        raise Unsupported("the number of items that pass is not known before, and another layer of the net needs it")
    chosen = graph.add("Cast", graph.reshape(selector, (None,)), to=graph.onnx.TensorProto.BOOL)
    return [graph.add("Compress", x, chosen, axis=0) for x in items]


@writes(utility.Silence)
def silence(graph, layer, *inputs):
    return ()


@writes(data.Parameter)
def parameter(graph, layer):
    return graph.parameter(layer, "weight")


# ---- shapes and axes
@writes(utility.Flatten)
def flatten(graph, layer, x):
    p = layer.param.flatten_param
    if layer.axis(p.axis, len(x.shape)) == 1 and layer.axis(p.end_axis, len(x.shape)) == len(x.shape) - 1:
        return graph.add("Flatten", x, axis=1)
    return graph.reshape(x, graph.tops[0])


@writes(utility.Reshape)
def reshape(graph, layer, x):
    return graph.reshape(x, graph.tops[0])


@writes(utility.Tile)
def tile(graph, layer, x):
    repeats = [1] * len(x.shape)
    repeats[layer.along] = layer.param.tile_param.tiles
    return graph.add("Tile", x, repeats)


@writes(reduction.Softmax)
def softmax(graph, layer, x):
    return graph.add("Softmax", x, axis=layer.along)


@writes(reduction.Reduction)
def reduce(graph, layer, x):
    p, axes = layer.param.reduction_param, list(range(layer.first, len(x.shape)))
    if p.operation == p.SUM:
        y = graph.add("ReduceSum", x, axes, keepdims=0)
    else:
        operation = {p.ASUM: "ReduceL1", p.SUMSQ: "ReduceSumSquare", p.MEAN: "ReduceMean"}[p.operation]
        y = graph.add(operation, x, axes=axes, keepdims=0)
    return _affine(graph, y, p.coeff, 0)


@writes(reduction.ArgMax)
def arg_max(graph, layer, x):
    """TopK of the reversed axis: of equal values ONNX takes the first, Caffe the last."""
    p, along = layer.param.argmax_param, 1 if layer.along is None else layer.along
    if layer.along is None:
        x = graph.reshape(x, (x.shape[0], product(x.shape[1:])))
    size = graph.size(x.shape[along])
    turned = graph.add("Slice", x, [-1], [BACKWARD], [along], [-1])
    values, index = graph.add("TopK", turned, [p.top_k], outputs=2, axis=along)
    index = graph.add("Cast", graph.add("Sub", size - 1, index), to=graph.onnx.TensorProto.FLOAT)
    if layer.along is not None:
        return values if p.out_max_val else index
    if p.out_max_val:
        index = graph.add("Concat", *(graph.add("Unsqueeze", part, [1]) for part in (index, values)), axis=1)
    return graph.reshape(index, graph.tops[0])


# ---- recurrent
@writes(recurrent.LSTM, recurrent.RNN)
def unrolled(graph, layer, x, cont, *others):
    """All steps one after the other, as ONNX's LSTM knows no `cont`; without exposed state they start from zeros."""
    steps, streams = (graph.size(size) for size in x.shape[:2])
    names = iter(layer.named_tensors())
    rows = graph.reshape(x, (steps * streams, layer.inputs))
    width = layer.gates * layer.units
    y = graph.add("Gemm", rows, graph.parameter(layer, next(names)), graph.parameter(layer, next(names)), transB=1)
    y = graph.reshape(y, (steps, streams, width))
    if layer.with_static:
        static, *others = others
        rows = graph.reshape(static, (streams, layer.static_inputs))
        y = graph.add("Add", y, graph.add("Gemm", rows, graph.parameter(layer, next(names)), transB=1))
    state = list(others) if layer.exposed else [
        graph.constant(np.zeros((1, streams, layer.units), np.float32), "zeros") for _ in range(layer.states)]
    weights = [graph.parameter(layer, name) for name in names]
    weights = [graph.add("Transpose", weight) if len(weight.shape) == 2 else weight for weight in weights]
    tops = []
    for entering, going_on in zip(*(_steps(graph, part, steps) for part in (y, graph.reshape(cont, (steps, streams, 1))))):
        hidden = graph.add("MatMul", graph.add("Mul", state[0], going_on), weights[0])
        sums = graph.add("Add", entering, hidden)
        if isinstance(layer, recurrent.LSTM):
            state = list(_lstm_unit(graph, state[1], sums, going_on))[::-1]
            tops.append(state[0])
        else:
            state = [graph.add("Tanh", sums)]
            tops.append(graph.add("Tanh", graph.add("Add", graph.add("MatMul", state[0], weights[1]), weights[2])))
    y = graph.add("Concat", *tops, axis=0)
    return [y, *state] if layer.exposed else y


def _steps(graph, x, steps):
    return graph.add("Split", x, [1] * steps, outputs=steps, axis=0) if steps > 1 else [x]


def _lstm_unit(graph, cell, sums, going_on):
    """(cell, hidden) of one step."""
    gates = graph.add("Split", sums, outputs=4, axis=2)
    entering, forgetting, leaving = (graph.add("Sigmoid", gate) for gate in gates[:3])
    kept = graph.add("Mul", graph.add("Mul", going_on, forgetting), cell)
    cell = graph.add("Add", kept, graph.add("Mul", entering, graph.add("Tanh", gates[3])))
    return cell, graph.add("Mul", leaving, graph.add("Tanh", cell))


@writes(recurrent.LSTMUnit)
def lstm_unit(graph, layer, cell, gates, cont):
    return _lstm_unit(graph, cell, gates, graph.reshape(cont, (*cont.shape, 1)))
