"""Layers that move, join, cut and reduce blobs, and sources of blobs without files."""

from case import Abort, Case

X = [((2, 3, 4, 5), "normal")]
TIES = [((2, 3, 4, 5), "ties")]


def joined():
    for axis in ("", "axis: 0", "axis: 2", "axis: -1", "concat_dim: 1"):
        yield Case("Concat", "concat_param { %s }" % axis, X * 2)
    yield Case(
        "Concat",
        "",
        X + [((2, 1, 4, 5), "normal"), ((2, 6, 4, 5), "normal")],
        second=[(3, 2, 2, 2), (3, 1, 2, 2), (3, 4, 2, 2)],
    )
    yield Case("Concat", "", X)
    yield Case("Concat", "concat_param { axis: 0 }", [((3,), "normal"), ((4,), "normal")])
    for settings, tops in (
        ("", 3),
        ("axis: 0", 2),
        ("axis: 3 slice_point: 2", 2),
        ("axis: 2 slice_point: 1 slice_point: 3", 3),
        ("slice_dim: 1 slice_point: 1", 2),
        ("axis: -2", 4),
        ("", 1),
    ):
        yield Case("Slice", "slice_param { %s }" % settings, X, tops=tops)
    yield Case("Slice", "", [((2, 4, 3), "normal")], tops=2, second=[(3, 6, 2)])
    yield Case("Split", "", X, tops=1)
    yield Case("Split", "", X, tops=3)
    for bottoms in (X * 2, TIES * 2, TIES * 4):
        for settings in ("", "operation: PROD", "operation: MAX", "operation: PROD stable_prod_grad: false"):
            if "false" in settings and bottoms[0][1] == "ties":
                continue
            yield Case("Eltwise", "eltwise_param { %s }" % settings, bottoms, second=[(1, 3, 2, 2)] * len(bottoms))
    yield Case("Eltwise", "eltwise_param { coeff: 2 coeff: -0.5 }", X * 2)
    yield Case("Eltwise", "eltwise_param { coeff: 1 coeff: -1 coeff: 0 }", X * 3)
    yield Case("Eltwise", "eltwise_param { operation: MAX coeff: 5 coeff: 7 }", X * 2)
    yield Case("Eltwise", "eltwise_param { operation: PROD stable_prod_grad: false }", TIES * 2)
    # the same blob twice, and blobs used again: automatic Split layers
    yield Case("Eltwise", "", [], before=shared("y"), tops=["z"])


def shared(name):
    return (
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "a" type: "InnerProduct" bottom: "d" top: "%s" inner_product_param { num_output: 3 } }\n'
        'layer { name: "r" type: "ReLU" bottom: "%s" top: "%s" }\n'
        'layer { name: "e" type: "Eltwise" bottom: "%s" bottom: "%s" top: "twice" }\n'
        'layer { name: "s" type: "Power" bottom: "%s" top: "also" power_param { power: 2 } loss_weight: 0.5 }\n'
    ) % ((name,) * 6)


def reshaped():
    for settings in (
        "",
        "axis: 2",
        "axis: 0 end_axis: 1",
        "end_axis: 2",
        "axis: -3 end_axis: -2",
        "axis: 1 end_axis: 1",
    ):
        yield Case("Flatten", "flatten_param { %s }" % settings, X, second=[(1, 2, 3, 4)])
    for settings in (
        "shape { dim: 0 dim: -1 }",
        "shape { dim: 2 dim: 60 }",
        "shape { dim: -1 }",
        "shape { dim: 0 dim: 0 dim: 20 }",
        "axis: 1 num_axes: 2 shape { dim: 6 dim: 2 }",
        "axis: 1 num_axes: 0 shape { dim: 1 dim: 1 }",
        "axis: -1 num_axes: 0 shape { dim: 1 }",
        "axis: -2 shape { dim: 5 }",
        "axis: 2 shape { dim: -1 }",
        "axis: 2 shape { dim: 0 dim: 1 dim: -1 }",
        "shape { dim: 2 dim: 0 dim: -1 }",
    ):
        if settings == "axis: -2 shape { dim: 5 }":
            yield Case("Reshape", "reshape_param { %s }" % settings, [((2, 3, 1, 5), "normal")])
        else:
            second = None if any(fixed in settings for fixed in ("60", "20", "6 dim", "dim: 2")) else [(3, 2, 2, 2)]
            yield Case("Reshape", "reshape_param { %s }" % settings, X, second=second)
    yield Case("Reshape", "reshape_param { shape { } }", [((1, 1), "normal")])
    yield Case("Reshape", "reshape_param { axis: 1 num_axes: 1 shape { } }", [((4, 1, 3), "normal")])
    for settings in ("tiles: 3", "axis: 0 tiles: 2", "axis: -1 tiles: 2", "axis: 2 tiles: 1"):
        yield Case("Tile", "tile_param { %s }" % settings, X, second=[(1, 2, 3, 4)])
    for index in ((5,), (1,), (2,)):
        yield Case("BatchReindex", "", [((4, 3, 2), "normal"), (index, "fractions:4")], force=False, learn=True)
    for selector in ((6,), (6, 1, 1, 1)):
        yield Case("Filter", "", [((6, 3, 2), "normal"), (selector, "bits")], force=False, learn=True)
        yield Case(
            "Filter", "", [((6, 3, 2), "normal"), ((6,), "normal"), (selector, "bits")], tops=2, force=False, learn=True
        )


def reduced():
    for operation in ("SUM", "ASUM", "SUMSQ", "MEAN"):
        for settings in ("", "axis: 1", "axis: -1 coeff: 2", "axis: 2 coeff: -0.5", "axis: -4"):
            yield Case(
                "Reduction", "reduction_param { operation: %s %s }" % (operation, settings), TIES, second=[(3, 2, 2, 2)]
            )
    for kind in ("normal", "ties"):
        for settings in (
            "",
            "top_k: 3",
            "out_max_val: true",
            "out_max_val: true top_k: 4",
            "axis: 1",
            "axis: 2 top_k: 3",
            "axis: -1 top_k: 2 out_max_val: true",
            "axis: 0",
        ):
            yield Case("ArgMax", "argmax_param { %s }" % settings, [((2, 3, 4, 5), kind)], backward=False)
    yield Case("ArgMax", "argmax_param { top_k: 2 }", [((4, 6), "ties")], backward=False, second=[(2, 6)])
    yield Case("ArgMax", "argmax_param { out_max_val: true }", [((4, 3, 2, 2, 2), "normal")], backward=False)
    yield Case("ArgMax", "argmax_param { out_max_val: true }", [((4,), "normal")], backward=False)
    for axis in ("", "axis: 0", "axis: 2", "axis: -1"):
        yield Case("Softmax", "softmax_param { %s }" % axis, X, second=[(1, 4, 2, 3)])
    yield Case("Softmax", "", [((3, 5), "large")], "in-place")
    yield Case("Softmax", "softmax_param { axis: 0 }", [((5,), "normal")])


def sources():
    shape = "parameter_param { shape { dim: 2 dim: 3 } }"
    product = (
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "p" type: "Parameter" top: "p" %s }\n' % shape
    )
    yield Case("Parameter", shape, [], weights=None)
    yield Case("Eltwise", 'bottom: "p" bottom: "d" eltwise_param { operation: PROD }', [], before=product, tops=["y"])
    yield Case("Silence", "", X, tops=0, weights=None)
    yield Case("Silence", "", X * 2, tops=0, weights=None, force=False)
    for shapes in ("shape { dim: 2 dim: 3 }", "shape { } shape { dim: 4 }"):
        yield Case("Input", "input_param { %s }" % shapes, [], tops=2, weights=None, backward=False)
    for settings in (
        "shape { dim: 2 dim: 3 }",
        "shape { dim: 2 dim: 3 } data_filler { value: 4 }",
        "num: 2 channels: 3 height: 1 width: 5",
        'shape { dim: 5 } data_filler { type: "uniform" min: -1 max: 1 }',
        "shape { } shape { dim: 4 } data_filler { value: 2 }",
        'shape { dim: 3 dim: 2 } data_filler { value: 1 } data_filler { type: "uniform" max: 5 }',
        "num: 1 num: 2 channels: 1 channels: 3 height: 2 height: 2 width: 1 width: 1",
        'shape { dim: 4 dim: 3 } data_filler { type: "xavier" }',
    ):
        yield Case(
            "DummyData", "dummy_data_param { %s }" % settings, [], tops=2, weights=None, backward=False, passes=3
        )


CASES = [case for group in (joined, reshaped, reduced, sources) for case in group()]
for case in CASES:
    if case.type == "Eltwise" and case.tops == ["z"]:
        case.layer = 'bottom: "y" bottom: "twice"'
SHAPE = (2, 3, 4, 5)
ABORTS = [
    Abort("Concat", "", [SHAPE, (2, 3, 4, 4)], "must agree except in axis 1"),
    Abort("Concat", "concat_param { axis: 1 concat_dim: 1 }", [SHAPE, SHAPE], "not both"),
    Abort("Concat", "concat_param { axis: 4 }", [SHAPE, SHAPE], "out of range"),
    Abort("Slice", "", [SHAPE], "does not divide into 2", tops=2),
    Abort("Slice", "slice_param { slice_point: 2 slice_point: 1 }", [SHAPE], "must increase", tops=3),
    Abort("Slice", "slice_param { slice_point: 1 }", [SHAPE], "slice points", tops=3),
    Abort("Eltwise", "", [SHAPE], "takes 2 or more"),
    Abort("Eltwise", "", [SHAPE, (2, 3, 4, 1)], "one shape"),
    Abort("Eltwise", "eltwise_param { coeff: 1 }", [SHAPE, SHAPE], "as many coeff"),
    Abort("Eltwise", "eltwise_param { operation: PROD coeff: 1 coeff: 2 }", [SHAPE, SHAPE], "not for PROD"),
    Abort("Flatten", "", [SHAPE], "cannot work in place", tops="in-place"),
    Abort("Flatten", "flatten_param { axis: 5 }", [SHAPE], "out of range"),
    Abort("Reshape", "reshape_param { shape { dim: 7 dim: -1 } }", [SHAPE], "do not divide"),
    Abort("Reshape", "reshape_param { shape { dim: 7 } }", [SHAPE], "cannot become"),
    Abort("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }", [SHAPE], "only one dimension"),
    Abort("Reshape", "reshape_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 dim: 0 } }", [SHAPE], "copies an axis"),
    Abort("Reshape", "reshape_param { axis: 3 num_axes: 2 shape { dim: 5 } }", [SHAPE], "exceed shape"),
    Abort("Reshape", "", [SHAPE], "cannot work in place", tops="in-place"),
    Abort("Split", "", [SHAPE], "cannot work in place", tops="in-place"),
    Abort("Tile", "", [SHAPE], "tiles must be positive"),
    Abort("Tile", "tile_param { axis: 4 tiles: 2 }", [SHAPE], "out of range"),
    Abort("BatchReindex", "", [SHAPE, (2, 2)], "one axis"),
    Abort("BatchReindex", "", [(), (2,)], "items along axis 0", backward=False, run=True),
    Abort("BatchReindex", "", [SHAPE, (3,)], "outside 0 to 1|has no gradient", run=True),
    Abort("Filter", "", [SHAPE, (3,)], "differ in axis 0"),
    Abort("Filter", "", [SHAPE, (2, 2)], "one value an item"),
    Abort("Filter", "", [SHAPE, (2,)], "need 1 tops", tops=2),
    Abort("Filter", "", [SHAPE, (2,)], "has no gradient", run=True),
    Abort("Reduction", "reduction_param { axis: 4 }", [SHAPE], "out of range"),
    Abort("ArgMax", "argmax_param { top_k: 61 }", [SHAPE], "exceeds the 60"),
    Abort("ArgMax", "argmax_param { axis: 1 top_k: 4 }", [SHAPE], "exceeds the 3"),
    Abort("ArgMax", "argmax_param { top_k: 0 }", [SHAPE], "top_k must be positive"),
    Abort("ArgMax", "", [SHAPE], "has no gradient", run=True),
    Abort("Softmax", "", [(4,)], "out of range"),
    Abort("Input", "input_param { shape { dim: 1 } shape { dim: 2 } }", [], "no shape, one, or one a top", tops=3),
    Abort("DummyData", "", [], "needs one shape"),
    Abort("NoSuchLayer", "", [SHAPE], "unknown layer type"),
]
