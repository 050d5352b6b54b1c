"""One layer in a net, and its gradients by central differences of a sum in double precision."""

import numpy as np


def one_layer(layer, *shapes, tops=1, names=None):
    """Prototxt of Input blobs b0, b1 … that feed the layer "l" with tops y0, y1 …; `layer` is its type and settings."""
    inputs = "".join(
        f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {"".join(f"dim: {d} " for d in shape)} }} }} }}\n'
        for i, shape in enumerate(shapes)
    )
    bottoms = "".join(f'bottom: "b{i}" ' for i in range(len(shapes)))
    outputs = "".join(f'top: "y{i}" ' for i in range(tops))
    return f'force_backward: true\n{inputs}layer {{ name: "l" {bottoms}{outputs}{layer} }}\n'


def fill(net, *arrays, parameters=()):
    """Put arrays into b0, b1 … and into the parameters of "l", run forward; the tops y0, y1 … as copies."""
    for index, array in enumerate(arrays):
        net.blobs[f"b{index}"].data[...] = array
    for blob, values in zip(net.params.get("l", []), parameters):
        blob.data[...] = np.reshape(values, blob.data.shape)
    net.forward()
    tops = [net.blobs[name].data.copy() for name in net.blobs if name.startswith("y")]
    return tops[0] if len(tops) == 1 else tops


def gradients(net, weight):
    """(diffs of the bottoms, diffs of the parameters) of "l" where the loss is the sum of weight * y0."""
    net.clear_param_diffs()
    net.blobs["y0"].diff[...] = weight
    net.backward()
    bottoms = [net.blobs[name].diff.copy() for name in net.blobs if name.startswith("b")]
    return bottoms, [blob.diff.copy() for blob in net.params.get("l", [])]


def numeric_gradient(function, array, step=1e-6):
    """Gradient of function() (float64), which reads `array` (float64), at each place of it, by central differences."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        kept = array[index]
        values = []
        for change in (step, -step):
            array[index] = kept + change
            values.append(function())
        array[index] = kept
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


def check_layer(net, reference, arrays, parameters=(), checked=None, rtol=1e-4, atol=1e-5):
    """The layer gives what `reference(*arrays, *parameters)` (numpy, float64) gives, and the gradients that follow from it.

    `checked`: the positions among arrays and parameters whose gradients are compared; all where left out.
    """
    doubles = [np.array(array, np.float64) for array in (*arrays, *parameters)]
    expected = reference(*doubles)
    found = fill(net, *arrays, parameters=parameters)
    np.testing.assert_allclose(found[0] if isinstance(found, list) else found, expected, rtol=rtol, atol=atol)
    weight = np.random.default_rng(7).normal(size=np.shape(expected))
    if net.blob_loss_weights["y0"]:
        weight = np.full(np.shape(expected), net.blob_loss_weights["y0"])
    bottoms, parameter_diffs = gradients(net, weight)
    for position, diff in enumerate([*bottoms, *parameter_diffs]):
        if checked is None or position in checked:
            numeric = numeric_gradient(lambda: float((reference(*doubles) * weight).sum()), doubles[position])
            np.testing.assert_allclose(
                diff, numeric.reshape(diff.shape), rtol=1e-3, atol=1e-4, err_msg=f"blob {position}"
            )
