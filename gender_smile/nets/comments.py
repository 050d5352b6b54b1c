"""The comments in generated nets and solvers: where each number comes from, in one line.

    from gender_smile.nets.comments import reason
    reason(recipe.PAPER, "batch_size")    # "section 3.4"
"""

from __future__ import annotations

import textwrap
from typing import Any, List

import recipe

WIDTH = 116
LAYER_KINDS = {
    "conv1_1": "conv1_1",
    "convolution": "all other convolutions",
    "fc6": "fc6",
    "fc7": "fc7",
    "last": "the last layer",
}

def value(profile: recipe.Profile, field: str, key: Any = None) -> Any:
    """What the profile has in a field, or under a key of a field that is a table."""
    found = getattr(profile, field)
    return found if key is None else found[key]


def reason(profile: recipe.Profile, field: str, key: Any = None) -> str:
    """Where the profile's number comes from; for one that differs from the paper profile's, both are named."""
    source = recipe.Profile.__dataclass_fields__[field].metadata["source"]
    if isinstance(source, dict):
        source = source[key]
    paper = value(recipe.PAPER, field, key)
    if value(profile, field, key) == paper:
        return source
    return f"ours, for the {profile.name} (paper profile: {plain(paper)}, {source})"


def plain(number: Any) -> str:
    """A value as prototxt writes it: 1 for 1.0, quotes around text, {"type": "msra"} as msra."""
    if isinstance(number, bool):
        return str(number).lower()
    if isinstance(number, dict):
        return " ".join(str(part) for part in number.values())
    return f'"{number}"' if isinstance(number, str) else f"{number:.10g}"


def comment(text: str, indent: str = "") -> List[str]:
    """Comment lines of a text; those after the first start with `indent`."""
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# " + indent, break_long_words=False)


def head(profile: recipe.Profile, what: str) -> List[str]:
    """First lines of every generated file: the command that wrote it, and what it is."""
    lines = comment("Written by `make prototxt` (tools/make_nets.py) from recipe.py: change the recipe, not this file.")
    return lines + comment(f"{what} Profile {profile.name}{': ' + profile.why if profile.why else ''}.")


def step_title(net: str, step: int) -> str:
    """ "Step 3 of GNet: ..." with the paper's sections; step 2 belongs to a crop, not to one net."""
    row, crop = recipe.STEPS[step], recipe.CROPS[recipe.NETS[net].crop]
    nets = [other for other in recipe.NETS.values() if other.crop == crop.name] if step == 2 else [recipe.NETS[net]]
    names = ", ".join(other.title for other in nets)
    task = f", {recipe.NETS[net].task}" if row.labels == "task" else ""
    return (
        f"Step {step} of {names}: {row.title}{task}; the result is {row.model} ({row.source}). "
        f"Crops: {crop.name} ({crop.describes})."
    )


def number_table(profile: recipe.Profile, *rows: tuple) -> List[str]:
    """A line for each (field, key or None, name in the file): name, value, source."""
    lines = []
    for field, key, name in rows:
        text = f"{name} {plain(value(profile, field, key))}: {reason(profile, field, key)}"
        lines += comment(text, indent="    ")
    return lines


def training_numbers(profile: recipe.Profile) -> List[str]:
    """Sources of the numbers in a training net."""
    mean = " ".join(plain(number) for number in recipe.MEAN_BGR)
    return [
        *comment(f"mean_value {mean} (B G R): {recipe.MEAN_SOURCE}"),
        *number_table(
            profile,
            ("mirror", None, "mirror"),
            ("margin", None, "pixels of the stored crops beyond crop_size (crop_size cuts at random when training)"),
            ("batch_size", None, "batch_size (TRAIN)"),
            ("test_batch_size", None, "batch_size (TEST)"),
            *(("lr_mult", kind, f"lr_mult of {name}") for kind, name in LAYER_KINDS.items()),
            ("bias_lr_mult", None, "biases learn at the layer's lr_mult times"),
            ("bias_decay_mult", None, "decay_mult of biases"),
            ("dropout", None, "dropout_ratio"),
            ("weight_filler", None, "filler below the last layer"),
            ("last_filler", None, "filler of the last layer"),
            ("attributes_bias", None, "bias that the forty attributes start from"),
        ),
        *width_numbers(profile),
    ]


def width_numbers(profile: recipe.Profile) -> List[str]:
    """Why the layers are as wide as they are."""
    fc6 = "fc6 is InnerProduct, as in VGG-Face's release: the same arithmetic as the 7x7 convolution of Table 1"
    return number_table(profile, ("width", None, "filters and units, as a share of VGG-Face's,")) + comment(fc6)

