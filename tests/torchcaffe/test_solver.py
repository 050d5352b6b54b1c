"""Update rules against Caffe's arithmetic written out in numpy; scheduling, snapshots, shared weights."""

import math

import numpy as np
import pytest

from torchcaffe.solvers import policies
from torchcaffe.core.errors import SolverError, WeightsError

# A linear regression whose data changes at every iteration: DummyData refills non-constant blobs.
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 4 dim: 5 } shape { dim: 4 dim: 3 } data_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "ip" bottom: "target" top: "loss" }
"""
SETTINGS = "base_lr: 0.5 random_seed: 7 lr_policy: 'step' gamma: 0.1 stepsize: 3 max_iter: 20 weight_decay: 0.01\n"


def gradients(weight, bias, data, target):
    p = 1 / (1 + np.exp(-(data @ weight.T + bias)))
    d = (p - target) / len(data)
    return d.T @ data, d.sum(0)


def numpy_training(solver, iterations, rule, momentum, iter_size=1, clip=None, decay=0.01, regularization="L2"):
    """Caffe's iteration in float64, on the batches that the solver's own generator will draw."""
    from torchcaffe.core.rng import Generator

    shadow = Generator(0)
    shadow.load_state_dict(solver.net.layers[0].context.generator.state_dict())
    w = [solver.net.params["ip"][i].data.astype(np.float64).copy() for i in (0, 1)]
    states = [[np.zeros_like(x) for _ in range(2)] for x in w]
    for t in range(iterations):
        total = [np.zeros_like(x) for x in w]
        for _ in range(iter_size):
            data = shadow.uniform(-1, 1, (4, 5)).astype(np.float64)
            target = shadow.uniform(-1, 1, (4, 3)).astype(np.float64)
            total = [a + b for a, b in zip(total, gradients(*w, data, target))]
        if clip is not None:
            norm = math.sqrt(sum((g**2).sum() for g in total))
            total = [g * min(1.0, clip / norm) for g in total]
        rate = 0.5 * 0.1 ** (t // 3)
        for i, (lr_mult, decay_mult) in enumerate(((1, 1), (2, 0))):
            g = total[i] / iter_size
            g = g + decay * decay_mult * (w[i] if regularization == "L2" else np.sign(w[i]))
            w[i] = w[i] - rule(g, states[i], rate * lr_mult, momentum, t)
    return w


def sgd(g, h, r, m, t):
    h[0] = m * h[0] + r * g
    return h[0]


def nesterov(g, h, r, m, t):
    old, h[0] = h[0], m * h[0] + r * g
    return (1 + m) * h[0] - m * old


def adagrad(g, h, r, m, t):
    h[0] = h[0] + g * g
    return r * g / (np.sqrt(h[0]) + 1e-8)


def rmsprop(g, h, r, m, t):
    h[0] = 0.98 * h[0] + 0.02 * g * g
    return r * g / (np.sqrt(h[0]) + 1e-8)


def adadelta(g, h, r, m, t):
    h[0] = m * h[0] + (1 - m) * g * g
    q = g * np.sqrt((h[1] + 1e-8) / (h[0] + 1e-8))
    h[1] = m * h[1] + (1 - m) * q * q
    return r * q


def adam(g, h, r, m, t):
    h[0] = m * h[0] + (1 - m) * g
    h[1] = 0.999 * h[1] + 0.001 * g * g
    return r * math.sqrt(1 - 0.999 ** (t + 1)) / (1 - m ** (t + 1)) * h[0] / (np.sqrt(h[1]) + 1e-8)


@pytest.mark.parametrize("iterations", [1, 10])
@pytest.mark.parametrize(
    "type_name, rule, momentum",
    [
        ("SGD", sgd, 0.0),
        ("SGD", sgd, 0.9),
        ("Nesterov", nesterov, 0.9),
        ("AdaGrad", adagrad, 0.0),
        ("RMSProp", rmsprop, 0.0),
        ("AdaDelta", adadelta, 0.9),
        ("Adam", adam, 0.9),
    ],
)
def test_update_rules_equal_numpy(make_solver, type_name, rule, momentum, iterations):
    extra = f"type: '{type_name}' momentum: {momentum}" + (" rms_decay: 0.98" if type_name == "RMSProp" else "")
    solver = make_solver(NET, SETTINGS + extra)
    expected = numpy_training(solver, iterations, rule, momentum)
    solver.step(iterations)
    assert solver.iter == iterations
    for index in (0, 1):
        np.testing.assert_allclose(solver.net.params["ip"][index].data, expected[index], rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(
    "extra, arguments",
    [
        ("iter_size: 3", {"iter_size": 3}),
        ("clip_gradients: 0.05", {"clip": 0.05}),
        ("regularization_type: 'L1'", {"regularization": "L1"}),
        ("iter_size: 2 clip_gradients: 0.3", {"iter_size": 2, "clip": 0.3}),
    ],
)
def test_gradient_processing_equals_numpy(make_solver, extra, arguments):
    solver = make_solver(NET, SETTINGS + "momentum: 0.9 " + extra)
    expected = numpy_training(solver, 7, sgd, 0.9, **arguments)
    solver.step(7)
    for index in (0, 1):
        np.testing.assert_allclose(solver.net.params["ip"][index].data, expected[index], rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("lr_policy: 'fixed'", lambda i: 0.2),
        ("lr_policy: 'step' gamma: 0.5 stepsize: 4", lambda i: 0.2 * 0.5 ** (i // 4)),
        ("lr_policy: 'exp' gamma: 0.9", lambda i: 0.2 * 0.9**i),
        ("lr_policy: 'inv' gamma: 0.1 power: 0.75", lambda i: 0.2 * (1 + 0.1 * i) ** -0.75),
        ("lr_policy: 'multistep' gamma: 0.1 stepvalue: 3 stepvalue: 6", lambda i: 0.2 * 0.1 ** ((i >= 3) + (i >= 6))),
        ("lr_policy: 'poly' power: 2", lambda i: 0.2 * (1 - i / 10) ** 2),
        ("lr_policy: 'sigmoid' gamma: 0.5 stepsize: 5", lambda i: 0.2 / (1 + math.exp(-0.5 * (i - 5)))),
    ],
)
def test_learning_rate_policies(make_solver, text, expected):
    solver = make_solver(NET, "base_lr: 0.2 max_iter: 10 " + text)
    for iteration in range(10):
        assert solver.lr == pytest.approx(expected(iteration), rel=1e-6), iteration
        solver.step(1)


@pytest.mark.parametrize("base, exponent, expected", [
    (5.1, 500_000, math.inf), (-3.0, 999, -math.inf), (-3.0, 1000, math.inf), (0.0, -0.5, math.inf), (-0.5, 0.5, math.nan)])
def test_powers_beyond_all_numbers_are_cs(base, exponent, expected):
    """By numpy, which asks C's pow as Caffe does: a policy must not end the training where Caffe goes on."""
    with np.errstate(all="ignore"):
        np.testing.assert_equal(float(np.power(np.float64(base), np.float64(exponent))), expected)
    np.testing.assert_equal(policies._power(base, exponent), expected)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_restore_goes_on_as_if_never_stopped(make_solver, form):
    constant = NET.replace('type: "uniform" min: -1 max: 1', 'type: "constant" value: 0.5')
    text = SETTINGS + f"momentum: 0.9 snapshot_format: {form} snapshot: 5 display: 0"
    whole = make_solver(constant, text)
    whole.step(10)
    first = make_solver(constant, text)
    first.step(5)
    suffix = ".h5" if form == "HDF5" else ""
    second = make_solver(constant, text.replace("random_seed: 7", "random_seed: 8"))
    second.restore(f"{first.proto.snapshot_prefix}_iter_5.solverstate{suffix}")
    assert second.iter == 5
    second.step(5)
    np.testing.assert_array_equal(second.net.params["ip"][0].data, whole.net.params["ip"][0].data)


def test_restore_refuses_another_solver_type(make_solver):
    first = make_solver(NET, SETTINGS + "snapshot: 1")
    first.step(1)
    other = make_solver(NET, SETTINGS + "type: 'Adam' momentum: 0.9")
    with pytest.raises(WeightsError, match="2 history blobs, this Adam solver needs 4"):
        other.restore(f"{first.proto.snapshot_prefix}_iter_1.solverstate")


def test_solve_takes_one_final_snapshot(make_solver, tmp_path):
    solver = make_solver(NET, SETTINGS.replace("max_iter: 20", "max_iter: 5") + "snapshot: 2")
    solver.solve()
    found = sorted(path.name.split("_iter_")[1] for path in tmp_path.glob("snapshot0_iter_*"))
    assert found == [f"{n}.{kind}" for n in (2, 4, 5) for kind in ("caffemodel", "json", "solverstate")]


def test_test_net_shares_weights_and_is_logged(make_solver, capfd, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    solver = make_solver(NET, SETTINGS + "test_iter: 3 test_interval: 2 test_compute_loss: true display: 1")
    solver.step(3)
    np.testing.assert_array_equal(solver.test_nets[0].params["ip"][0].data, solver.net.params["ip"][0].data)
    log = capfd.readouterr().err
    for line in ("Iteration 0, Testing net (#0)", "Test loss: ", "    Test net output #0: loss = ", "Iteration 2, lr = 0.5"):
        assert line in log


def test_average_loss_is_a_moving_mean(make_solver):
    plain, smooth = make_solver(NET, SETTINGS), None
    losses = []
    for _ in range(6):
        plain.step(1)
        losses.append(float(plain.net.blobs["loss"].data))
    for count in (2, 6):
        smooth = make_solver(NET, SETTINGS + "average_loss: 3")
        smooth.step(count)
        assert smooth.smoothed_loss == pytest.approx(np.mean(losses[max(0, count - 3) : count]), rel=1e-5)


def test_settings_that_cannot_work_are_named(make_solver):
    with pytest.raises(SolverError, match=r'unknown lr_policy "steps"; did you mean step\?'):
        make_solver(NET, "base_lr: 1 lr_policy: 'steps'")
    with pytest.raises(SolverError, match="AdaGrad works without momentum"):
        make_solver(NET, "type: 'AdaGrad' base_lr: 1 lr_policy: 'fixed' momentum: 0.9")
    with pytest.raises(SolverError, match="exactly one of net"):
        make_solver(NET, "base_lr: 1 lr_policy: 'fixed' train_net: 'x'")
    with pytest.raises(SolverError, match="test_interval must be positive"):
        make_solver(NET, "base_lr: 1 lr_policy: 'fixed' test_iter: 1")


def test_the_first_layer_whose_weights_are_not_finite_is_named(make_solver):
    net = NET.replace('name: "loss"', """name: "more" type: "InnerProduct" bottom: "ip" top: "more"
      inner_product_param { num_output: 3 } }
    layer { name: "loss" """).replace('bottom: "ip" bottom: "target"', 'bottom: "more" bottom: "target"')
    solver = make_solver(net, SETTINGS)
    assert solver.not_finite == ""
    solver.net.params["more"][1].data[2] = np.inf
    assert solver.not_finite == "more"
    solver.net.params["ip"][0].data[1, 3] = np.nan
    assert solver.not_finite == "ip"
    weights = solver.net.params["ip"][0]
    weights.data[...] = np.finfo(np.float32).max  # whose sum is infinite
    solver.net.params["more"][1].data[2] = 0
    assert solver.not_finite == ""


def test_callbacks_run_before_and_between(make_solver):
    solver, seen = make_solver(NET, SETTINGS), []
    solver.add_callback(lambda: seen.append(("start", solver.iter)), lambda: seen.append(("gradients", solver.iter)))
    solver.step(2)
    assert seen == [("start", 0), ("gradients", 0), ("start", 1), ("gradients", 1)]


@pytest.mark.parametrize("watched, with_callbacks", [(True, False), (True, True), (False, False)])
def test_gradient_norms_are_those_of_the_last_iteration(make_solver, watched, with_callbacks):
    plain = make_solver(NET, SETTINGS.replace("0.01\n", "0\n"))
    plain.step(1)  # without decay and momentum the diffs are the gradients times the rates
    update = plain.net.params["ip"]
    expected = math.hypot(np.linalg.norm(update[0].diff / 0.5), np.linalg.norm(update[1].diff / (0.5 * 2)))
    solver = make_solver(NET, SETTINGS)
    solver.watch_gradients, solver.keep_diffs = watched, False
    if with_callbacks:
        solver.add_callback(lambda: None, lambda: None)
    solver.step(1)
    assert solver.gradient_norms == ({"ip": pytest.approx(expected, rel=1e-5)} if watched else {})
