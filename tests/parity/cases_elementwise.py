"""Neuron layers, Bias and Scale, InnerProduct and Embed, normalization."""

from case import Abort, Case

X = [((2, 3, 4, 5), "normal")]
TIES = [((2, 3, 4, 5), "ties")]
POSITIVE = [((2, 3, 4, 5), "positive")]
LARGE = [((2, 3, 4, 5), "large")]
SMALLER, LARGER = [(1, 3, 2, 5)], [(3, 3, 5, 6)]


def neurons():
    for tops in (1, "in-place"):
        for bottoms in (X, TIES):
            yield Case("ReLU", "", bottoms, tops, second=SMALLER)
            yield Case("ReLU", "relu_param { negative_slope: 0.1 }", bottoms, tops)
            yield Case("ReLU", "relu_param { negative_slope: -0.5 }", bottoms)
            yield Case("PReLU", "", bottoms, tops, parameters=None)
            yield Case("PReLU", "", bottoms, tops)
            yield Case("PReLU", "prelu_param { channel_shared: true filler { value: 0.3 } }", bottoms, tops)
            yield Case("ELU", "", bottoms, tops)
            yield Case("ELU", "elu_param { alpha: 0.3 }", bottoms, tops)
            yield Case("Clip", "clip_param { min: -1 max: 1 }", bottoms, tops)
            yield Case("Swish", "", bottoms)
            yield Case("Swish", "swish_param { beta: 2.5 }", bottoms, 1)
        for type in ("Sigmoid", "TanH", "BNLL"):
            yield Case(type, "", X, tops, second=LARGER)
            yield Case(type, "", LARGE, tops)
    yield Case("ReLU", "", [((7,), "normal")])
    yield Case("ReLU", "", [((4, 3), "holes")], backward=False)
    yield Case("PReLU", "", [((4, 3), "normal")])
    yield Case("PReLU", "", [((2, 3, 2), "normal")], second=[(1, 3, 3)])
    yield Case("AbsVal", "", TIES)
    yield Case("AbsVal", "", X, second=LARGER)
    for settings in ("threshold: 0", "threshold: 1", "threshold: -0.5"):
        yield Case("Threshold", "threshold_param { %s }" % settings, TIES, backward=False)
    for phase in ("TRAIN", "TEST"):
        for ratio in (0, 0.3, 0.5, 0.9):
            for tops in (1, "in-place"):
                yield Case("Dropout", "dropout_param { dropout_ratio: %g }" % ratio, X, tops, phase=phase)
    yield Case("Dropout", "phase: TRAIN", X, phase="TEST")
    yield Case("Dropout", "", [((), "normal")])  # behind a loss, say
    yield Case("Dropout", "dropout_param { dropout_ratio: 1 }", X, backward=False)


def powers():
    for settings in (
        "",
        "power: 2",
        "power: 2 shift: 0.5 scale: 3",
        "scale: -2 shift: 1",
        "power: 0",
        "scale: 0 shift: 2 power: 3",
        "power: 3 shift: 0.5 scale: 0.25",
        "power: 3",
        "shift: 4",
    ):
        yield Case("Power", "power_param { %s }" % settings, X)
    for settings in ("power: 0.5", "power: -1", "power: -0.75 shift: 1 scale: 0.3", "power: 1.7"):
        yield Case("Power", "power_param { %s }" % settings, POSITIVE, second=LARGER)
    for settings in (
        "",
        "base: 2",
        "base: 2 scale: 3",
        "scale: 0.5 shift: 1",
        "base: 0.5 shift: -2 scale: 0.5",
        "base: 10",
    ):
        yield Case("Exp", "exp_param { %s }" % settings, X)
        yield Case("Log", "log_param { %s }" % settings.replace("shift: -2", "shift: 2"), POSITIVE)
    yield Case("Exp", "", X, "in-place")


def affine():
    for settings in (
        "",
        "axis: 0",
        "axis: 2",
        "axis: 1 num_axes: 2",
        "axis: 0 num_axes: -1",
        "axis: -1",
        "num_axes: 0",
        "axis: 2 num_axes: 2",
    ):
        for tops in (1, "in-place"):
            yield Case("Bias", "bias_param { %s }" % settings, X, tops)
            yield Case("Scale", "scale_param { %s }" % settings, X, tops)
            yield Case("Scale", "scale_param { bias_term: true %s }" % settings, X, tops)
    yield Case("Scale", "scale_param { bias_term: true }", [((1, 3, 4, 5), "normal")])
    yield Case("Scale", "", [((1, 1), "normal")])  # a single number
    yield Case("Scale", "", X, parameters=None, second=[(4, 3, 1, 2)])
    yield Case("Scale", "scale_param { filler { } bias_term: true bias_filler { value: 2 } }", X, parameters=None)
    yield Case(
        "Scale",
        'scale_param { filler { type: "uniform" } bias_term: true bias_filler { type: "uniform" } }',
        X,
        parameters=None,
    )
    yield Case("Bias", "bias_param { filler { value: 3 } }", X, parameters=None)
    for axis, shape in ((0, (2,)), (0, (2, 3)), (1, (3, 4)), (2, (4, 5)), (0, (2, 3, 4, 5)), (1, ()), (-1, (5,))):
        for type, name in (("Bias", "bias"), ("Scale", "scale")):
            yield Case(type, "%s_param { axis: %d }" % (name, axis), X + [(shape, "normal")])
    yield Case("Scale", "scale_param { axis: 1 bias_term: true }", X + [((3, 4), "normal")])
    yield Case("Scale", "", X + [((3,), "normal")], "in-place")


def products():
    for settings in (
        "",
        "bias_term: false",
        "transpose: true",
        "axis: 2",
        "axis: -1",
        "axis: 0",
        "axis: 2 transpose: true",
    ):
        second = None if "axis: 0" in settings else [(5, 3, 4, 5)]
        yield Case("InnerProduct", "inner_product_param { num_output: 4 %s }" % settings, X, second=second)
    for filler in (
        'type: "xavier"',
        'type: "uniform" min: -1 max: 3',
        'type: "xavier" variance_norm: AVERAGE',
        'type: "xavier" variance_norm: FAN_OUT',
        'type: "positive_unitball"',
    ):
        yield Case(
            "InnerProduct",
            "inner_product_param { num_output: 4 weight_filler { %s } bias_filler { value: 0.5 } }" % filler,
            [((3, 6), "normal")],
            parameters=None,
        )
    yield Case(
        "InnerProduct",
        "param { lr_mult: 0 } param { lr_mult: 1 } inner_product_param { num_output: 3 }",
        X,
        force=False,
    )
    for settings in ("", "bias_term: false"):
        for shape in ((6,), (3, 1, 2), (2, 2)):
            yield Case(
                "Embed",
                "embed_param { num_output: 3 input_dim: 4 %s }" % settings,
                [(shape, "fractions:4")],
                force=False,
            )
    yield Case(
        "Embed",
        'embed_param { num_output: 3 input_dim: 4 weight_filler { type: "uniform" } }',
        [((5,), "labels:4")],
        force=False,
        parameters=None,
        second=[(9,)],
    )


def normalization():
    for settings in (
        "",
        "local_size: 3",
        "local_size: 3 alpha: 0.5 beta: 0.5 k: 2",
        "local_size: 1",
        "local_size: 7 alpha: 1e-4",
    ):
        for region in ("ACROSS_CHANNELS", "WITHIN_CHANNEL"):
            yield Case("LRN", "lrn_param { %s norm_region: %s }" % (settings, region), X, second=LARGER)
    yield Case("LRN", "lrn_param { local_size: 5 alpha: 0.0001 }", [((2, 8, 3, 3), "large")])
    for settings in (
        "",
        "normalize_variance: false",
        "across_channels: true",
        "across_channels: true normalize_variance: false",
        "eps: 0.5",
        "eps: 0.1 across_channels: true",
    ):
        yield Case("MVN", "mvn_param { %s }" % settings, X, second=LARGER)
    yield Case("MVN", "", [((2, 3, 4), "normal")])
    yield Case("MVN", "mvn_param { across_channels: true }", [((4, 6), "normal")])
    shapes = (X, [((6, 3), "normal")], [((4, 3, 5), "normal")], [((2, 3, 2, 2, 2), "normal")])
    for bottoms in shapes:
        for phase in ("TRAIN", "TEST"):
            yield Case("BatchNorm", "", bottoms, phase=phase, parameters="positive")
    for settings in ("use_global_stats: true", "use_global_stats: false", "moving_average_fraction: 0.9", "eps: 0.1"):
        for phase in ("TRAIN", "TEST"):
            for tops in (1, "in-place"):
                yield Case(
                    "BatchNorm",
                    "batch_norm_param { %s }" % settings,
                    X,
                    tops,
                    phase=phase,
                    parameters="positive",
                    passes=3,
                )
    yield Case("BatchNorm", "", X, parameters=None, second=[(5, 3, 2, 2)])
    yield Case("BatchNorm", "", X, parameters=None, phase="TEST")
    yield Case("BatchNorm", "", X, force=False)
    yield Case("BatchNorm", "param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }", X)
    yield Case("BatchNorm", "", [((1, 3), "normal")], parameters=None, backward=False)


CASES = [case for group in (neurons, powers, affine, products, normalization) for case in group()]
SHAPE = (2, 3, 4, 5)
ABORTS = [
    Abort("AbsVal", "", [SHAPE], "cannot work in place", tops="in-place"),
    Abort("Threshold", "", [SHAPE], "has no gradient", run=True),
    Abort("PReLU", "", [(3,)], "at least 2 axes"),
    Abort("Exp", "exp_param { base: 0 }", [SHAPE], "base must be positive"),
    Abort("Log", "log_param { base: -2 }", [SHAPE], "base must be positive"),
    Abort("Log", "log_param { base: 1 }", [SHAPE], "base 1"),
    Abort("Clip", "clip_param { min: 1 }", [SHAPE], "max"),
    Abort("Bias", "bias_param { axis: 3 num_axes: 2 }", [SHAPE], "exceed shape"),
    Abort("Scale", "scale_param { axis: 4 }", [SHAPE], "axis 4 is out of range"),
    Abort("Scale", "scale_param { num_axes: -2 }", [SHAPE], "num_axes must be -1 or more"),
    Abort("Scale", "", [SHAPE, (4,)], r"shape \(4,\) does not fit"),
    Abort("InnerProduct", "", [SHAPE], "num_output must be positive"),
    Abort(
        "InnerProduct",
        'inner_product_param { num_output: 2 weight_filler { type: "what" } }',
        [SHAPE],
        "unknown filler",
    ),
    Abort("Embed", "embed_param { num_output: 3 }", [(4,)], "input_dim must be positive"),
    Abort("Embed", "embed_param { input_dim: 3 }", [(4,)], "num_output must be positive"),
    Abort("Embed", "embed_param { input_dim: 3 num_output: 2 }", [(4,)], "has no gradient for its bottom", run=True),
    Abort("LRN", "lrn_param { local_size: 4 }", [SHAPE], "must be odd"),
    Abort("LRN", "", [(2, 3)], "4 axes"),
    Abort("BatchNorm", "param { lr_mult: 1 }", [SHAPE], "statistics, not learned"),
    Abort("BatchNorm", "", [(3,)], "needs channels in axis 1"),
    Abort("MVN", "", [(1, 2, 3, 4, 5)], "at most 4 axes"),
    Abort("ReLU", "", [SHAPE, SHAPE], "takes 1 bottom blobs, not 2"),
]
