"""What a net is, as a table: its layers, their types, output shapes and parameters."""

from __future__ import annotations

import html
from itertools import groupby
from typing import List, NamedTuple

from torchcaffe.core.names import counted, one_line

WIDTHS = (40, 24, 36)  # most characters of layer, type and shapes; with the numbers, a line stays within 120
TITLES = ("layer", "type", "output shape", "parameters")


class Row(NamedTuple):
    """One layer. parameters: how many numbers are its own, or "shared" where all of them are another layer's."""

    layer: str
    type: str
    shapes: str
    parameters: str


def title(net) -> str:
    """One line: name, phase, device and how much there is."""
    phase = "TRAIN" if net.phase == 0 else "TEST"
    layers, blobs = counted(len(net.nodes), "layer"), counted(len(net.blobs), "blob")
    return f'{type(net).__name__} "{one_line(net.name)}" ({phase}, {net.device}): {layers}, {blobs}, {total(net)}'


def rows(net) -> List[Row]:
    """A row for each layer, in order, automatic Split layers included. Shapes are those that the blobs have now."""
    owned = {id(blob) for blob in net.learnable}
    found = []
    for node in net.nodes:
        layer, own = node.layer, [blob.count for blob in node.layer.blobs if id(blob) in owned]
        kind = layer.type if layer.shown is layer else f"{layer.type}: {type(layer.shown).__name__}"
        numbers = "shared" if layer.blobs and not own else f"{sum(own):,}"
        shapes = ", ".join(_times(len(list(same)), shape) for shape, same in groupby(blob.dims for blob in node.tops))
        found.append(Row(one_line(layer.name), one_line(kind), shapes, numbers))
    return found


def _times(count, shape) -> str:
    return f"{count} of {shape}" if count > 1 else str(shape)


def total(net) -> str:
    """The number of parameters, those shared by several layers once, and their bytes in float32."""
    count = sum(blob.count for blob in net.learnable)
    return f"{counted(count, 'parameter')} ({counted(4 * count, 'byte')})"


def text(net) -> str:
    """The table in plain text; no line is longer than 120 characters, long names are cut in the middle."""
    body = [tuple(map(shortened, row[:3], WIDTHS)) + row[3:] for row in rows(net)]
    widths = [max(map(len, column)) for column in zip(TITLES, *body)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths[:3])), row[3].rjust(widths[3])])
        for row in (TITLES, *body)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule, f"total: {total(net)}"])


def as_html(net) -> str:
    """The table for a notebook, names in full."""
    head = "".join(f"<th>{name}</th>" for name in TITLES)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows(net))
    return (
        f"<table><caption>{html.escape(title(net))}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f'<tfoot><tr><th colspan="3">total</th><td>{html.escape(total(net))}</td></tr></tfoot></table>'
    )


def shortened(name: str, width: int) -> str:
    """`name`, or its two ends with "..." between them where it is longer than `width`."""
    if len(name) <= width:
        return name
    end = (width - 3) // 2
    return f"{name[: width - 3 - end]}...{name[-end:]}"
