"""LeNet, a CIFAR-10 net with LRN, a siamese net with shared weights, MTCNN's three nets."""

import net_data
from comparison import ROOT
from nets_lines import average_pool, conv, dense, gaussian, max_pool, relu

from torchcaffe import NetSpec, layers, params
from torchcaffe.formats.files import read_net


def lenet(at):
    """LeCun et al., "Gradient-based learning applied to document recognition", 1998, with Caffe's ReLU and softmax."""
    net = NetSpec()
    net.data, net.label = at.images(10, channels=1, crop=False, scale=1 / 256)
    net.conv1 = conv(net.data, at.units(20), 5)
    net.pool1 = max_pool(net.conv1, 2, 2)
    net.conv2 = conv(net.pool1, at.units(50), 5)
    net.pool2 = max_pool(net.conv2, 2, 2)
    net.ip1 = dense(net.pool2, at.units(500))
    net.relu1 = relu(net.ip1)
    net.ip2 = dense(net.ip1, 10)
    net.loss = layers.SoftmaxWithLoss(net.ip2, net.label)
    return net.to_proto()


def cifar10_full(at):
    """Krizhevsky's cuda-convnet layers-18pct (2012): LRN within channels; max, then average pooling."""
    net = NetSpec()
    norm = dict(local_size=3, alpha=5e-5, beta=0.75, norm_region=params.LRN.WITHIN_CHANNEL)
    net.data, net.label = at.images(10)
    net.conv1 = conv(net.data, at.units(32), 5, gaussian(1e-4), pad=2)
    net.pool1 = max_pool(net.conv1, 3, 2)
    net.relu1 = relu(net.pool1)
    net.norm1 = layers.LRN(net.pool1, **norm)
    net.conv2 = conv(net.norm1, at.units(32), 5, gaussian(0.01), pad=2)
    net.relu2 = relu(net.conv2)
    net.pool2 = average_pool(net.conv2, 3, 2)
    net.norm2 = layers.LRN(net.pool2, **norm)
    net.conv3 = conv(net.norm2, at.units(64), 5, gaussian(0.01), pad=2)
    net.relu3 = relu(net.conv3)
    net.pool3 = average_pool(net.conv3, 3, 2)
    net.ip1 = dense(net.pool3, 10, gaussian(0.01), param=[dict(lr_mult=1, decay_mult=250), dict(lr_mult=2, decay_mult=0)])
    net.loss = layers.SoftmaxWithLoss(net.ip1, net.label)
    return net.to_proto()


def siamese(at):
    """Hadsell, Chopra, LeCun, "Dimensionality reduction by learning an invariant mapping", 2006, on LeNet (Caffe's)."""
    net = NetSpec()
    net.pair_data, net.sim = at.records(net_data.pairs(at.folder, at.count, at.side), ntop=2, transform_param=dict(scale=1 / 256))
    net.data, net.data_p = layers.Slice(net.pair_data, name="slice_pair", ntop=2, axis=1, slice_point=1)
    for side in ("", "_p"):
        shared = {
            layer: [dict(name=layer + "_w", lr_mult=1), dict(name=layer + "_b", lr_mult=2)]
            for layer in ("conv1", "conv2", "ip1", "ip2", "feat")
        }
        net["conv1" + side] = conv(net["data" + side], at.units(20), 5, param=shared["conv1"])
        net["pool1" + side] = max_pool(net["conv1" + side], 2, 2)
        net["conv2" + side] = conv(net["pool1" + side], at.units(50), 5, param=shared["conv2"])
        net["pool2" + side] = max_pool(net["conv2" + side], 2, 2)
        net["ip1" + side] = dense(net["pool2" + side], at.units(500), param=shared["ip1"])
        net["relu1" + side] = relu(net["ip1" + side])
        net["ip2" + side] = dense(net["ip1" + side], 10, param=shared["ip2"])
        net["feat" + side] = dense(net["ip2" + side], 2, param=shared["feat"])
    net.loss = layers.ContrastiveLoss(net.feat, net.feat_p, net.sim, margin=1)
    return net.to_proto()


def mtcnn_proposal(at):
    return _mtcnn(at, "det1", "conv4-1", {"conv4-2": 4}, [1, 0.5])


def mtcnn_refinement(at):
    return _mtcnn(at, "det2", "conv5-1", {"conv5-2": 4}, [1, 0.5])


def mtcnn_output(at):
    return _mtcnn(at, "det3", "conv6-1", {"conv6-2": 4, "conv6-3": 10}, [1, 0.5, 1])


def _mtcnn(at, name, scores, regressions, weights):
    """prototxt/mtcnn/NAME.prototxt with the losses of its paper on the outputs, weighted as there (section II.C)."""
    net = NetSpec()
    net.data, net.label = at.images(2, crop=False, mean_value=127.5, scale=1 / 128)
    net.numbers = at.records(net_data.numbers(at.folder, at.count, sum(regressions.values())))
    text = net.to_proto()
    text.layer.extend(layer for layer in read_net(ROOT / "prototxt" / "mtcnn" / f"{name}.prototxt").layer[1:-1])
    text.layer.add(name="loss", type="SoftmaxWithLoss", bottom=[scores, "label"], top=["loss"], loss_weight=weights[:1])
    targets = ["numbers"] if len(regressions) == 1 else [f"numbers{index}" for index in range(len(regressions))]
    if len(targets) > 1:
        slices = text.layer.add(name="slice", type="Slice", bottom=["numbers"], top=targets)
        slices.slice_param.slice_point.append(next(iter(regressions.values())))
    for blob, target, weight in zip(regressions, targets, weights[1:]):
        text.layer.add(
            name=f"loss_{blob}", type="EuclideanLoss", bottom=[blob, target], top=[f"loss_{blob}"], loss_weight=[weight]
        )
    return text
