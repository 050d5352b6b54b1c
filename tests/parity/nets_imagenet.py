"""AlexNet, GoogLeNet, SqueezeNet and ResNet-50 as they were trained on ImageNet."""

from nets_lines import MSRA, WEIGHTS, XAVIER, average_pool, conv, dense, drop, gaussian, max_pool, relu

from torchcaffe import NetSpec, layers, params

CLASSES = 1000


def alexnet(at):
    """Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012."""
    net = NetSpec()
    norm = dict(local_size=5, alpha=1e-4, beta=0.75)
    net.data, net.label = at.images(CLASSES)
    net.conv1 = conv(net.data, at.units(96), 11, gaussian(0.01), stride=4)
    net.relu1 = relu(net.conv1)
    net.norm1 = layers.LRN(net.conv1, **norm)
    net.pool1 = max_pool(net.norm1, 3, 2)
    net.conv2 = conv(net.pool1, at.units(256), 5, gaussian(0.01), 0.1, pad=2, group=2)
    net.relu2 = relu(net.conv2)
    net.norm2 = layers.LRN(net.conv2, **norm)
    net.pool2 = max_pool(net.norm2, 3, 2)
    net.conv3 = conv(net.pool2, at.units(384), 3, gaussian(0.01), pad=1)
    net.relu3 = relu(net.conv3)
    net.conv4 = conv(net.conv3, at.units(384), 3, gaussian(0.01), 0.1, pad=1, group=2)
    net.relu4 = relu(net.conv4)
    net.conv5 = conv(net.conv4, at.units(256), 3, gaussian(0.01), 0.1, pad=1, group=2)
    net.relu5 = relu(net.conv5)
    net.pool5 = max_pool(net.conv5, 3, 2)
    net.fc6 = dense(net.pool5, at.units(4096), gaussian(0.005), 0.1)
    net.relu6 = relu(net.fc6)
    net.drop6 = drop(net.fc6)
    net.fc7 = dense(net.fc6, at.units(4096), gaussian(0.005), 0.1)
    net.relu7 = relu(net.fc7)
    net.drop7 = drop(net.fc7)
    net.fc8 = dense(net.fc7, CLASSES, gaussian(0.01))
    net.loss = layers.SoftmaxWithLoss(net.fc8, net.label)
    return net.to_proto()


def googlenet(at):
    """Szegedy et al., "Going deeper with convolutions", 2015, with both auxiliary heads; layers named as Caffe's."""
    net = NetSpec()
    norm = dict(local_size=5, alpha=1e-4, beta=0.75)
    net.data, net.label = at.images(CLASSES)
    net["conv1/7x7_s2"] = conv(net.data, at.units(64), 7, XAVIER, 0.2, stride=2, pad=3)
    net["conv1/relu_7x7"] = relu(net["conv1/7x7_s2"])
    net["pool1/3x3_s2"] = max_pool(net["conv1/7x7_s2"], 3, 2)
    net["pool1/norm1"] = layers.LRN(net["pool1/3x3_s2"], **norm)
    net["conv2/3x3_reduce"] = conv(net["pool1/norm1"], at.units(64), 1, XAVIER, 0.2)
    net["conv2/relu_3x3_reduce"] = relu(net["conv2/3x3_reduce"])
    net["conv2/3x3"] = conv(net["conv2/3x3_reduce"], at.units(192), 3, XAVIER, 0.2, pad=1)
    net["conv2/relu_3x3"] = relu(net["conv2/3x3"])
    net["conv2/norm2"] = layers.LRN(net["conv2/3x3"], **norm)
    net["pool2/3x3_s2"] = max_pool(net["conv2/norm2"], 3, 2)
    inception(net, at, "3a", net["pool2/3x3_s2"], 64, 96, 128, 16, 32, 32)
    inception(net, at, "3b", net["inception_3a/output"], 128, 128, 192, 32, 96, 64)
    net["pool3/3x3_s2"] = max_pool(net["inception_3b/output"], 3, 2)
    inception(net, at, "4a", net["pool3/3x3_s2"], 192, 96, 208, 16, 48, 64)
    auxiliary_head(net, at, "loss1", net["inception_4a/output"])
    inception(net, at, "4b", net["inception_4a/output"], 160, 112, 224, 24, 64, 64)
    inception(net, at, "4c", net["inception_4b/output"], 128, 128, 256, 24, 64, 64)
    inception(net, at, "4d", net["inception_4c/output"], 112, 144, 288, 32, 64, 64)
    auxiliary_head(net, at, "loss2", net["inception_4d/output"])
    inception(net, at, "4e", net["inception_4d/output"], 256, 160, 320, 32, 128, 128)
    net["pool4/3x3_s2"] = max_pool(net["inception_4e/output"], 3, 2)
    inception(net, at, "5a", net["pool4/3x3_s2"], 256, 160, 320, 32, 128, 128)
    inception(net, at, "5b", net["inception_5a/output"], 384, 192, 384, 48, 128, 128)
    net["pool5/7x7_s1"] = average_pool(net["inception_5b/output"], at.side // 32, 1)
    net["pool5/drop_7x7_s1"] = drop(net["pool5/7x7_s1"], 0.4)
    net["loss3/classifier"] = dense(net["pool5/7x7_s1"], CLASSES)
    net["loss3/loss3"] = layers.SoftmaxWithLoss(net["loss3/classifier"], net.label, loss_weight=1)
    return net.to_proto()


def inception(net, at, name, bottom, ones, reduce3, threes, reduce5, fives, projected):
    def line(layer, bottom, units, kernel, **more):
        net[f"inception_{name}/{layer}"] = top = conv(bottom, at.units(units), kernel, XAVIER, 0.2, **more)
        net[f"inception_{name}/relu_{layer}"] = relu(top)
        return top

    branch1 = line("1x1", bottom, ones, 1)
    branch3 = line("3x3", line("3x3_reduce", bottom, reduce3, 1), threes, 3, pad=1)
    branch5 = line("5x5", line("5x5_reduce", bottom, reduce5, 1), fives, 5, pad=2)
    net[f"inception_{name}/pool"] = pool = max_pool(bottom, 3, 1, pad=1)
    branch_pool = line("pool_proj", pool, projected, 1)
    net[f"inception_{name}/output"] = layers.Concat(branch1, branch3, branch5, branch_pool)


def auxiliary_head(net, at, name, bottom):
    net[name + "/ave_pool"] = average_pool(bottom, 5, 3)
    net[name + "/conv"] = conv(net[name + "/ave_pool"], at.units(128), 1, XAVIER, 0.2)
    net[name + "/relu_conv"] = relu(net[name + "/conv"])
    net[name + "/fc"] = dense(net[name + "/conv"], at.units(1024), XAVIER, 0.2)
    net[name + "/relu_fc"] = relu(net[name + "/fc"])
    net[name + "/drop_fc"] = drop(net[name + "/fc"], 0.7)
    net[name + "/classifier"] = dense(net[name + "/fc"], CLASSES)
    net[name + "/loss"] = layers.SoftmaxWithLoss(net[name + "/classifier"], net.label, loss_weight=0.3)


def squeezenet(at):
    """Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016 (version 1.0)."""
    net = NetSpec()
    net.data, net.label = at.images(CLASSES)
    net.conv1 = conv(net.data, at.units(96), 7, stride=2)
    net.relu_conv1 = relu(net.conv1)
    net.pool1 = max_pool(net.conv1, 3, 2)
    fire(net, at, "fire2", net.pool1, 16, 64)
    fire(net, at, "fire3", net["fire2/concat"], 16, 64)
    fire(net, at, "fire4", net["fire3/concat"], 32, 128)
    net.pool4 = max_pool(net["fire4/concat"], 3, 2)
    fire(net, at, "fire5", net.pool4, 32, 128)
    fire(net, at, "fire6", net["fire5/concat"], 48, 192)
    fire(net, at, "fire7", net["fire6/concat"], 48, 192)
    fire(net, at, "fire8", net["fire7/concat"], 64, 256)
    net.pool8 = max_pool(net["fire8/concat"], 3, 2)
    fire(net, at, "fire9", net.pool8, 64, 256)
    net.drop9 = drop(net["fire9/concat"])
    net.conv10 = conv(net["fire9/concat"], CLASSES, 1, gaussian(0.01))
    net.relu_conv10 = relu(net.conv10)
    net.pool10 = layers.Pooling(net.conv10, pool=params.Pooling.AVE, global_pooling=True)
    net.loss = layers.SoftmaxWithLoss(net.pool10, net.label)
    return net.to_proto()


def fire(net, at, name, bottom, squeezed, expanded):
    net[name + "/squeeze1x1"] = squeeze = conv(bottom, at.units(squeezed), 1)
    net[name + "/relu_squeeze1x1"] = relu(squeeze)
    net[name + "/expand1x1"] = one = conv(squeeze, at.units(expanded), 1)
    net[name + "/relu_expand1x1"] = relu(one)
    net[name + "/expand3x3"] = three = conv(squeeze, at.units(expanded), 3, pad=1)
    net[name + "/relu_expand3x3"] = relu(three)
    net[name + "/concat"] = layers.Concat(one, three)


def resnet50(at):
    """He et al., "Deep residual learning for image recognition", 2016; layers named as in the authors' release."""
    net = NetSpec()
    net.data, net.label = at.images(CLASSES)
    normalized(net, "conv1", "_conv1", net.data, at.units(64), 7, stride=2, pad=3)
    net.conv1_relu = relu(net.conv1)
    net.pool1 = bottom = max_pool(net.conv1, 3, 2)
    for stage, (units, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=2):
        for block in "abcdef"[:blocks]:
            stride = 2 if block == "a" and stage > 2 else 1
            bottom = bottleneck(net, at, f"{stage}{block}", bottom, units, stride, block == "a")
    net.pool5 = average_pool(bottom, at.side // 32, 1)
    net.fc1000 = dense(net.pool5, CLASSES)
    net.loss = layers.SoftmaxWithLoss(net.fc1000, net.label)
    return net.to_proto()


def bottleneck(net, at, name, bottom, units, stride, projected):
    narrow, wide = at.units(units), at.units(4 * units)
    branch = f"{name}_branch"
    shortcut = bottom
    if projected:
        shortcut = normalized(net, f"res{branch}1", f"{branch}1", bottom, wide, 1, stride=stride)
    first = normalized(net, f"res{branch}2a", f"{branch}2a", bottom, narrow, 1, stride=stride)
    net[f"res{branch}2a_relu"] = relu(first)
    second = normalized(net, f"res{branch}2b", f"{branch}2b", first, narrow, 3, pad=1)
    net[f"res{branch}2b_relu"] = relu(second)
    third = normalized(net, f"res{branch}2c", f"{branch}2c", second, wide, 1)
    net[f"res{name}"] = top = layers.Eltwise(shortcut, third)
    net[f"res{name}_relu"] = relu(top)
    return top


def normalized(net, name, suffix, bottom, units, kernel, **more):
    """Convolution, BatchNorm and Scale, the latter two in place."""
    net[name] = top = conv(bottom, units, kernel, MSRA, bias_term=False, param=[WEIGHTS], **more)
    net["bn" + suffix] = layers.BatchNorm(top, in_place=True)
    net["scale" + suffix] = layers.Scale(top, bias_term=True, in_place=True)
    return top


def shrink_branches(net):
    """Blocks begin near the identity (Goyal et al. 2017 begin with a Scale of 0), so that rounding does not explode."""
    for name, blobs in net.params.items():
        if name.startswith("scale") and name.endswith("branch2c"):
            blobs[0].data[...] = 0.2
