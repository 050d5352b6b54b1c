"""The whole nets, at two sizes each, with the solvers that their authors give: `net_jobs(folder, size)`."""

import os
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import nets_imagenet
import nets_recurrent
import nets_small
import nets_vgg
from comparison import ROOT
from nets_lines import Setting

import torchcaffe

ITERATIONS = 20
SEED = 2016
BIAS = 0.1


class WholeNet(NamedTuple):
    """`build(setting)` gives the net; `rate` is its authors' base_lr for batches of `batch`, `solver` the rest."""

    build: Callable
    rate: float
    batch: int
    solver: str
    paper: Setting  # the size for the page
    small: Setting  # the size for the tests
    slower: float = 1  # than the authors' rate
    weights: Optional[str] = None  # a file to start from; without it, what the net's fillers draw
    prepare: Optional[Callable] = None  # what is done with the net's own draws
    cancelling: tuple = ()  # layers whose biases' gradients cancel out
    unit: str = "pixels"  # what Setting.side counts

    def base_lr(self, at):
        """The authors' rate brought to this batch size: in proportion."""
        return self.rate * at.batch / self.batch / self.slower


def sgd(decay, policy, momentum=0.9):
    return f'momentum: {momentum} weight_decay: {decay} lr_policy: {policy}'


INV = sgd(0.0005, '"inv" gamma: 0.0001 power: 0.75')
STEP = sgd(0.0005, '"step" gamma: 0.1 stepsize: 100000')
FIXED = sgd(0.0005, '"fixed"')


def mtcnn(build, number, side, batch):
    weights = f"weights/mtcnn/det{number}.caffemodel"
    return WholeNet(build, 0.01, 64, FIXED, Setting(1, side, 64), Setting(1, side, batch), slower=100, weights=weights)


NETS = {
    "LeNet": WholeNet(nets_small.lenet, 0.01, 64, INV, Setting(1, 28, 64), Setting(1, 28, 16), slower=10),
    "CIFAR-10 full": WholeNet(
        nets_small.cifar10_full, 0.001, 100, sgd(0.004, '"fixed"'), Setting(1, 32, 100), Setting(1, 32, 16), slower=30
    ),
    "siamese LeNet": WholeNet(
        nets_small.siamese,
        0.01,
        64,
        INV,
        Setting(1, 28, 64),
        Setting(1, 28, 16),
        slower=10,
        cancelling=("ip2", "ip2_p", "feat", "feat_p"),
    ),
    "MTCNN P-Net": mtcnn(nets_small.mtcnn_proposal, 1, 12, 64),
    "MTCNN R-Net": mtcnn(nets_small.mtcnn_refinement, 2, 24, 32),
    "MTCNN O-Net": mtcnn(nets_small.mtcnn_output, 3, 48, 8),
    "AlexNet": WholeNet(nets_imagenet.alexnet, 0.01, 128, STEP, Setting(1, 227, 2), Setting(1 / 8, 99, 4), slower=5),
    "GoogLeNet": WholeNet(
        nets_imagenet.googlenet,
        0.01,
        32,
        sgd(0.0002, '"step" gamma: 0.96 stepsize: 320000'),
        Setting(1, 224, 2),
        Setting(1 / 4, 96, 2),
        slower=40,
    ),
    "SqueezeNet": WholeNet(
        nets_imagenet.squeezenet, 0.04, 512, sgd(0.0002, '"poly" power: 1'), Setting(1, 227, 2), Setting(1 / 4, 67, 4)
    ),
    "ResNet-50": WholeNet(
        nets_imagenet.resnet50,
        0.1,
        256,
        sgd(0.0001, '"step" gamma: 0.1 stepsize: 300000'),
        Setting(1, 224, 2),
        Setting(1 / 8, 64, 4),
        slower=100,
        prepare=nets_imagenet.shrink_branches,
    ),
    "VGG-Face": WholeNet(
        nets_vgg.vgg_face,
        0.01,
        64,
        STEP,
        Setting(1, 224, 1),
        Setting(1 / 16, 64, 2),
        slower=400,
    ),
    "FCN-8s": WholeNet(
        nets_vgg.fcn8s,
        1e-10,
        1,
        sgd(0.0005, '"fixed"', momentum=0.99),
        Setting(1 / 2, 96, 1),
        Setting(1 / 16, 64, 1),
        prepare=nets_vgg.interpolate,
    ),
    "LRCN": WholeNet(
        nets_recurrent.lrcn,
        0.01,
        100,
        sgd(0, '"step" gamma: 0.5 stepsize: 20000') + " clip_gradients: 10",
        Setting(1 / 2, 20, 16),
        Setting(1 / 32, 6, 5),
        unit="time steps",
    ),
}


def net_jobs(folder, size, names=NETS):
    """Jobs for whole_nets.compare, of the nets named; `size`: paper or small."""
    jobs = []
    for name in names:
        whole = NETS[name]
        at = getattr(whole, size)._replace(folder=Path(folder))
        stem = os.path.join(folder, name.replace(" ", "_"))
        net, solver = stem + ".prototxt", stem + "_solver.prototxt"
        Path(net).write_text(str(whole.build(at)))
        Path(solver).write_text(
            f'train_net: "{net}" type: "SGD" base_lr: {whole.base_lr(at):g} {whole.solver} max_iter: {ITERATIONS} '
            f"display: 1 random_seed: {SEED} snapshot_after_train: false\n"
        )
        weights = str(ROOT / whole.weights) if whole.weights else starting_weights(whole, net, stem + ".caffemodel")
        job = {"name": name, "net": net, "solver": solver, "iterations": ITERATIONS}
        jobs.append({**job, "weights": weights, "fresh": [], "seed": SEED, "cancelling": whole.cancelling})
    return jobs


def starting_weights(whole, net, path):
    """Write the caffemodel that both engines start from, drawn by the net's fillers; returns its path.

    Biases that would start at 0 start at BIAS: the difference of what is nothing but gradient says how rounding grows.
    """
    torchcaffe.set_random_seed(SEED)
    net = torchcaffe.Net(net, torchcaffe.TRAIN)
    if whole.prepare:
        whole.prepare(net)
    for layer, blobs in net.params.items():
        for blob in blobs:
            if not blob.data.any() and net.layer_dict[layer].type != "BatchNorm":
                blob.data[...] = BIAS
    if whole.build is nets_vgg.vgg_face:
        nets_vgg.write_v1(net, path)
    else:
        net.save(path)
    return path
