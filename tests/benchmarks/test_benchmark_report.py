"""The page of benchmarks: the tables are written anew, what was written by hand below them stays."""

from __future__ import annotations

from pathlib import Path

from benchmarks import report
from benchmarks.measuring import Row


def test_costs_stay_when_the_tables_are_written_anew(tmp_path: Path, monkeypatch) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n## Old table\n\n| 1 |\n" + report.COSTS + "\nNine trainings.\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    row = Row("one image", 2.0, 1.0, "real Caffe 1.0", "images/s", ("at least", 3.0))
    monkeypatch.setattr(report, "measure", lambda name: [row] if name == "inference" else [])
    monkeypatch.setattr("sys.argv", ["report.py"])
    for _ in range(2):
        assert report.main() == 0
        text = page.read_text()
        assert text.endswith(report.COSTS + "\nNine trainings.\n") and text.count(report.COSTS) == 1
        assert "Old table" not in text
        assert "| one image | 2 images/s | real Caffe 1.0: 1 images/s | 2 | at least 3, **missed** |" in text


def test_committed_page_has_the_marker() -> None:
    assert "Nine trainings" in report.written_by_hand(report.PAGE)
    assert report.written_by_hand(report.PAGE.with_name("missing.md")) == ""
