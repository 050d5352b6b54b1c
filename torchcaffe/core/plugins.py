"""Layers that installed packages bring: the entry points of the group `torchcaffe.layers`.

They are loaded when a net asks for a layer type, or has settings, that nobody knows; never before.

    [project.entry-points."torchcaffe.layers"]
    my_layers = "my_package.layers"  # importing this module registers them
"""

from __future__ import annotations

GROUP = "torchcaffe.layers"
HOW = (
    "a layer of your own? Its class is made known by torchcaffe.register_layer before the net is read, or by an installed "
    f'package with an entry point of the group "{GROUP}" (docs/extending.md)'
)

# The layers of torchcaffe.contrib: type -> its settings. They are written down here so that an error about an unknown type
# can name that package without importing it.
CONTRIBUTED = {
    "Axpy": (),
    "BN": ("bn_param",),
    "CenterLoss": ("center_loss_param",),
    "ConvolutionDepthwise": (),
    "DepthwiseConvolution": (),
    "DetectionOutput": ("detection_output_param",),
    "Interp": ("interp_param",),
    "MarginInnerProduct": ("margin_inner_product_param",),
    "MultiBoxLoss": ("multibox_loss_param",),
    "Normalize": ("norm_param", "normalize_param"),
    "Permute": ("permute_param",),
    "PriorBox": ("prior_box_param",),
    "Proposal": ("proposal_param",),
    "ROIPooling": ("roi_pooling_param",),
    "ReLU6": (),
    "ShuffleChannel": ("shuffle_channel_param",),
    "SmoothL1Loss": ("smooth_l1_loss_param",),
    "Upsample": ("upsample_param",),
}
# Python layers of published nets, (module, class), that it has a layer for.
PYTHON_LAYERS = {("rpn.proposal_layer", "ProposalLayer")}

_loaded: set = set()  # entry points that were tried
problems: list = []  # what went wrong with some of them, for the message about the layer that nobody knows


def load() -> bool:
    """Load the entry points that were not tried before; False where there are none."""
    from importlib import metadata

    new = [point for point in metadata.entry_points(group=GROUP) if point not in _loaded]
    for point in new:
        _loaded.add(point)
        try:
            point.load()
        except Exception as problem:  # a package's own mistake: the net may well do without it
            package = point.dist.name if point.dist else "unknown"
            problems.append(
                f'the package "{package}" could not bring its layers ({GROUP}: {point.name} = {point.value}): '
                f"{type(problem).__name__}: {problem}"
            )
    return bool(new)


def contributed(name: str) -> bool:
    """Whether torchcaffe.contrib has a layer type, or settings, of this name."""
    return name in CONTRIBUTED or any(name in settings for settings in CONTRIBUTED.values())


def how_to_register(name: str = "") -> str:
    """The lines that end a message about a layer type or settings, `name`, that nobody knows."""
    return "".join(f"\n{line}" for line in [*problems, where_contributed(name) if contributed(name) else HOW])


def where_contributed(what: str) -> str:
    """The line that says how to have `what` of torchcaffe.contrib."""
    return (
        f"{what} is in torchcaffe.contrib: import torchcaffe.contrib before the net is read, or give --contrib to the "
        "command torchcaffe (docs/contrib.md)"
    )
