"""Published nets of each family: of the size that their papers state, trainable, saved and resumed."""

import numpy as np
import published_nets as published
import pytest

import torchcaffe as caffe
from torchcaffe.formats.files import read_weights
from torchcaffe.proto import caffe_pb2

rng = np.random.default_rng(0)


def images(net):
    data = net.blobs["data"].data
    data[...] = np.random.default_rng(1).normal(size=data.shape)


def learned(net):
    """The number of learned values: without the statistics of batch normalization."""
    count = 0
    for name, blobs in net.params.items():
        kind = net.layer_dict[name].type
        count += sum(blob.data.size for blob in blobs[: 0 if kind == "BatchNorm" else 2])
    return count


def multiplications(net):
    """Products of weights and activations in one forward of one item."""
    total = 0
    for name, layer in net.layer_dict.items():
        if "Convolution" in layer.type:
            height, width = net.blobs[net.top_names[name][0]].data.shape[2:]
            total += net.params[name][0].data.size * height * width
        elif layer.type == "InnerProduct":
            total += net.params[name][0].data.size
    return total


@pytest.mark.parametrize("build, output, parameters, products", [
    (published.mobilenet, "fc", 4.2e6, 569e6),  # MobileNets, table 4: 4.2 and 569 million
    (published.shufflenet, "fc", None, 137e6),  # ShuffleNet, table 1: 137 MFLOPs
    (published.se_resnet_50, "fc", 28.1e6, 3.87e9),  # SE networks, table 2 and section 4: 3.87 GFLOPs, 2.5 million more
    (published.segnet, "conv1_1_D", 2 * 14.7e6, None),  # SegNet: 14.7 million in the encoder, and the decoder mirrors it
])  # fmt: skip
@pytest.mark.slow
def test_size_as_published(make_net, build, output, parameters, products):
    """Counted from the built net: parameters within 1 %, products of one forward within 0.5 %."""
    net = make_net(str(build(label=False)))  # in TRAIN, as new nets have no averages yet
    images(net)
    assert np.isfinite(net.forward()[output]).all()
    assert parameters is None or learned(net) == pytest.approx(parameters, rel=0.01)
    assert products is None or multiplications(net) == pytest.approx(products, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("build", [published.sphereface_20, published.pspnet])
def test_full_width_runs(make_net, build):
    net = make_net(str(build()), caffe.TEST)
    images(net)
    assert np.isfinite(net.forward()["loss"])
    types = [layer.type for layer in net.layer_dict.values()]
    if build is published.sphereface_20:
        assert types.count("Convolution") == types.count("PReLU") == 20 and net.blobs["fc5"].data.shape == (1, 512)
    else:
        assert types.count("Interp") == 5 and net.blobs["concat"].data.shape == (1, 2048 + 4 * 512, 12, 12)
        assert [net.blobs[f"pool{bins}"].data.shape[2:] for bins in (1, 2, 3, 6)] == [(1, 1), (2, 2), (3, 3), (6, 6)]
        assert net.blobs["score"].data.shape == (1, 150, 89, 89)


SOLVER = "base_lr: RATE lr_policy: 'fixed' momentum: 0.9 weight_decay: 0.0005 max_iter: 40 display: 0 random_seed: 1"
FACES = dict(shape=(8, 3, 32, 32), classes=4, width=8)
NETS = {
    "sphereface": (lambda: published.sphereface_20(**FACES), 0.05),
    "center": (lambda: published.sphereface_20(**FACES, loss="center"), 0.05),
    "normface": (lambda: published.sphereface_20(**FACES, loss="normface"), 0.05),
    "mobilenet": (lambda: published.mobilenet((8, 3, 64, 64), 4, width=4), 0.02),
    "shufflenet": (lambda: published.shufflenet((8, 3, 64, 64), 4, width=2), 0.02),
    "se_resnet": (lambda: published.se_resnet_50((8, 3, 64, 64), 4, width=4), 0.02),
    "pspnet": (lambda: published.pspnet((2, 3, 41, 89), 3, width=16), 0.05),
    "segnet": (lambda: published.segnet((2, 3, 45, 60), 3, width=8), 0.05),
}


def make_training(make_solver, name, more=""):
    """A solver of a net of NETS, its inputs filled with one batch: another brightness and color for each class."""
    build, rate = NETS[name]
    solver = make_solver(str(build()), SOLVER.replace("RATE", str(rate)) + more)
    feed(solver.net)
    return solver


def feed(net):
    random = np.random.default_rng(2)
    data, label = net.blobs["data"].data, net.blobs["label"].data
    if label.ndim == 1:  # a class an image
        label[...] = np.arange(len(label)) % 4
        data[...] = random.normal(size=data.shape) + np.reshape(label, (-1, 1, 1, 1)) * [[[[1]], [[-1]], [[0.5]]]]
    else:  # a class a pixel: three stripes; a border is not labeled
        label[...] = np.arange(label.shape[3]) * 3 // label.shape[3]
        data[...] = random.normal(size=data.shape) + label
        label[:, :, 0] = 255


SLOW = {"se_resnet", "segnet", "shufflenet"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NETS]


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_small_batch(make_solver, name):
    """20 iterations; the mean loss of the last five is well below that of the first five."""
    solver = make_training(make_solver, name)
    losses = []
    for _ in range(20):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5]), losses


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_from_a_caffemodel(make_solver, make_net, name, tmp_path):
    """Saved after three iterations, averages and centers included; the same output in a new net, TRAIN's and TEST's."""
    solver = make_training(make_solver, name)
    solver.step(3)
    path = str(tmp_path / "net.caffemodel")
    solver.net.save(path)
    assert {layer.name: layer.type for layer in read_weights(path)} == {
        layer.name: layer.type for layer in solver.net.built_layers
    }
    text = str(NETS[name][0]())
    given, loaded = make_net(text, caffe.TEST), make_net(text, caffe.TEST, seed=5, weights=path)
    given.share_with(solver.net)
    assert not loaded.copy_report.left and not loaded.copy_report.ignored
    for net in (given, loaded):
        feed(net)
        net.forward()
    last = given.bottom_names["loss"][0]
    assert given.blobs[last].data.std() > 0
    np.testing.assert_array_equal(loaded.blobs[last].data, given.blobs[last].data)
    for layer, blobs in solver.net.params.items():
        for one, other in zip(blobs, loaded.params[layer]):
            np.testing.assert_array_equal(one.data, other.data)


def test_copying_by_name_between_spellings(make_net, tmp_path):
    """A MobileNet of depthwise layers gives its weights to one of Caffe's own grouped convolutions, and gets them back."""
    kinds = ["DepthwiseConvolution", "Convolution", "ConvolutionDepthwise"]
    nets = [make_net(str(published.mobilenet((1, 3, 32, 32), 5, 4, False, kind)), caffe.TEST, seed=i) for i, kind in enumerate(kinds)]
    for index, net in enumerate(nets):
        if index:
            net.copy_from(str(tmp_path / f"{index - 1}.caffemodel"))
        net.save(str(tmp_path / f"{index}.caffemodel"))
        images(net)
    outputs = [net.forward()["fc"].copy() for net in nets]
    assert outputs[0].std() > 0
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_a_caffemodel_of_the_fork(make_net, make_solver, tmp_path):
    """SphereFace's Caffe has margin_inner_product_param as field 147, which is swish_param in Caffe 1.0."""
    solver = make_training(make_solver, "sphereface")
    solver.step(1)
    definition = caffe_pb2.NetParameter()
    for layer in solver.net.built_layers:
        theirs = caffe_pb2.LayerParameter(name=layer.name, type=layer.type)
        theirs.blobs.extend(caffe.io.array_to_blobproto(blob.data) for blob in layer.blobs)
        content = theirs.SerializeToString()
        if layer.type == "MarginInnerProduct":
            settings = layer.param.margin_inner_product_param.SerializeToString()
            assert len(settings) < 128
            content += bytes([147 << 3 & 0x7F | 0x82, 147 >> 4, len(settings)]) + settings
            assert caffe_pb2.LayerParameter.FromString(content).HasField("swish_param")
        definition.layer.add().MergeFromString(content)
    path = tmp_path / "fork.caffemodel"
    path.write_bytes(definition.SerializeToString())
    net = make_net(str(NETS["sphereface"][0]()), seed=5, weights=str(path))
    assert not net.copy_report.left and not net.copy_report.ignored
    for name, blobs in solver.net.params.items():
        np.testing.assert_array_equal(blobs[0].data, net.params[name][0].data)


def test_fine_tuning_a_face_net_with_another_loss(make_solver, make_net, tmp_path):
    """By name: the trunk is copied, the new classifier stays at its filler, the angular one is left out."""
    solver = make_training(make_solver, "sphereface")
    path = str(tmp_path / "sphereface.caffemodel")
    solver.net.save(path)
    net = make_net(str(published.sphereface_20(**FACES, loss="normface")), seed=9, weights=path)
    assert net.copy_report.left == ["cosine", "scores"] and net.copy_report.ignored == ["fc6"]
    np.testing.assert_array_equal(net.params["conv3_5"][0].data, solver.net.params["conv3_5"][0].data)


@pytest.mark.parametrize("name", ["sphereface", "pspnet"])
def test_resuming_from_a_snapshot(make_solver, name, tmp_path):
    """To the last bit: weights, centers' and averages' state, and SphereFace's lambda, which falls with the iterations."""
    straight = make_training(make_solver, name, " snapshot: 4")
    straight.step(4)
    (state,) = tmp_path.glob("*_iter_4.solverstate")
    straight.step(4)
    resumed = make_training(make_solver, name)
    resumed.restore(str(state))
    feed(resumed.net)
    resumed.step(4)
    for layer, blobs in straight.net.params.items():
        for one, other in zip(blobs, resumed.net.params[layer]):
            np.testing.assert_array_equal(one.data, other.data)
    if name == "sphereface":
        assert straight.net.blobs["lambda"].data == resumed.net.blobs["lambda"].data
        assert straight.net.blobs["lambda"].data == pytest.approx(1000 / (1 + 0.12 * 8))
