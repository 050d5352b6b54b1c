"""Published nets whose layers torchcaffe.contrib brings, written from their papers with NetSpec.

Each function gives a NetParameter with Input blobs (`data`, and `label` where it trains). `width` divides the paper's
numbers of channels, so that a test trains in seconds.
"""

from torchcaffe.net_spec import NetSpec, layers as L, params as P

MSRA = dict(type="msra")
XAVIER = dict(type="xavier")


def inputs(spec, data, label=None):
    spec.data = L.Input(shape=dict(dim=list(data)))
    if label is not None:
        spec.label = L.Input(shape=dict(dim=list(label)))


def convolution(spec, name, bottom, outputs, kernel=1, stride=1, kind="Convolution", bias=False, filler=MSRA, **settings):
    settings = dict(num_output=outputs, kernel_size=kernel, stride=stride, pad=kernel // 2, bias_term=bias, weight_filler=filler,
                    **settings)  # fmt: skip
    spec[name] = getattr(L, kind)(bottom, convolution_param=settings)
    return spec[name]


def normalized(spec, name, bottom, activation="ReLU"):
    """Caffe's pair of BatchNorm and Scale, then an activation, all in place."""
    spec[f"{name}/bn"] = L.BatchNorm(bottom, in_place=True)
    spec[f"{name}/scale"] = top = L.Scale(spec[f"{name}/bn"], in_place=True, bias_term=True)
    if activation:
        spec[f"{name}/relu"] = top = getattr(L, activation)(top, in_place=True)
    return top


def classifier(spec, features, classes, label=True):
    spec.fc = L.InnerProduct(features, num_output=classes, weight_filler=XAVIER)
    if label:
        spec.loss = L.SoftmaxWithLoss(spec.fc, spec.label)


# ---- faces
def sphereface_20(shape=(1, 3, 112, 96), classes=10572, width=1, loss="sphereface"):
    """Liu et al., SphereFace, table 2, the 20-layer net; `loss`: sphereface, center (Wen et al.), normface (Wang et al.)."""
    spec = NetSpec()
    inputs(spec, shape, shape[:1])
    top = spec.data
    for stage, (channels, blocks) in enumerate(((64, 1), (128, 2), (256, 4), (512, 1)), 1):
        top = rectified(spec, f"conv{stage}_1", top, channels // width, stride=2, filler=XAVIER)
        for block in range(blocks):
            inner = rectified(spec, f"conv{stage}_{2 * block + 2}", top, channels // width)
            inner = rectified(spec, f"conv{stage}_{2 * block + 3}", inner, channels // width)
            spec[f"res{stage}_{2 * block + 3}"] = top = L.Eltwise(top, inner)
    spec.fc5 = L.InnerProduct(top, num_output=512 // width, weight_filler=XAVIER)
    if loss == "sphereface":
        spec.fc6, spec["lambda"] = L.MarginInnerProduct(
            spec.fc5, spec.label, ntop=2, num_output=classes, type=P.MarginInnerProduct.QUADRUPLE, weight_filler=XAVIER,
            base=1000, gamma=0.12, power=1, lambda_min=5)  # fmt: skip
    elif loss == "normface":
        spec.normalized = L.Normalize(spec.fc5)
        spec.cosine = L.InnerProduct(spec.normalized, num_output=classes, bias_term=False, weight_filler=XAVIER)
        spec.scores = L.Scale(spec.cosine, num_axes=0, filler=dict(value=10))
    else:
        spec.fc6 = L.InnerProduct(spec.fc5, num_output=classes, weight_filler=XAVIER)
        spec.center_loss = L.CenterLoss(
            spec.fc5, spec.label, num_output=classes, center_filler=XAVIER, loss_weight=0.003,
            param=dict(lr_mult=1, decay_mult=0))  # fmt: skip
    spec.loss = L.SoftmaxWithLoss(spec.scores if loss == "normface" else spec.fc6, spec.label)
    return spec.to_proto()


def rectified(spec, name, bottom, outputs, stride=1, filler=dict(type="gaussian", std=0.01)):  # noqa: B006, read only
    convolution(spec, name, bottom, outputs, 3, stride, bias=True, filler=filler)
    spec[f"{name}/relu"] = L.PReLU(spec[name], in_place=True)
    return spec[f"{name}/relu"]


# ---- phones
def mobilenet(shape=(1, 3, 224, 224), classes=1000, width=1, label=True, kind="DepthwiseConvolution", activation="ReLU6"):
    """Howard et al., MobileNets, table 1."""
    spec = NetSpec()
    inputs(spec, shape, shape[:1] if label else None)
    top = normalized(spec, "conv1", convolution(spec, "conv1", spec.data, 32 // width, 3, 2), activation)
    channels = 32 // width
    steps = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for index, (outputs, stride) in enumerate(steps, 2):
        name = f"conv{index}"
        group = dict(group=channels) if kind == "Convolution" else {}
        top = convolution(spec, f"{name}/dw", top, channels, 3, stride, kind, **group)
        top = normalized(spec, f"{name}/dw", top, activation)
        channels = outputs // width
        top = normalized(spec, f"{name}/pw", convolution(spec, f"{name}/pw", top, channels), activation)
    spec.pool = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    classifier(spec, spec.pool, classes, label)
    return spec.to_proto()


def shufflenet(shape=(1, 3, 224, 224), classes=1000, width=1, label=True, groups=3):
    """Zhang et al., ShuffleNet, table 1, 1× with 3 groups."""
    spec = NetSpec()
    inputs(spec, shape, shape[:1] if label else None)
    channels = 24 // width
    top = normalized(spec, "conv1", convolution(spec, "conv1", spec.data, channels, 3, 2))
    spec.pool1 = top = L.Pooling(top, kernel_size=3, stride=2)
    for stage, (outputs, units) in enumerate(((240, 4), (480, 8), (960, 4)), 2):
        for unit in range(1, units + 1):
            first = stage == 2 and unit == 1  # few channels: no groups in its first convolution
            top = shuffle_unit(spec, f"stage{stage}_{unit}", top, channels, outputs // width, groups, 1 if first else groups)
            channels = outputs // width
    spec.pool = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    classifier(spec, spec.pool, classes, label)
    return spec.to_proto()


def shuffle_unit(spec, name, bottom, channels, outputs, groups, first_groups):
    """Figure 2: (b) adds to its input; (c), where the channels change, halves the size and is joined to the pooled input."""
    grows = channels != outputs
    inner = outputs // 4
    top = normalized(spec, f"{name}/1", convolution(spec, f"{name}/1", bottom, inner, group=first_groups))
    spec[f"{name}/shuffle"] = top = L.ShuffleChannel(top, group=groups)
    top = convolution(spec, f"{name}/2", top, inner, 3, 2 if grows else 1, "ConvolutionDepthwise")
    top = normalized(spec, f"{name}/2", top, None)
    top = convolution(spec, f"{name}/3", top, outputs - channels if grows else outputs, group=groups)
    top = normalized(spec, f"{name}/3", top, None)
    if grows:
        spec[f"{name}/pool"] = pooled = L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=3, stride=2, pad=0)
        spec[name] = L.Concat(pooled, top)
    else:
        spec[name] = L.Eltwise(bottom, top)
    spec[f"{name}/relu"] = L.ReLU(spec[name], in_place=True)
    return spec[f"{name}/relu"]


# ---- squeeze and excitation
def se_resnet_50(shape=(1, 3, 224, 224), classes=1000, width=1, label=True):
    """Hu et al., Squeeze-and-Excitation Networks, table 1, on He et al.'s ResNet-50; reduction 16."""
    spec = NetSpec()
    inputs(spec, shape, shape[:1] if label else None)
    top = normalized(spec, "conv1", convolution(spec, "conv1", spec.data, 64 // width, 7, 2))
    spec.pool1 = top = L.Pooling(top, kernel_size=3, stride=2)
    for stage, blocks in enumerate((3, 4, 6, 3), 2):
        inner = 64 * 2 ** (stage - 2) // width
        for block in range(1, blocks + 1):
            top = se_bottleneck(spec, f"conv{stage}_{block}", top, inner, 2 if block == 1 and stage > 2 else 1, block == 1)
    spec.pool5 = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    classifier(spec, spec.pool5, classes, label)
    return spec.to_proto()


def se_bottleneck(spec, name, bottom, inner, stride, projects):
    """Three convolutions, then channel weights from their pooled result, which scale them before the shortcut is added."""
    outputs = 4 * inner
    top = normalized(spec, f"{name}/reduce", convolution(spec, f"{name}/reduce", bottom, inner, 1, stride))
    top = normalized(spec, f"{name}/3x3", convolution(spec, f"{name}/3x3", top, inner, 3))
    top = normalized(spec, f"{name}/increase", convolution(spec, f"{name}/increase", top, outputs), None)
    spec[f"{name}/pool"] = squeezed = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    squeezed = convolution(spec, f"{name}/down", squeezed, outputs // 16, bias=True)
    spec[f"{name}/down/relu"] = L.ReLU(squeezed, in_place=True)
    convolution(spec, f"{name}/up", spec[f"{name}/down/relu"], outputs, bias=True)
    spec[f"{name}/prob"] = L.Sigmoid(spec[f"{name}/up"], in_place=True)
    shortcut = bottom
    if projects:
        shortcut = normalized(spec, f"{name}/proj", convolution(spec, f"{name}/proj", bottom, outputs, 1, stride), None)
    spec[name] = L.Axpy(spec[f"{name}/prob"], top, shortcut)
    spec[f"{name}/relu"] = L.ReLU(spec[name], in_place=True)
    return spec[f"{name}/relu"]


# ---- segmentation
def bn(spec, name, bottom, **settings):
    """PSPNet's: one layer, in place, then a ReLU."""
    settings = dict(slope_filler=dict(value=1), bias_filler=dict(value=0), momentum=0.95, **settings)
    spec[f"{name}/bn"] = L.BN(bottom, in_place=True, bn_param=settings)
    spec[f"{name}/relu"] = L.ReLU(spec[f"{name}/bn"], in_place=True)
    return spec[f"{name}/relu"]


def pspnet(shape=(1, 3, 89, 89), classes=150, width=1, label=True):
    """Zhao et al., PSPNet, figure 3: the pyramid pooling module and what follows, on a small stem of the same stride, 8."""
    spec = NetSpec()
    sizes = shape[2:]
    inputs(spec, shape, (shape[0], 1, *sizes) if label else None)
    top = spec.data
    for index, channels in enumerate((64, 256, 2048), 1):
        convolution(spec, f"conv{index}", top, channels // width, 3, 2)
        top = bn(spec, f"conv{index}", spec[f"conv{index}"])
        sizes = [(size - 1) // 2 + 1 for size in sizes]
    levels = [top]
    for bins in (1, 2, 3, 6):
        name, step = f"pool{bins}", [size // bins for size in sizes]
        spec[name] = L.Pooling(top, pool=P.Pooling.AVE, kernel_h=step[0], kernel_w=step[1], stride_h=step[0], stride_w=step[1])
        bn(spec, f"{name}/conv", convolution(spec, f"{name}/conv", spec[name], 512 // width))
        spec[f"{name}/interp"] = L.Interp(spec[f"{name}/conv/relu"], height=sizes[0], width=sizes[1])
        levels.append(spec[f"{name}/interp"])
    spec.concat = L.Concat(*levels)
    top = bn(spec, "conv5", convolution(spec, "conv5", spec.concat, 512 // width, 3))
    spec["conv5/dropout"] = L.Dropout(top, in_place=True, dropout_ratio=0.1)
    convolution(spec, "conv6", spec["conv5/dropout"], classes, bias=True)
    spec.score = L.Interp(spec.conv6, zoom_factor=8)
    if label:
        spec.loss = L.SoftmaxWithLoss(spec.score, spec.label, loss_param=dict(ignore_label=255))
    return spec.to_proto()


def segnet(shape=(1, 3, 360, 480), classes=11, width=1, label=True):
    """Badrinarayanan et al., SegNet: VGG16's 13 convolutions, and the same backwards, by the places of the maxima."""
    spec = NetSpec()
    inputs(spec, shape, (shape[0], 1, *shape[2:]) if label else None)
    stages = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    top, sizes, masks, size = spec.data, [], [], shape[2:]
    for stage, (channels, count) in enumerate(stages, 1):
        for index in range(1, count + 1):
            top = segnet_convolution(spec, f"conv{stage}_{index}", top, channels // width)
        spec[f"pool{stage}"], spec[f"pool{stage}_mask"] = L.Pooling(top, ntop=2, kernel_size=2, stride=2)
        top = spec[f"pool{stage}"]
        masks.append(spec[f"pool{stage}_mask"])
        sizes.append(size)
        size = [-(-length // 2) for length in size]
    for stage, (channels, count) in reversed(list(enumerate(stages, 1))):
        height, across = sizes[stage - 1]
        spec[f"upsample{stage}"] = top = L.Upsample(top, masks[stage - 1], upsample_h=height, upsample_w=across)
        for index in range(count, 0, -1):
            before = stages[max(stage - 2, 0)][0]
            if stage == index == 1:
                top = convolution(spec, "conv1_1_D", top, classes, 3, bias=True)
            else:
                outputs = channels if index > 1 else before
                top = segnet_convolution(spec, f"conv{stage}_{index}_D", top, outputs // width)
    if label:
        spec.loss = L.SoftmaxWithLoss(top, spec.label, loss_param=dict(ignore_label=255))
    return spec.to_proto()


def segnet_convolution(spec, name, bottom, outputs):
    convolution(spec, name, bottom, outputs, 3, bias=True)
    settings = dict(scale_filler=dict(value=1), shift_filler=dict(value=0.001))
    spec[f"{name}/bn"] = L.BN(spec[name], in_place=True, bn_param=settings)
    spec[f"{name}/relu"] = L.ReLU(spec[f"{name}/bn"], in_place=True)
    return spec[f"{name}/relu"]
