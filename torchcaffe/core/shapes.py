"""Which shapes a blob can have: Caffe's limits, for the blobs of nets and of files."""

from __future__ import annotations

import math

MAXIMUM_AXES = 32  # Caffe's kMaxBlobAxes
MAXIMUM_COUNT = 2**31 - 1  # elements; Caffe counts them in an int


def problem(shape) -> str:
    """Why no blob can have this shape (a tuple of int), or ""."""
    if len(shape) > MAXIMUM_AXES:
        return f"a blob has at most {MAXIMUM_AXES} axes, not {len(shape)}"
    if any(dim < 0 for dim in shape):
        return f"negative dimension in shape {shape}"
    count = math.prod(dim for dim in shape if dim)  # an axis of 0 makes no room for the others
    if count > MAXIMUM_COUNT:
        return (
            f"shape {shape} has {count:,} elements ({4 * count / 1e9:,.1f} GB), more than {MAXIMUM_COUNT}, which is "
            "Caffe's limit for one blob"
        )
    return ""
