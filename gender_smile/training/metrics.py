"""A run's numbers: metrics.csv, and the picture of it.

    from gender_smile.training.metrics import read, draw
    draw(read("runs/demo/step4_gnet/metrics.csv"), "curve.png", "step 4, GNet")
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from typing import Dict, List, Optional, Tuple

from common import palette
from common.files import whole_file

COLUMNS = ("iteration", "learning_rate", "train_loss", "val_loss", "val_accuracy", "seconds", "images_per_second")
Row = Dict[str, Optional[float]]


class Metrics:
    """metrics.csv of a run, one row an iteration that was displayed or tested, written as it happens.

    train_loss is the mean over the iterations since the row before; val_loss and val_accuracy are means over the
    validation faces; seconds count from the start, over all parts of a run that was stopped and resumed;
    images_per_second is of the training since the row before, without tests and snapshots. With `resume`, rows up to that
    iteration stay and later ones go, as the training goes back to its snapshot.
    """

    def __init__(self, path: str, resume: int = 0):
        self.rows: List[Row] = [row for row in read(path) if row["iteration"] <= resume] if resume else []
        self.began = self.rows[-1]["seconds"] or 0.0 if self.rows else 0.0
        self.stream = open(path + ".part", "w", newline="")
        self._write(",".join(COLUMNS) + "\n")
        for row in self.rows:
            self._put(row)
        os.replace(path + ".part", path)  # where the disk is full, the rows that were there stay

    def add(self, iteration: int, seconds: float, **values: float):
        """Numbers of an iteration; a second call for the same iteration completes its row."""
        if self.rows and self.rows[-1]["iteration"] == iteration:
            self.stream.seek(self.start)
            self.stream.truncate()
        else:
            self.rows.append(dict.fromkeys(COLUMNS))
        self.rows[-1].update(values, iteration=iteration, seconds=round(self.began + seconds, 2))
        self._put(self.rows[-1])

    def close(self):
        with contextlib.suppress(OSError):  # what could not be written has been told when it was
            self.stream.close()

    def _put(self, row: Row):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(
            ["" if row[name] is None else f"{row[name]:.7g}" for name in COLUMNS])
        self.start = self.stream.tell()
        self._write(text.getvalue())

    def _write(self, text: str):
        self.stream.write(text)
        self.stream.flush()


def read(path: str) -> List[Row]:
    """Rows of a metrics.csv, None where a cell is empty; no rows where there is no file.

    A row that is being written at this moment is left out.
    """
    if not os.path.exists(path):
        return []
    rows = []
    with open(path, newline="") as stream:
        lines = csv.reader(stream)
        columns = next(lines, [])  # an older file has no images_per_second
        for cells in lines:
            try:
                numbers = [float(cell) if cell else None for cell in cells]
                row = dict(zip(columns, numbers, strict=True))
                rows.append({**dict.fromkeys(COLUMNS), **row, "iteration": int(row["iteration"])})
            except (KeyError, TypeError, ValueError):  # a torn row, or no metrics.csv
                continue
    return rows


def last(rows: List[Row], column: str) -> Optional[float]:
    """Newest value of a column; None where it has none."""
    return next((row[column] for row in reversed(rows) if row[column] is not None), None)


def draw(rows: List[Row], path: str, title: str):
    """Curve of `rows` as a PNG: the losses above, validation accuracy below, over iterations."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x, y = points(rows, "train_loss")
    above.plot(x, y, color=palette.TRAINING, linewidth=0.8, alpha=0.45, label="training")
    above.plot(*running_mean(x, y), color=palette.TRAINING, linewidth=1.8, label="training, running mean")
    above.plot(*points(rows, "val_loss"), color=palette.VALIDATION, linewidth=1.8, marker="o", markersize=3.5, label="validation")
    above.set_ylabel("loss")
    above.set_ylim(bottom=0, top=roof(rows))
    figure.legend(*above.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    x, y = points(rows, "val_accuracy")
    y = [100.0 * value for value in y]
    below.plot(x, y, color=palette.ACCURACY, linewidth=1.8, marker="o", markersize=3.5)
    if y:
        below.annotate(f"{y[-1]:.1f} %", (x[-1], y[-1]), xytext=(-4, 7), textcoords="offset points", ha="right",
                       color=palette.ACCURACY, fontweight="bold")
    below.margins(y=0.25)
    below.set_ylabel("validation accuracy, %")
    below.set_xlabel("iteration")
    for axes in (above, below):
        axes.grid(color=palette.GRID, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    above.set_title(title, loc="left", fontsize=11)
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def running_mean(x: List[float], y: List[float], windows: int = 25) -> Tuple[List[float], List[float]]:
    """(x, y) of a curve's means over windows of a `windows`th of its points, each at the window's middle."""
    width = max(1, len(y) // windows)
    return ([sum(x[start:start + width]) / width for start in range(len(x) - width + 1)],
            [sum(y[start:start + width]) / width for start in range(len(y) - width + 1)])


def points(rows: List[Row], column: str) -> Tuple[List[float], List[float]]:
    """(iterations, values) of the rows that have a value of the column."""
    kept = [row for row in rows if row[column] is not None]
    return [row["iteration"] for row in kept], [row[column] for row in kept]


def roof(rows: List[Row]) -> Optional[float]:
    """Top of the loss axis: the highest loss, unless the first few rows tower over all the others."""
    losses = [row[name] for row in rows for name in ("train_loss", "val_loss")
              if row[name] is not None and math.isfinite(row[name])]
    if not losses:
        return None
    late = sorted(losses)[int(0.95 * (len(losses) - 1))]
    return 1.08 * min(max(losses), 2.0 * late) or None
