"""What a weights file holds, whichever its format: the parameters of each layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class WeightBlob:
    """One parameter as a file holds it: `data` and `diff` are float32 of `shape`.

    From a binary file they are read-only views of the file itself: copy what is to be changed, or kept for long.
    """

    data: np.ndarray
    shape: tuple
    legacy: bool = False  # the shape comes from num, channels, height, width
    diff: np.ndarray | None = None


@dataclass
class LayerWeights:
    """The parameters of one layer. In HDF5 a shared parameter is stored with its owner only: None stands for it."""

    name: str
    type: str = ""  # as today's files spell it; empty from HDF5, which does not hold it
    blobs: list = field(default_factory=list)
