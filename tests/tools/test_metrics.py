"""metrics.csv and the curve."""

from __future__ import annotations

import pytest

from tools import metrics
from tools.progress import duration


def test_rows_are_completed_and_survive_a_resume(tmp_path):
    path = str(tmp_path / "metrics.csv")
    table = metrics.Metrics(path)
    table.add(10, 1.5, train_loss=0.7, learning_rate=0.01)
    table.add(10, 2.0, val_loss=0.6, val_accuracy=0.75)
    table.add(20, 4.0, train_loss=0.5)
    table.close()
    assert [tuple(row[name] for name in metrics.COLUMNS) for row in metrics.read(path)] == [
        (10, 0.01, 0.7, 0.6, 0.75, 2.0), (20, None, 0.5, None, None, 4.0)]
    again = metrics.Metrics(path, resume=10)
    again.add(20, 1.0, train_loss=0.4)
    again.close()
    assert [(row["iteration"], row["train_loss"], row["seconds"]) for row in metrics.read(path)] == [
        (10, 0.7, 2.0), (20, 0.4, 3.0)]
    assert again.last("val_accuracy") == 0.75


@pytest.mark.parametrize("text", ["", "iteration,learning_rate", ",".join(metrics.COLUMNS) + "\n10,0.0"])
def test_a_file_that_is_just_being_written_has_no_rows(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert metrics.read(str(tmp_path / "metrics.csv")) == []
    assert metrics.read(str(tmp_path / "none.csv")) == []


def test_curve_of_nothing_and_of_infinite_losses(tmp_path):
    rows = [dict.fromkeys(metrics.COLUMNS) | {"iteration": 1, "val_loss": float("nan"), "train_loss": float("inf")}]
    for content in ([], rows):
        metrics.draw(content, str(tmp_path / "curve.png"), "nothing")
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_durations():
    assert [duration(seconds) for seconds in (41.7, 185, 7620)] == ["42 s", "3 min 05 s", "2 h 07 min"]
