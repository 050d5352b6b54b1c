"""LSTM, RNN and LSTMUnit against numpy written out, step by step; their state over forwards, reshapes and snapshots."""

import json

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.core.errors import NetError, ShapeError

rng = np.random.default_rng(0)
T, N, INPUTS, STATIC, UNITS = 5, 3, 4, 2, 6
CONT = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]], np.float32)


def text(kind, static=False, exposed=False, steps=T, streams=N):
    shapes = [(steps, streams, INPUTS), (steps, streams)] + [(streams, STATIC)] * static
    tops = ["y"]
    if exposed:
        states = 2 if kind == "LSTM" else 1
        shapes += [(1, streams, UNITS)] * states
        tops += ["h", "c"][:states]
    inputs = [
        f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {" ".join(f"dim: {d}" for d in shape)} }} }} }}'
        for i, shape in enumerate(shapes)
    ]
    blobs = "".join(f'bottom: "b{i}" ' for i in range(len(shapes))) + "".join(f'top: "{name}" ' for name in tops)
    layer = f'layer {{ name: "l" type: "{kind}" {blobs} recurrent_param {{ num_output: {UNITS} expose_hidden: {str(exposed).lower()} }} }}'
    return "force_backward: true\n" + "\n".join([*inputs, layer])


def fill(net):
    for blob in net.blobs.values():
        blob.data[...] = rng.normal(size=blob.data.shape)
    for blob in net.params["l"]:
        blob.data[...] = 0.5 * rng.normal(size=blob.data.shape)
    net.blobs["b1"].data[...] = CONT


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, cont, static, parameters, h, c):
    """y, h and c of the equations, one stream and step at a time. Gates in the order input, forget, output, new."""
    w, b, *more = [np.float64(blob.data) for blob in parameters]
    outputs = np.zeros((len(x), x.shape[1], UNITS))
    h, c = h.copy(), c.copy()
    for t in range(len(x)):
        for n in range(x.shape[1]):
            sums = w @ x[t, n] + b + more[-1] @ (cont[t, n] * h[n])
            if static is not None:
                sums = sums + more[0] @ static[n]
            enter, forget, leave, new = sums.reshape(4, UNITS)
            c[n] = sigmoid(enter) * np.tanh(new) + (sigmoid(forget) * c[n] if cont[t, n] else 0)
            h[n] = outputs[t, n] = sigmoid(leave) * np.tanh(c[n])
    return outputs, h, c


def rnn(x, cont, static, parameters, h, _):
    w, b, *more, w_hh, w_ho, b_o = [np.float64(blob.data) for blob in parameters]
    outputs, h = np.zeros((len(x), x.shape[1], UNITS)), h.copy()
    for t in range(len(x)):
        for n in range(x.shape[1]):
            sums = w @ x[t, n] + b + w_hh @ (cont[t, n] * h[n])
            if static is not None:
                sums = sums + more[0] @ static[n]
            h[n] = np.tanh(sums)
            outputs[t, n] = np.tanh(w_ho @ h[n] + b_o)
    return outputs, h, None


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind, reference", [("LSTM", lstm), ("RNN", rnn)])
def test_the_state_goes_on_from_forward_to_forward(make_net, kind, reference, static):
    net = make_net(text(kind, static))
    fill(net)
    h, c = np.zeros((N, UNITS)), np.zeros((N, UNITS))
    for _ in range(3):
        net.blobs["b0"].data[...] = rng.normal(size=(T, N, INPUTS))
        net.forward()
        given = net.blobs["b2"].data if static else None
        y, h, c = reference(net.blobs["b0"].data, CONT, given, net.params["l"], h, c)
        np.testing.assert_allclose(net.blobs["y"].data, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind, reference", [("LSTM", lstm), ("RNN", rnn)])
def test_an_exposed_state_is_given_and_left(make_net, kind, reference):
    net = make_net(text(kind, static=True, exposed=True))
    fill(net)
    for _ in range(2):  # the second forward begins with what is given, too
        net.forward()
        h, c = net.blobs["b3"].data[0], net.blobs["b4"].data[0] if kind == "LSTM" else None
        c = c if c is not None else h
        blobs = net.blobs
        y, h, c = reference(blobs["b0"].data, CONT, blobs["b2"].data, net.params["l"], np.float64(h), np.float64(c))
        np.testing.assert_allclose(blobs["y"].data, y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(blobs["h"].data[0], h, rtol=1e-4, atol=1e-5)
        if kind == "LSTM":
            np.testing.assert_allclose(blobs["c"].data[0], c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_gradients_equal_differences(make_net, kind):
    net = make_net(text(kind, static=True, exposed=True))
    fill(net)
    weight = rng.normal(size=(T, N, UNITS))
    net.forward()
    net.blobs["y"].diff[...] = weight
    net.backward()
    live = [net.blobs["b0"], net.blobs["b2"], *net.params["l"]]
    found = [blob.diff.copy() for blob in live]
    for blob, gradient in zip(live, found):
        for place in rng.permutation(blob.data.size)[:8]:
            values = []
            for change in (1e-2, -1e-2):
                blob.data.reshape(-1)[place] += change
                values.append((net.forward()["y"].astype(np.float64) * weight).sum())
                blob.data.reshape(-1)[place] -= change
            assert gradient.reshape(-1)[place] == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2, abs=2e-2)


def test_cont_may_weigh_the_state_and_its_gradient_is_true(make_net):
    """A cont between 0 and 1, whose gradient Caffe gets wrong."""
    shapes = [(1, N, UNITS), (1, N, 4 * UNITS), (1, N)]
    net = make_net(
        "force_backward: true\n"
        + "\n".join(
            f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {" ".join(f"dim: {d}" for d in s)} }} }} }}'
            for i, s in enumerate(shapes)
        )
        + 'layer { name: "l" type: "LSTMUnit" bottom: "b0" bottom: "b1" bottom: "b2" top: "c" top: "h" }'
    )
    for index, shape in enumerate(shapes):
        net.blobs[f"b{index}"].data[...] = rng.uniform(0.2, 0.8, shape)
    net.forward()
    net.blobs["h"].diff[...] = 1
    net.blobs["c"].diff[...] = 0
    net.backward()
    gradient, sums = net.blobs["b1"].diff.copy(), net.blobs["b1"].data
    for place in range(UNITS, 2 * UNITS):  # the forget gate's
        values = []
        for change in (1e-2, -1e-2):
            sums[0, 1, place] += change
            values.append(net.forward()["h"].astype(np.float64).sum())
            sums[0, 1, place] -= change
        assert gradient[0, 1, place] == pytest.approx((values[0] - values[1]) / 2e-2, rel=1e-2, abs=1e-4)


def test_the_number_of_steps_stays(make_net):
    net = make_net(text("LSTM"))
    net.blobs["b0"].reshape(T + 1, N, INPUTS)
    net.blobs["b1"].reshape(T + 1, N)
    with pytest.raises(ShapeError, match=f'"l" .LSTM.: built for {T} time steps, got {T + 1}'):
        net.reshape()


def test_cont_has_no_gradient(make_net):
    bias = 'layer { name: "b" type: "Bias" bottom: "b1" top: "going" bias_param { axis: 0 num_axes: -1 } }'
    made = text("LSTM").replace('layer { name: "l"', bias + '\nlayer { loss_weight: 1 name: "l"')
    net = make_net(made.replace('bottom: "b0" bottom: "b1"', 'bottom: "b0" bottom: "going"'))
    net.forward()
    with pytest.raises(NetError, match='no gradient for its bottom "going"'):
        net.backward()


SOLVED = """
layer { name: "x" type: "DummyData" top: "x" top: "cont" top: "label"
  dummy_data_param { data_filler { type: "uniform" } data_filler { value: 1 } data_filler { value: 0.3 }
    shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } shape { dim: 3 dim: 2 dim: 5 } } }
layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "y"
  recurrent_param { num_output: 5 weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "label" top: "loss" }
"""


def test_a_snapshot_keeps_the_state(tmp_path):
    (tmp_path / "net.prototxt").write_text(SOLVED)
    (tmp_path / "solver.prototxt").write_text(
        f'train_net: "{tmp_path}/net.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 9 random_seed: 3 '
        f'snapshot_prefix: "{tmp_path}/s" '
    )

    def solver():
        return caffe.get_solver(str(tmp_path / "solver.prototxt"))

    whole = solver()
    whole.step(3)
    whole.snapshot()
    record = json.loads((tmp_path / "s_iter_3.json").read_text())
    assert np.shape(record["layers"]["l"]["hidden"]) == (2, 1, 2, 5)
    whole.step(3)
    again = solver()
    again.restore(str(tmp_path / "s_iter_3.solverstate"))
    again.step(3)
    for ours, theirs in zip(again.net.params["l"], whole.net.params["l"]):
        np.testing.assert_array_equal(ours.data, theirs.data)
    del record["layers"]["l"]["hidden"][1]
    (tmp_path / "s_iter_3.json").write_text(json.dumps(record))
    with pytest.raises(caffe.errors.SolverError, match="s_iter_3.json: does not fit this net .*hidden state is 2 times"):
        solver().restore(str(tmp_path / "s_iter_3.solverstate"))
