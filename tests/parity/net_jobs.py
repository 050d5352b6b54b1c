"""Whole nets of the kinds people train, small, from random weights of one seed: `net_jobs(folder)`."""

from torchcaffe import NetSpec, layers, params

ITERATIONS = 20
SOLVER = 'type: "SGD" base_lr: {rate} momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed" max_iter: 20 display: 1'
FILL = dict(weight_filler=dict(type="xavier"))


def data(net, shape, target):
    """Images, and the targets, uniform in 0 .. 1, anew in each iteration."""
    fillers = [dict(type="uniform", min=-1, max=1), dict(type="uniform", min=0, max=1)]
    shapes = [dict(dim=list(shape)), dict(dim=list(target))]
    net.data, net.target = layers.DummyData(ntop=2, shape=shapes, data_filler=fillers)


def conv(bottom, units, kernel, **more):
    return layers.Convolution(bottom, num_output=units, kernel_size=kernel, **FILL, **more)


def pool(bottom, kernel, stride, average=False):
    kind = params.Pooling.AVE if average else params.Pooling.MAX
    return layers.Pooling(bottom, kernel_size=kernel, stride=stride, pool=kind)


def dense(bottom, units, **more):
    return layers.InnerProduct(bottom, num_output=units, **FILL, **more)


def relu(bottom):
    return layers.ReLU(bottom, in_place=True)


def lenet():
    net = NetSpec()
    data(net, (8, 1, 28, 28), (8, 10))
    net.conv1 = conv(net.data, 20, 5)
    net.pool1 = pool(net.conv1, 2, 2)
    net.conv2 = conv(net.pool1, 50, 5)
    net.pool2 = pool(net.conv2, 2, 2)
    net.ip1 = dense(net.pool2, 100)
    net.relu1 = relu(net.ip1)
    net.ip2 = dense(net.ip1, 10)
    net.loss = layers.SigmoidCrossEntropyLoss(net.ip2, net.target)
    return net


def cifar10_with_lrn():
    net = NetSpec()
    data(net, (8, 3, 32, 32), (8, 10))
    net.conv1 = conv(net.data, 32, 5, pad=2)
    net.pool1 = pool(net.conv1, 3, 2)
    net.relu1 = relu(net.pool1)
    within = params.LRN.WITHIN_CHANNEL
    net.norm1 = layers.LRN(net.pool1, local_size=3, alpha=5e-5, beta=0.75, norm_region=within)
    net.conv2 = conv(net.norm1, 32, 5, pad=2, group=2)
    net.relu2 = relu(net.conv2)
    net.pool2 = pool(net.conv2, 3, 2, average=True)
    net.norm2 = layers.LRN(net.pool2, local_size=5, alpha=1e-4, beta=0.75)
    net.conv3 = conv(net.norm2, 64, 5, pad=2)
    net.relu3 = relu(net.conv3)
    net.pool3 = pool(net.conv3, 3, 2, average=True)
    net.ip1 = dense(net.pool3, 10)
    net.loss = layers.SigmoidCrossEntropyLoss(net.ip1, net.target)
    return net


def normalized(net, name, bottom, units, kernel, **more):
    net[name] = conv(bottom, units, kernel, bias_term=False, **more)
    net["norm_" + name] = layers.BatchNorm(net[name])
    net["scale_" + name] = layers.Scale(net["norm_" + name], bias_term=True, in_place=True)
    return net["scale_" + name]


def resnet():
    net = NetSpec()
    data(net, (6, 3, 24, 24), (6, 10))
    net.relu = relu(normalized(net, "conv", net.data, 16, 3, pad=1))
    bottom = net.relu
    for block, (units, stride) in enumerate([(16, 1), (32, 2)]):
        first = relu(normalized(net, f"block{block}a", bottom, units, 3, pad=1, stride=stride))
        net[f"relu{block}a"] = first
        second = normalized(net, f"block{block}b", first, units, 3, pad=1)
        same = bottom if stride == 1 else normalized(net, f"block{block}s", bottom, units, 1, stride=stride)
        net[f"sum{block}"] = layers.Eltwise(same, second)
        net[f"relu{block}"] = bottom = relu(net[f"sum{block}"])
    net.pool = layers.Pooling(bottom, pool=params.Pooling.AVE, global_pooling=True)
    net.ip = dense(net.pool, 10)
    net.loss = layers.SigmoidCrossEntropyLoss(net.ip, net.target)
    return net


def squeezenet():
    net = NetSpec()
    data(net, (6, 3, 27, 27), (6, 10, 1, 1))
    net.conv1 = conv(net.data, 16, 3, stride=2)
    net.relu1 = relu(net.conv1)
    net.pool1 = bottom = pool(net.conv1, 3, 2)
    for fire in ("fire2", "fire3"):
        net[fire + "_squeeze"] = conv(bottom, 8, 1)
        net[fire + "_relu"] = squeezed = relu(net[fire + "_squeeze"])
        net[fire + "_1x1"] = conv(squeezed, 16, 1)
        net[fire + "_3x3"] = conv(squeezed, 16, 3, pad=1)
        net[fire] = bottom = layers.Concat(relu(net[fire + "_1x1"]), relu(net[fire + "_3x3"]))
    net.drop = layers.Dropout(bottom, dropout_ratio=0.5, in_place=True)
    net.conv10 = conv(net.drop, 10, 1)
    net.pool10 = layers.Pooling(net.conv10, pool=params.Pooling.AVE, global_pooling=True)
    net.loss = layers.SigmoidCrossEntropyLoss(net.pool10, net.target)
    return net


def siamese():
    net = NetSpec()
    data(net, (8, 2, 20, 20), (8, 6))
    net.left, net.right = layers.Slice(net.data, ntop=2, axis=1, slice_point=1)
    for side in ("left", "right"):
        names = [[dict(name=f"{layer}_{part}") for part in "wb"] for layer in ("conv", "ip", "feat")]
        net["conv_" + side] = conv(net[side], 12, 5, param=names[0])
        net["pool_" + side] = pool(net["conv_" + side], 2, 2)
        net["ip_" + side] = dense(net["pool_" + side], 30, param=names[1])
        net["relu_" + side] = relu(net["ip_" + side])
        net["feat_" + side] = dense(net["relu_" + side], 6, param=names[2])
    net.apart = layers.Eltwise(net.feat_left, net.feat_right, coeff=[1, -1])
    net.loss = layers.EuclideanLoss(net.apart, net.target)
    return net


def fcn():
    net = NetSpec()
    data(net, (2, 3, 21, 21), (2, 4, 21, 21))
    net.conv1 = conv(net.data, 12, 3, pad=4)
    net.relu1 = relu(net.conv1)
    net.pool1 = pool(net.conv1, 2, 2)
    net.conv2 = conv(net.pool1, 16, 3, pad=2, dilation=2)
    net.relu2 = relu(net.conv2)
    net.score = conv(net.conv2, 4, 1)
    up = dict(num_output=4, kernel_size=4, stride=2, bias_term=False, weight_filler=dict(type="bilinear"))
    net.up = layers.Deconvolution(net.score, convolution_param=up)
    net.crop = layers.Crop(net.up, net.data, axis=2, offset=3)
    net.loss = layers.SigmoidCrossEntropyLoss(net.crop, net.target)
    return net


NETS = {
    "LeNet": (lenet, 0.01),
    "CIFAR-10 quick with LRN and groups": (cifar10_with_lrn, 0.005),
    "residual net with BatchNorm and Scale": (resnet, 0.01),
    "SqueezeNet's fire modules": (squeezenet, 0.005),
    "siamese net with shared weights": (siamese, 0.005),
    "FCN with Deconvolution and Crop": (fcn, 1e-4),
}


def net_jobs(folder):
    """Jobs for training.train_both."""
    jobs = []
    for number, (name, (build, rate)) in enumerate(NETS.items()):
        net, solver = folder / f"net{number}.prototxt", folder / f"net_solver{number}.prototxt"
        net.write_text(f'name: "{build.__name__}"\n{build().to_proto()}')
        settings = SOLVER.format(rate=rate)
        solver.write_text(f'train_net: "{net}" {settings} random_seed: {number + 1} snapshot_after_train: false\n')
        jobs.append({"name": name, "solver": str(solver), "iterations": ITERATIONS})
    return jobs
