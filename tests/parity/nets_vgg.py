"""VGG-16 twice: VGG-Face as a net of 2014 (V1 format), and FCN-8s with Deconvolution and Crop."""

import net_data
import numpy as np  # noqa: E402
from nets_lines import MEAN, conv, drop, gaussian, max_pool, relu

import recipe  # noqa: E402
from torchcaffe import NetSpec, layers
from torchcaffe.formats.files import write_v1_weights

SEGMENTS = 21  # PASCAL VOC's classes with the background


def vgg_face(at):
    """Parkhi, Vedaldi, Zisserman, "Deep face recognition", 2015, in the format that its release has."""
    source = net_data.images(at.folder, at.count, at.side + net_data.MARGIN, 3, recipe.IDENTITIES)
    mean = net_data.mean(at.folder, at.side + net_data.MARGIN)
    lines = [
        'name: "VGG_FACE_16_layers"',
        f'layers {{ name: "data" type: DATA top: "data" top: "label" data_param {{ source: "{source}" backend: LMDB '
        f'batch_size: {at.batch} crop_size: {at.side} mirror: true mean_file: "{mean}" }} }}',
    ]
    bottom = "data"
    for group, (filters, count) in enumerate(recipe.CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            name = f"{group}_{number}"
            lines += [
                _v1(f"conv{name}", "CONVOLUTION", bottom, f"num_output: {at.units(filters)} kernel_size: 3 pad: 1"),
                _v1(f"relu{name}", "RELU", f"conv{name}", in_place=True),
            ]
            bottom = f"conv{name}"
        lines.append(_v1(f"pool{group}", "POOLING", bottom, "pool: MAX kernel_size: 2 stride: 2"))
        bottom = f"pool{group}"
    for number in (6, 7):
        lines += [
            _v1(f"fc{number}", "INNER_PRODUCT", bottom, f"num_output: {at.units(recipe.FULLY_CONNECTED)}"),
            _v1(f"relu{number}", "RELU", f"fc{number}", in_place=True),
            _v1(f"dropout{number}", "DROPOUT", f"fc{number}", "dropout_ratio: 0.5", in_place=True),
        ]
        bottom = f"fc{number}"
    lines += [
        _v1("fc8", "INNER_PRODUCT", bottom, f"num_output: {recipe.IDENTITIES}"),
        'layers { name: "loss" type: SOFTMAX_LOSS bottom: "fc8" bottom: "label" top: "loss" }',
    ]
    return "\n".join(lines) + "\n"


def _v1(name, type, bottom, settings="", in_place=False):
    """A layer of V1 format; one with weights has the learning rates and decays of weights and biases, once a blob."""
    if type in ("CONVOLUTION", "INNER_PRODUCT"):
        settings = f'{type.lower()}_param {{ {settings} weight_filler {{ type: "xavier" }} }} ' + "blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0"
    elif settings:
        settings = f"{type.lower()}_param {{ {settings} }}"
    top = bottom if in_place else name
    return f'layers {{ name: "{name}" type: {type} bottom: "{bottom}" top: "{top}" {settings} }}'


def write_v1(net, path):
    """Save the parameters in V1 format: blobs of four axes."""
    kinds = {"Convolution": "CONVOLUTION", "InnerProduct": "INNER_PRODUCT"}
    layers = []
    for name, blobs in net.params.items():
        arrays = [blob.data.reshape((1,) * (4 - blob.data.ndim) + blob.data.shape) for blob in blobs]
        layers.append((name, kinds[net.layer_dict[name].type], arrays))
    write_v1_weights(path, "VGG_FACE_16_layers", layers)


def fcn8s(at):
    """Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", 2015 (voc-fcn8s)."""
    net = NetSpec()
    net.data = at.records(net_data.images(at.folder, at.count, at.side, 3, SEGMENTS), transform_param=dict(mean_value=MEAN))
    net.label = at.records(net_data.label_maps(at.folder, at.count, at.side, SEGMENTS))
    bottom = net.data
    for group, (filters, count) in enumerate(recipe.CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            pad = 100 if group == number == 1 else 1
            net[f"conv{group}_{number}"] = bottom = conv(bottom, at.units(filters), 3, pad=pad)
            net[f"relu{group}_{number}"] = relu(bottom)
        net[f"pool{group}"] = bottom = max_pool(bottom, 2, 2)
    net.fc6 = conv(net.pool5, at.units(recipe.FULLY_CONNECTED), 7)
    net.relu6 = relu(net.fc6)
    net.drop6 = drop(net.fc6)
    net.fc7 = conv(net.fc6, at.units(recipe.FULLY_CONNECTED), 1)
    net.relu7 = relu(net.fc7)
    net.drop7 = drop(net.fc7)
    net.score_fr = conv(net.fc7, SEGMENTS, 1, gaussian(0.01))
    net.upscore2 = upscore(net.score_fr, 4, 2)
    net.score_pool4 = conv(net.pool4, SEGMENTS, 1, gaussian(0.01))
    net.score_pool4c = layers.Crop(net.score_pool4, net.upscore2, axis=2, offset=5)
    net.fuse_pool4 = layers.Eltwise(net.upscore2, net.score_pool4c)
    net.upscore_pool4 = upscore(net.fuse_pool4, 4, 2)
    net.score_pool3 = conv(net.pool3, SEGMENTS, 1, gaussian(0.01))
    net.score_pool3c = layers.Crop(net.score_pool3, net.upscore_pool4, axis=2, offset=9)
    net.fuse_pool3 = layers.Eltwise(net.upscore_pool4, net.score_pool3c)
    net.upscore8 = upscore(net.fuse_pool3, 16, 8)
    net.score = layers.Crop(net.upscore8, net.data, axis=2, offset=31)
    net.loss = layers.SoftmaxWithLoss(net.score, net.label, loss_param=dict(ignore_label=255, normalize=False))
    return net.to_proto()


def upscore(bottom, kernel, stride):
    settings = dict(num_output=SEGMENTS, kernel_size=kernel, stride=stride, bias_term=False)
    return layers.Deconvolution(bottom, convolution_param=settings, param=[dict(lr_mult=0)])


def interpolate(net):
    """Bilinear interpolation, class by class, in the Deconvolutions: surgery.interp of the authors."""
    for layer in net.layers:
        if layer.type == "Deconvolution":
            weights = layer.blobs[0].data
            kernel = weights.shape[-1]
            factor = (kernel + 1) // 2
            ramp = 1 - abs(np.arange(kernel) - (factor - 0.5)) / factor
            for segment in range(SEGMENTS):
                weights[segment, segment] = ramp[:, None] * ramp
