"""Convolution, Deconvolution, Im2col, Pooling, SPP, Crop."""

from case import Abort, Case

X = [((2, 4, 7, 6), "normal")]
LARGER = [(3, 4, 9, 8)]
CONVOLUTIONS = (
    "kernel_size: 3",
    "kernel_size: 1",
    "kernel_size: 3 pad: 1",
    "kernel_size: 3 stride: 2",
    "kernel_size: 3 stride: 2 pad: 1",
    "kernel_size: 2 stride: 3 pad: 1",
    "kernel_size: 3 dilation: 2",
    "kernel_size: 3 dilation: 2 pad: 2 stride: 2",
    "kernel_h: 3 kernel_w: 2",
    "kernel_h: 2 kernel_w: 3 pad_h: 1 pad_w: 2",
    "kernel_h: 1 kernel_w: 3 stride_h: 2 stride_w: 1",
    "kernel_size: 3 kernel_size: 2",
    "kernel_size: 2 stride: 2 stride: 1",
    "kernel_size: 3 pad: 0 pad: 2",
    "kernel_size: 2 dilation: 1 dilation: 3",
    "kernel_size: 3 group: 2",
    "kernel_size: 3 group: 4 pad: 1",
    "kernel_size: 3 bias_term: false",
    "kernel_size: 3 pad_h: 1",
    "kernel_size: 3 group: 2 stride: 2 dilation: 2 pad: 2",
    "kernel_size: 7 pad: 3",
)


def convolutions():
    for settings in CONVOLUTIONS:
        for type in ("Convolution", "Deconvolution"):
            yield Case(type, "convolution_param { num_output: 8 %s }" % settings, X, second=LARGER)
    for type in ("Convolution", "Deconvolution"):
        two = [((2, 4, 5, 5), "normal")] * 2
        yield Case(type, "convolution_param { num_output: 3 kernel_size: 3 }", two, tops=2)
        for filler in ('type: "xavier"', 'type: "uniform"', 'type: "xavier" variance_norm: AVERAGE'):
            yield Case(
                type,
                "convolution_param { num_output: 6 kernel_size: 3 group: 2 weight_filler { %s } }" % filler,
                X,
                parameters=None,
            )
        for size in (2, 3, 4, 5):
            yield Case(
                type,
                'convolution_param { num_output: 2 kernel_size: %d weight_filler { type: "bilinear" } }' % size,
                [((1, 2, 6, 6), "normal")],
                parameters=None,
            )
        yield Case(type, "convolution_param { num_output: 3 kernel_size: 3 stride: 2 pad: 1 }", [((2, 2, 7), "normal")])
        yield Case(
            type,
            "convolution_param { num_output: 2 kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 2 }",
            [((1, 2, 4, 5, 3), "normal")],
        )
        yield Case(
            type,
            "convolution_param { num_output: 4 kernel_size: 2 dilation: 2 group: 2 }",
            [((1, 2, 4, 5, 4), "normal")],
        )
        yield Case(type, "convolution_param { num_output: 3 kernel_size: 2 axis: 2 }", [((2, 3, 2, 5, 4), "normal")])
        yield Case(type, "convolution_param { num_output: 3 kernel_size: 2 axis: -3 }", X)
        yield Case(type, "convolution_param { num_output: 3 kernel_size: 3 force_nd_im2col: true pad: 1 }", X)
        yield Case(type, "param { lr_mult: 0 } convolution_param { num_output: 3 kernel_size: 3 }", X, force=False)
    yield Case(
        "Convolution", "convolution_param { num_output: 3 kernel_size: 6 stride: 3 }", [((1, 2, 4, 5), "normal")]
    )
    yield Case(
        "Deconvolution",
        "convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 4 bias_term: false }",
        X,
    )
    yield Case("Deconvolution", "convolution_param { num_output: 2 kernel_size: 1 stride: 3 }", X)


def patches():
    for settings in CONVOLUTIONS[:15]:
        yield Case("Im2col", "convolution_param { %s }" % settings, X, second=LARGER)
    yield Case("Im2col", "convolution_param { kernel_size: 3 force_nd_im2col: true stride: 2 pad: 1 }", X)
    yield Case("Im2col", "convolution_param { kernel_size: 2 }", [((2, 3, 6), "normal")])
    yield Case(
        "Im2col", "convolution_param { kernel_size: 2 stride: 2 pad: 1 dilation: 2 }", [((1, 2, 4, 5, 4), "normal")]
    )


def pooling():
    sizes = (
        "kernel_size: 2 stride: 2",
        "kernel_size: 3 stride: 2",
        "kernel_size: 3 stride: 2 pad: 1",
        "kernel_size: 3",
        "kernel_size: 3 stride: 3 pad: 2",
        "kernel_size: 2 stride: 3 pad: 1",
        "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1",
        "kernel_size: 3 pad_h: 1 pad_w: 2 stride: 2",
        "global_pooling: true",
        "kernel_size: 5 stride: 4 pad: 2",
        "kernel_size: 2 stride: 2 pad: 1",
        "kernel_size: 4 stride: 3 pad: 3",
        "kernel_size: 6 stride: 2",
        "kernel_size: 3 stride: 2 round_mode: FLOOR",
        "kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR",
        "kernel_size: 2 stride: 3 pad: 1 round_mode: FLOOR",
    )
    for size in sizes:
        for kind in ("normal", "ties"):
            bottoms = [((2, 3, 7, 6), kind)]
            yield Case("Pooling", "pooling_param { pool: MAX %s }" % size, bottoms, second=[(1, 3, 8, 9)])
            yield Case(
                "Pooling",
                "pooling_param { pool: MAX %s }" % size,
                bottoms,
                tops=2,
                weights=[1, 0],
                second=[(1, 3, 8, 9)],
            )
        yield Case(
            "Pooling", "pooling_param { pool: AVE %s }" % size, [((2, 3, 7, 6), "normal")], second=[(1, 3, 8, 9)]
        )
    empty = [((1, 2, 4, 5), "normal")]
    for pool in ("MAX", "AVE"):  # windows that start beyond the image
        yield Case("Pooling", "pooling_param { pool: %s kernel_size: 1 stride: 2 }" % pool, empty, backward=False)
    yield Case("Pooling", "pooling_param { kernel_size: 1 stride: 2 }", empty, tops=2, backward=False)
    for tops in (1, 2):
        yield Case(
            "Pooling",
            "pooling_param { kernel_size: 2 stride: 2 }",
            [((2, 4, 6, 6), "special")],
            tops=tops,
            backward=False,
        )
        yield Case(
            "Pooling", "pooling_param { kernel_size: 1 }", [((2, 4, 6, 6), "special")], tops=tops, backward=False
        )


def pyramids():
    for height in (1, 2, 3):
        for pool in ("MAX", "AVE"):
            for shape in ((2, 3, 9, 9), (1, 2, 8, 10), (2, 3, 7, 12), (1, 1, 4, 4)):
                yield Case("SPP", "spp_param { pyramid_height: %d pool: %s }" % (height, pool), [(shape, "normal")])
    yield Case("SPP", "spp_param { pyramid_height: 2 }", [((2, 3, 9, 9), "ties")], second=[(1, 3, 12, 10)])


def crops():
    like = ((2, 2, 4, 3), "normal")
    for settings in (
        "",
        "offset: 1",
        "offset: 2 offset: 1",
        "axis: 1",
        "axis: 1 offset: 1 offset: 0 offset: 3",
        "axis: -1 offset: 2",
        "axis: 3",
        "axis: 0",
    ):
        bottoms = [((2, 4, 7, 6), "normal"), like]
        yield Case("Crop", "crop_param { %s }" % settings, bottoms, second=[(3, 4, 8, 8), (3, 3, 5, 2)])
    yield Case("Crop", "crop_param { axis: 1 offset: 1 }", [((2, 5), "normal"), ((2, 3), "normal")])


CASES = [case for group in (convolutions, patches, pooling, pyramids, crops) for case in group()]
SHAPE = (2, 4, 7, 6)
ABORTS = [
    Abort("Convolution", "convolution_param { num_output: 3 kernel_size: 3 group: 3 }", [SHAPE], "group 3 must divide"),
    Abort(
        "Convolution", "convolution_param { num_output: 3 kernel_size: 3 group: 2 }", [SHAPE], "must divide num_output"
    ),
    Abort("Convolution", "convolution_param { num_output: 3 kernel_h: 3 }", [SHAPE], "kernel sizes must be positive"),
    Abort("Convolution", "convolution_param { num_output: 3 }", [SHAPE], "kernel_size is missing"),
    Abort("Convolution", "convolution_param { num_output: 3 kernel_size: 3 stride_h: 2 }", [SHAPE], "stride"),
    *(
        Abort("InnerProduct", "inner_product_param { num_output: 3 weight_filler { %s } }" % filler, [SHAPE], message)
        for filler, message in (('type: "xavier" sparse: 2', "sparse"), ('type: "gaussian" std: 0', "std"))
    ),
    Abort("Convolution", "convolution_param { kernel_size: 3 }", [SHAPE], "num_output must be positive"),
    Abort(
        "Convolution",
        "convolution_param { num_output: 3 kernel_size: 3 stride: 0 }",
        [SHAPE],
        "strides must be positive",
    ),
    Abort(
        "Convolution", "convolution_param { num_output: 3 kernel_size: 3 kernel_h: 3 kernel_w: 3 }", [SHAPE], "not both"
    ),
    Abort(
        "Convolution",
        "convolution_param { num_output: 3 kernel_size: 10 stride: 1 }",
        [SHAPE],
        "smaller than the kernel",
    ),
    Abort(
        "Convolution", "convolution_param { num_output: 3 kernel_size: 3 }", [SHAPE, (2, 4, 5, 6)], "one shape", tops=2
    ),
    Abort(
        "Deconvolution",
        'convolution_param { num_output: 2 kernel_h: 3 kernel_w: 2 weight_filler { type: "bilinear" } }',
        [SHAPE],
        "square kernel",
    ),
    Abort("Im2col", "", [SHAPE], "kernel_size is missing"),
    Abort("Pooling", "pooling_param { kernel_size: 2 }", [(2, 3, 4)], "4 axes"),
    Abort("Pooling", "pooling_param { }", [SHAPE], "give kernel_size"),
    Abort("Pooling", "pooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 }", [SHAPE], "give kernel_size, or"),
    Abort("Pooling", "pooling_param { kernel_size: 2 pad: 2 }", [SHAPE], "must be below kernel"),
    Abort("Pooling", "pooling_param { kernel_size: 2 global_pooling: true }", [SHAPE], "takes no kernel size"),
    Abort("Pooling", "pooling_param { global_pooling: true pad: 1 }", [SHAPE], "takes no pad"),
    Abort("Pooling", "pooling_param { kernel_size: 3 pad_h: 2 }", [SHAPE], "both pad_h and pad_w"),
    Abort("Pooling", "pooling_param { kernel_size: 3 stride_w: 2 }", [SHAPE], "both stride_h and stride_w"),
    Abort(
        "Pooling",
        "pooling_param { kernel_size: 3 stride: 2 stride_h: 2 stride_w: 2 }",
        [SHAPE],
        "both stride_h and stride_w",
    ),
    Abort("Pooling", "pooling_param { kernel_size: 0 }", [SHAPE], "must be positive"),
    Abort("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }", [SHAPE], "not for STOCHASTIC"),
    Abort("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }", [SHAPE], "for MAX pooling", tops=2),
    Abort("SPP", "spp_param { pyramid_height: 3 }", [(1, 1, 5, 5)], "must be below kernel"),
    Abort("SPP", "spp_param { pyramid_height: 1 }", [(1, 1, 5)], "4 axes"),
    Abort("Crop", "", [SHAPE, (2, 4, 8, 6)], "exceed bottom 0"),
    Abort("Crop", "crop_param { offset: 3 }", [SHAPE, (2, 4, 5, 3)], "exceed bottom 0"),
    Abort("Crop", "crop_param { offset: 1 offset: 1 offset: 1 }", [SHAPE, (2, 4, 2, 2)], "one for each of the 2 axes"),
    Abort("Crop", "", [SHAPE], "takes 2 bottom blobs"),
]
