"""CenterLoss and MarginInnerProduct against their papers' formulas in numpy."""

import math

import numpy as np
import pytest
from layer_checks import check_layer, fill, gradients, numeric_gradient, one_layer

import torchcaffe as caffe
from torchcaffe.core import mode
from torchcaffe.core.errors import NetError, PrototxtError, ShapeError
from torchcaffe.distributed import parallel
from torchcaffe.distributed.shares import Share

rng = np.random.default_rng(0)


# ---- CenterLoss
def center_net(make_net, shape, classes=4, more="", settings="", labels=None, **arguments):
    layer = f"""type: "CenterLoss" {more} center_loss_param {{ num_output: {classes} {settings}
        center_filler {{ type: "gaussian" std: 1 }} }}"""
    text = one_layer(layer, shape, (shape[0],) if labels is None else labels)
    return make_net(text.replace('bottom: "b1" top', 'bottom: "b1" propagate_down: true propagate_down: false top'), **arguments)


def center_loss(x, labels, centers):
    """Equation 2 of the paper, over the number of items; one item at a time."""
    return sum(((row - centers[int(label)]) ** 2).sum() / 2 for row, label in zip(x.reshape(len(x), -1), labels)) / len(x)


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 2, 1)])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_center_loss_and_its_gradient_to_features(make_net, shape, phase):
    net = center_net(make_net, shape, phase=phase)
    x, labels = rng.normal(size=shape), np.array([0, 2, 2, 1, 2, 0.0])
    loss = fill(net, x, labels)
    assert loss.shape == ()
    centers = net.params["l"][0].data.astype(np.float64)
    assert centers.shape == (4, math.prod(shape[1:])) and centers.std() > 0.5
    np.testing.assert_allclose(loss, center_loss(x, labels, centers), rtol=1e-5)
    (found, _), _ = gradients(net, 1)
    np.testing.assert_allclose(found, numeric_gradient(lambda: center_loss(x, labels, centers), x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss_weight", [1, 0.003])
def test_centers_follow_equation_4(make_net, loss_weight):
    """Whatever the loss weight; the class without items stays, and diffs add up."""
    net = center_net(make_net, (6, 3), more=f"loss_weight: {loss_weight}")
    x, labels = rng.normal(size=(6, 3)), [0, 2, 2, 1, 2, 0]
    fill(net, x, labels)
    centers = net.params["l"][0].data.astype(np.float64)
    expected = np.zeros((4, 3))
    for j in range(4):
        members = [x[i] for i in range(6) if labels[i] == j]
        expected[j] = sum((centers[j] - member for member in members), np.zeros(3)) / (1 + len(members))
    (features, _), (found,) = gradients(net, loss_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not found[3].any()
    np.testing.assert_allclose(features, loss_weight * (x - centers[labels]) / 6, rtol=1e-4, atol=1e-7)
    net.backward()
    np.testing.assert_allclose(net.params["l"][0].diff, 2 * expected, rtol=1e-5, atol=1e-6)


def test_centers_move_to_their_classes(make_solver):
    """The update of a center is its rate times the mean distance, up to the 1 in 1 + n: with fixed features it arrives."""
    net = """
        layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 }
                data_filler { value: 3 } data_filler { value: 1 } } }
        layer { name: "center" type: "CenterLoss" bottom: "x" bottom: "y" top: "loss" param { lr_mult: 2 decay_mult: 0 }
                center_loss_param { num_output: 3 } }"""
    solver = make_solver(net, "base_lr: 0.25 lr_policy: 'fixed' weight_decay: 1 max_iter: 60 display: 0")
    solver.step(1)
    np.testing.assert_allclose(solver.net.params["center"][0].data, [[0, 0], [1.2, 1.2], [0, 0]], rtol=1e-6)  # 0.5 * 4 * 3 / 5
    solver.step(59)
    np.testing.assert_allclose(solver.net.params["center"][0].data, [[0, 0], [3, 3], [0, 0]], rtol=1e-5)


@pytest.mark.parametrize("mode, divisor", [("VALID", 4), ("FULL", 6), ("BATCH_SIZE", 6), ("NONE", 1)])
def test_ignored_items_and_normalization(make_net, mode, divisor):
    net = center_net(make_net, (6, 3), more=f"loss_param {{ ignore_label: 255 normalization: {mode} }}")
    x, labels = rng.normal(size=(6, 3)), np.array([0, 255, 2, 1, 255, 0])
    loss = fill(net, x, labels)
    used = labels < 255
    centers = net.params["l"][0].data.astype(np.float64)
    np.testing.assert_allclose(loss, center_loss(x[used], labels[used], centers) * 4 / divisor, rtol=1e-5)
    (features, _), (found,) = gradients(net, 1)
    assert not features[~used].any() and features[used].all()
    np.testing.assert_allclose(found[2], (centers[2] - x[2]) / 2, rtol=1e-5)


class OneOfTwo:
    """What a rank sees of the group of two: sums, to which it adds what the other rank has given."""

    def __init__(self):
        self.given, self.others = [], None

    def total(self, tensor):
        self.given.append(tensor.clone())
        return tensor if self.others is None else tensor + self.others.pop(0)


def test_two_ranks_move_centers_as_one_process_does(make_net, monkeypatch):
    """The mean of their diffs is the whole batch's, of which each has half; one class has items in both halves."""
    x, labels = rng.normal(size=(6, 3)).astype(np.float32), np.array([0, 2, 2, 1, 2, 0])
    whole = center_net(make_net, (6, 3))
    fill(whole, x, labels)
    (features, _), (expected,) = gradients(whole, 1)
    halves, groups = [], [OneOfTwo(), OneOfTwo()]
    for _ in range(2):  # the second time, each knows what the other had
        halves.clear()
        for rank, group in enumerate(groups):
            part = slice(3 * rank, 3 * rank + 3)
            with monkeypatch.context() as patch:
                patch.setattr(parallel, "_current", group)
                patch.setattr(mode, "share", lambda rank=rank: Share(rank, 2, True))
                net = center_net(make_net, (3, 3))
                fill(net, x[part], labels[part], parameters=[whole.params["l"][0].data])
                halves.append(gradients(net, 1))
        groups[0].others, groups[1].others = list(groups[1].given), list(groups[0].given)
    np.testing.assert_allclose(np.mean([centers for _, (centers,) in halves], 0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([half[0][0] for half in halves]) / 2, features, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("arguments, error, message", [
    (dict(classes=0), NetError, r'layer "l" \(CenterLoss\): num_output, the number of classes, must be positive'),
    (dict(labels=(5,)), ShapeError, r'layer "l" \(CenterLoss\): 6 items need as many labels, got shape \(5,\)'),
    (dict(settings="axis: 3"), ShapeError, r'layer "l": axis 3 is out of range'),
])  # fmt: skip
def test_wrong_settings_of_center_loss(make_net, arguments, error, message):
    with pytest.raises(error, match=message):
        center_net(make_net, (6, 3), **arguments)


def test_a_label_without_a_center(make_net):
    net = center_net(make_net, (6, 3))
    with pytest.raises(NetError, match=r'layer "l" \(CenterLoss\): label 4 is outside 0 to 3'):
        fill(net, np.zeros((6, 3)), [0, 1, 2, 3, 4, 0])
    net.blobs["b0"].reshape(6, 4)
    with pytest.raises(ShapeError, match=r'layer "l" \(CenterLoss\): built for 3 features an item, got shape \(6, 4\)'):
        net.reshape()


# ---- MarginInnerProduct
def margin_net(make_net, shape, settings="type: QUADRUPLE", tops=1, classes=5, **arguments):
    layer = f"""type: "MarginInnerProduct" propagate_down: true propagate_down: false
        margin_inner_product_param {{ num_output: {classes} {settings} weight_filler {{ type: "gaussian" std: 1 }} }}"""
    return make_net(one_layer(layer, shape, (shape[0],), tops=tops), **arguments)


def a_softmax_scores(x, labels, weights, m, weight):
    """The paper's |x| cos(t), and for the label |x| (lambda cos(t) + psi(t)) / (1 + lambda), from the angles themselves."""
    x = x.reshape(len(x), -1)
    scores = np.empty((len(x), len(weights)))
    for i, row in enumerate(x):
        length = math.sqrt(row @ row)
        for j, w in enumerate(weights):
            cosine = row @ w / (length * math.sqrt(w @ w))
            scores[i, j] = length * cosine
            if j == labels[i]:
                angle = math.acos(max(-1.0, min(1.0, cosine)))
                k = min(int(angle / (math.pi / m)), m - 1)
                psi = (-1) ** k * math.cos(m * angle) - 2 * k
                scores[i, j] = length * (weight * cosine + psi) / (1 + weight)
    return scores


MARGINS = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4}


def vectors_at_all_angles(features=4):
    """(24 vectors at angles of 4 to 176 degrees to the first weight vector, away from the bounds of psi's pieces)."""
    first = np.zeros(features)
    first[0] = 1
    x = []
    for index in range(24):
        angle, other = math.radians(4 + index * 172 / 23), rng.normal(size=features)
        other[0] = 0
        x.append(rng.uniform(0.5, 3) * (math.cos(angle) * first + math.sin(angle) * other / np.linalg.norm(other)))
    return np.array(x)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("base", [0, 3])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_margin_and_gradients(make_net, margin, base, phase):
    m, x = MARGINS[margin], vectors_at_all_angles()
    weights = rng.normal(size=(5, 4))
    weights[0] = [2, 0, 0, 0]
    labels = np.where(np.arange(24) % 3 < 2, 0, rng.integers(1, 5, 24)).astype(np.float64)
    net = margin_net(make_net, x.shape, f"type: {margin} base: {base}", phase=phase)
    if phase == caffe.TRAIN:  # each forward brings the rows to length 1
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)

    def reference(x, labels, weights):
        return a_softmax_scores(x, labels, weights, m, base)

    check_layer(net, reference, [x, labels], [weights], checked=[0, 2])


def test_the_function_falls_from_angle_to_angle(make_net):
    """psi has no jumps and only falls, from 1 to 1 - 2m; between the bounds m times as fast as the cosine."""
    degrees = np.arange(0.0, 180.1, 0.5)
    x = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)
    for margin, m in MARGINS.items():
        net = margin_net(make_net, x.shape, f"type: {margin} base: 0", classes=2)
        scores = fill(net, x, np.zeros(len(x)), parameters=[[[7, 0], [0, 1]]])[:, 0]
        assert np.all(np.diff(scores) < 0) and np.abs(np.diff(scores)).max() < 0.0101 * m
        assert scores[0] == pytest.approx(1) and scores[-1] == pytest.approx(1 - 2 * m, abs=1e-5)


def test_rows_are_brought_to_length_1_in_training_only(make_net):
    for phase in (caffe.TRAIN, caffe.TEST):
        net = margin_net(make_net, (2, 3), phase=phase)
        before = net.params["l"][0].data.copy()
        fill(net, rng.normal(size=(2, 3)), [0, 1])
        after = net.params["l"][0].data
        assert before.shape == (5, 3) and not np.allclose((before**2).sum(1), 1)
        lengths = np.sqrt((before**2).sum(1, keepdims=True))
        np.testing.assert_allclose(after, before / lengths if phase == caffe.TRAIN else before, rtol=1e-5)


def test_two_layers_may_share_their_weights(make_solver):
    """As in a siamese net; the diff is the sum of both."""
    net = """
        layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 }
                data_filler { type: "gaussian" } data_filler { value: 1 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
        """ + "".join(f"""
        layer {{ name: "{name}" type: "MarginInnerProduct" bottom: "{bottom}" bottom: "y" top: "{name}" param {{ name: "w" }}
                margin_inner_product_param {{ num_output: 2 type: DOUBLE weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss{name}" type: "SoftmaxWithLoss" bottom: "{name}" bottom: "y" top: "loss{name}" }}"""
        for name, bottom in (("one", "x"), ("two", "ip")))  # fmt: skip
    solver = make_solver(net, "base_lr: 0.1 lr_policy: 'fixed' max_iter: 3 display: 0 random_seed: 1")
    before = solver.net.params["one"][0].data.copy()
    solver.step(3)
    np.testing.assert_array_equal(solver.net.params["one"][0].data, solver.net.params["two"][0].data)
    assert not np.allclose(before, solver.net.params["one"][0].data)


def test_zero_vectors_are_finite(make_net):
    net = margin_net(make_net, (2, 3))
    assert not fill(net, np.zeros((2, 3)), [0, 1], parameters=[np.zeros((5, 3))]).any()
    (features, _), (weights,) = gradients(net, 1)
    assert np.isfinite(features).all() and np.isfinite(weights).all()


def test_lambda(make_net):
    """max(lambda_min, base (1 + gamma n)^-power), n counted in training from `iteration` on."""
    settings = "type: QUADRUPLE base: 1000 gamma: 0.5 power: 2 lambda_min: 9 iteration: 2"
    net = margin_net(make_net, (3, 4), settings, tops=2)
    x, labels = rng.normal(size=(3, 4)), [0, 4, 2]
    for n in range(3, 23):
        scores, found = fill(net, x, labels)
        weight = max(9, 1000 * (1 + 0.5 * n) ** -2)
        assert found.shape == (1,) and found[0] == pytest.approx(weight)
        np.testing.assert_allclose(scores, a_softmax_scores(x, labels, net.params["l"][0].data, 4, weight), rtol=1e-4, atol=1e-5)
    assert found[0] == 9
    net = margin_net(make_net, (3, 4), settings, tops=2, phase=caffe.TEST)
    assert [fill(net, x, labels)[1][0] for _ in range(2)] == [250, 250]


def test_features_from_an_axis_on(make_net):
    x = rng.normal(size=(2, 3, 2, 2))
    net = margin_net(make_net, x.shape, "type: TRIPLE")
    found = fill(net, x, [1, 0])
    np.testing.assert_allclose(found, a_softmax_scores(x, [1, 0], net.params["l"][0].data, 3, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings, message", [
    ("base: -1", "base is 0 or more, not -1"), ("gamma: -0.5", "gamma is 0 or more, not -0.5"),
    ("iteration: -2", "iteration is 0 or more, not -2"), ("lambda_min: -5", "lambda_min is 0 or more, not -5"),
])  # fmt: skip
def test_wrong_settings_of_margin_inner_product(make_net, settings, message):
    with pytest.raises(NetError, match=rf'layer "l" \(MarginInnerProduct\): {message}'):
        margin_net(make_net, (2, 3), settings)


def test_wrong_shapes_and_labels_of_margin_inner_product(make_net):
    with pytest.raises(NetError, match=r'layer "l" \(MarginInnerProduct\): num_output, the number of classes, must be positive'):
        margin_net(make_net, (2, 3), classes=0)
    inside = r'\(in layer "l", margin_inner_product_param\)'
    with pytest.raises(PrototxtError, match=f"MarginType has no value FIVEFOLD; it has SINGLE, DOUBLE, TRIPLE, QUADRUPLE {inside}"):
        margin_net(make_net, (2, 3), "type: FIVEFOLD")
    net = margin_net(make_net, (2, 3))
    with pytest.raises(NetError, match=r'layer "l" \(MarginInnerProduct\): label 5 is outside 0 to 4'):
        fill(net, np.ones((2, 3)), [0, 5])
    net.blobs["b0"].reshape(2, 4)
    with pytest.raises(ShapeError, match=r'layer "l" \(MarginInnerProduct\): built for 3 features an item, got shape \(2, 4\)'):
        net.reshape()
    net.blobs["b0"].reshape(3, 3)
    with pytest.raises(ShapeError, match=r'layer "l" \(MarginInnerProduct\): 3 items need as many labels, got shape \(2,\)'):
        net.reshape()
