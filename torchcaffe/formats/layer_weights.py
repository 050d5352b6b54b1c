"""The parameters of each layer, as read from a weights file of any format."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class WeightBlob:
    """One parameter: `data` and `diff` are float32 of `shape`.

    Read from a binary file, they are read-only views of the mapped file: copy them to change or keep them.
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
