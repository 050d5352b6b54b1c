"""One comparison of the two engines: a layer, its bottoms and how it is run. Plain Python 3.9, for both engines.

A case becomes a net of Input blobs b0, b1, ... and the layer "l" with tops y0, y1, ... Numbers come from a numpy
RandomState, so that both engines compute on the same ones.
"""

import numpy as np  # noqa: E402


class Case:
    """A layer type with one setting.

    Args:
        type, layer: the layer's type, and what else its definition holds (prototxt; `{folder}` is replaced).
        bottoms: one (shape, kind) a bottom; `values` lists the kinds.
        tops: number of tops (named y0, y1, ...), or their names; "in-place" writes into b0.
        weights: loss weight of each top, so that gradients start there; None: the layer's own.
        backward: also compare gradients.
        force: force_backward; without it, `learn` puts a Bias layer with learned numbers under b0.
        second: shapes of the bottoms in the second pass (default: as in the first).
        passes: how often forward and backward run, without clearing parameter gradients in between.
        parameters: kind of the values that the parameters get, or None to keep what the fillers drew.
        arrays: (data shape, labels shape) for Net.set_input_arrays.
    """

    def __init__(
        self,
        type,
        layer="",
        bottoms=(((2, 3, 4, 5), "normal"),),
        tops=1,
        weights=1,
        backward=True,
        force=True,
        learn=False,
        phase="TRAIN",
        second=None,
        passes=2,
        parameters="normal",
        arrays=None,
        before="",
    ):
        self.type, self.layer, self.bottoms = type, layer, list(bottoms)
        self.in_place = tops == "in-place"
        self.tops = ["b0"] if self.in_place else tops if isinstance(tops, list) else ["y%d" % i for i in range(tops)]
        self.weights = [weights] * len(self.tops) if isinstance(weights, (int, float)) else weights
        self.backward, self.force, self.learn, self.phase = backward, force, learn, phase
        self.second, self.passes, self.parameters, self.arrays, self.before = second, passes, parameters, arrays, before

    def text(self, **replaced):
        """The net's prototxt; `replaced`: what stands for {folder} and the like."""
        parts = ["force_backward: true"] if self.force and self.backward else []
        for index, (shape, _) in enumerate(self.bottoms):
            dims = " ".join("dim: %d" % size for size in shape)
            parts.append(
                'layer { name: "b%d" type: "Input" top: "b%d" input_param { shape { %s } } }' % (index, index, dims)
            )
        parts.append(self.before)
        bottoms = ["b%d" % index for index in range(len(self.bottoms))]
        if self.learn:
            parts.append(
                'layer { name: "learn" type: "Bias" bottom: "b0" top: "p0" bias_param { axis: 0 num_axes: -1 } }'
            )
            bottoms[0] = "p0"
        lines = ['bottom: "%s"' % name for name in bottoms] + ['top: "%s"' % name for name in self.tops]
        if self.weights is not None and self.backward:
            lines += ["loss_weight: %g" % weight for weight in self.weights]
        layer = self.layer
        for name, value in replaced.items():
            layer = layer.replace("{%s}" % name, str(value))
        parts.append('layer { name: "l" type: "%s" %s %s }' % (self.type, " ".join(lines), layer))
        return "\n".join(parts) + "\n"


def values(kind, shape, random):
    """float32 array of `shape`.

    Kinds: normal, small (0.3 of it), positive (0.1 and more), large (most beyond +-20), ties (whole numbers -2..2, many equal), halves,
    unit (0..1), rows (positive, each row of axis 1 sums to 1), bits (0 or 1, the first 1), labels:K (whole numbers
    0..K-1), fractions:K (the same plus a fraction, which the engines cut off), ignored:K (labels, a third of them 255),
    special (normal with not-a-number and infinities), holes (the same without -infinity), zero.
    """
    shape = tuple(shape)
    name, _, number = kind.partition(":")
    if name in ("labels", "fractions", "ignored"):
        array = random.randint(0, int(number), shape).astype(np.float32)
        if name == "fractions":
            array = array + random.randint(0, 4, shape).astype(np.float32) / 4
        if name == "ignored":
            array = np.where(random.rand(*shape) < 1 / 3, 255, array)
        return np.asarray(array, np.float32)
    array = np.asarray(random.normal(size=shape))
    if name in ("special", "holes"):
        flat = array.reshape(-1)
        for value in (np.nan, np.inf, -np.inf)[: 3 if name == "special" else 2]:
            flat[random.randint(0, flat.size, max(1, flat.size // 4))] = value
    elif name == "rows":
        array = np.abs(array) + 0.01
        array = array / array.sum(1, keepdims=True)
    else:
        array = {
            "normal": lambda x: x,
            "small": lambda x: 0.3 * x,
            "positive": lambda x: np.abs(x) + 0.1,
            "large": lambda x: 40 * x,
            "huge": lambda x: 1e12 * x,
            "ties": lambda x: np.clip(np.round(x), -2, 2),
            "halves": lambda x: np.round(2 * x) / 2,
            "unit": lambda x: 1 / (1 + np.exp(-x)),
            "bits": lambda x: (x > 0) | (np.arange(x.size).reshape(x.shape) == 0),
            "zero": lambda x: 0 * x,
        }[name](array)
    return np.asarray(array, np.float32)


class Abort:
    """A net that Caffe stops the process for (or cannot build): `message` is what torchcaffe's exception says."""

    def __init__(self, type, layer, bottoms, message, tops=1, run=False, **settings):
        self.case = Case(type, layer, [(shape, "normal") for shape in bottoms], tops, **settings)
        self.type, self.message, self.run = type, message, run
