"""Curves of tools/report.py's page."""

from __future__ import annotations

import base64
import io
from typing import List

import recipe
from gender_smile.training.metrics import points, roof

COLORS = ("#2e7d5b", "#d1495b", "#3b6ea5", "#b07d2b", "#7a5ea8", "#5f6b6d")


def title(record: dict) -> str:
    return recipe.NETS[record["name"]].title if record["name"] in recipe.NETS else record["name"] or "VGG-Face"


def curves(records: List[dict]) -> str:
    """Validation loss and accuracy of a step's trainings as one SVG: a panel a net, a line a training."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    import matplotlib

    names = list(dict.fromkeys(record["name"] for record in records))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.4 * lines), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(2 * lines, columns, squeeze=False, sharex=True)
    for place in range(lines * columns):
        above, below = axes[2 * (place // columns)][place % columns], axes[2 * (place // columns) + 1][place % columns]
        if place >= len(names):
            above.set_axis_off()
            below.set_axis_off()
            continue
        own = [record for record in records if record["name"] == names[place]]
        for number, record in enumerate(own):
            color = COLORS[number % len(COLORS)]
            _line(above, record["metrics"], "train_loss", color, 0.7, 0.35)
            _line(above, record["metrics"], "val_loss", color, 1.6, 1.0)
            _line(below, record["metrics"], "val_accuracy", color, 1.6, 1.0, 100)
        above.set_ylim(bottom=0, top=roof([row for record in own for row in record["metrics"]]))
        above.set_title(title(own[0]), loc="left", fontsize=9)
        above.set_ylabel("loss", fontsize=8)
        below.set_ylabel("accuracy, %", fontsize=8)
        for part in (above, below):
            part.grid(color="#8883", linewidth=0.6)
            part.spines[["top", "right"]].set_visible(False)
            part.tick_params(labelsize=7)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    data = base64.b64encode(stream.getvalue().encode()).decode()
    return (f'<img class="curves" alt="loss and accuracy curves" src="data:image/svg+xml;base64,{data}">'
            "<p class=caption>Thin: training loss; thick: validation. A line a training, in the order of the list below.</p>")


def _line(axes, rows: List[dict], column: str, color: str, width: float, alpha: float, scale: float = 1) -> None:
    iterations, values = points(rows, column)
    axes.plot(iterations, [scale * value for value in values], color=color, linewidth=width, alpha=alpha)
