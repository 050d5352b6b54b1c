"""metrics.csv and the curve."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gender_smile.training import metrics
from common.progress import duration


def test_rows_are_completed_and_survive_a_resume(tmp_path):
    path = str(tmp_path / "metrics.csv")
    table = metrics.Metrics(path)
    table.add(10, 1.5, train_loss=0.7, learning_rate=0.01, images_per_second=80)
    table.add(10, 2.0, val_loss=0.6, val_accuracy=0.75)
    table.add(20, 4.0, train_loss=0.5)
    table.close()
    assert [tuple(row[name] for name in metrics.COLUMNS) for row in metrics.read(path)] == [
        (10, 0.01, 0.7, 0.6, 0.75, 2.0, 80), (20, None, 0.5, None, None, 4.0, None)]
    again = metrics.Metrics(path, resume=10)
    again.add(20, 1.0, train_loss=0.4)
    again.close()
    assert [(row["iteration"], row["train_loss"], row["seconds"]) for row in metrics.read(path)] == [
        (10, 0.7, 2.0), (20, 0.4, 3.0)]
    assert metrics.last(again.rows, "val_accuracy") == 0.75


@pytest.mark.parametrize("text", ["", "iteration,learning_rate", ",".join(metrics.COLUMNS) + "\n10,0.0"])
def test_a_file_that_is_just_being_written_has_no_rows(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert metrics.read(str(tmp_path / "metrics.csv")) == []
    assert metrics.read(str(tmp_path / "none.csv")) == []


def row(iteration: int, **values) -> dict:
    return dict.fromkeys(metrics.COLUMNS) | {"iteration": iteration, **values}


def lines(axes) -> list:
    """(iterations, values) of each line that is drawn."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_curve_shows_the_rows(tmp_path, saved_figures):
    rows = [row(0, val_loss=0.9, val_accuracy=0.25), row(10, train_loss=0.8),
            row(20, train_loss=0.5, val_loss=0.6, val_accuracy=0.625)]
    metrics.draw(rows, str(tmp_path / "curve.png"), "step 4, GNet")
    above, below = saved_figures[0].axes
    assert lines(above) == [*[([10, 20], [0.8, 0.5])] * 2, ([0, 20], [0.9, 0.6])]  # each of two points is its own mean
    assert [text.get_text() for text in saved_figures[0].legends[0].get_texts()] == ["training", "training, running mean", "validation"]
    assert lines(below) == [([0, 20], [25.0, 62.5])]
    assert [text.get_text() for text in below.texts] == ["62.5 %"] and above.get_title(loc="left") == "step 4, GNet"
    assert above.get_ylim() == (0, pytest.approx(1.08 * 0.9)) and 0 < below.get_ylim()[0] < 25
    picture = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB"))
    assert picture.shape == (720, 900, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


def test_the_running_mean_is_numpys():
    losses = np.random.default_rng(4).random(130)
    x, y = metrics.running_mean(list(range(0, 1300, 10)), list(losses))
    assert y == pytest.approx(np.convolve(losses, np.ones(5) / 5, "valid")) and x[:2] == [20, 30] and len(x) == 126


def test_first_losses_that_tower_over_the_others_do_not_flatten_the_curve(tmp_path, saved_figures):
    rows = [row(0, train_loss=80.0), *(row(iteration, train_loss=0.5) for iteration in range(1, 100))]
    metrics.draw(rows, str(tmp_path / "curve.png"), "")
    assert saved_figures[0].axes[0].get_ylim() == (0, pytest.approx(1.08 * 2 * 0.5))
    assert lines(saved_figures[0].axes[0])[0][1][0] == 80.0  # drawn all the same, beyond the top


def test_curve_of_nothing_and_of_infinite_losses(tmp_path, saved_figures):
    infinite = [row(1, val_loss=float("nan"), train_loss=float("inf")), row(2, train_loss=0.5)]
    for content in ([], infinite):
        metrics.draw(content, str(tmp_path / "curve.png"), "nothing")
        assert Image.open(tmp_path / "curve.png").size == (900, 720)
    (empty, _), (above, below) = (figure.axes for figure in saved_figures)
    assert lines(empty) == [([], [])] * 3 and not below.texts
    assert lines(above)[0] == ([1, 2], [float("inf"), 0.5]) and above.get_ylim() == (0, pytest.approx(1.08 * 0.5))


def test_durations():
    assert [duration(seconds) for seconds in (41.7, 185, 7620)] == ["42 s", "3 min 05 s", "2 h 07 min"]
