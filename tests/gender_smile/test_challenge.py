"""The challenge's file, written and scored."""

from __future__ import annotations

import csv
import os

import pytest

from evaluation_project import results, run, write_photos


def test_submission_is_written_and_scored(scored_project, capsys):
    """smile = (brightness + 0.4) / 2: a and c smile; gender is wrong for c; d has no row, and so counts as wrong."""
    folder, path = write_photos(scored_project), str(scored_project / "mine.csv")
    assert run("--photos", folder, "--submission", path) == 0
    assert "mine.csv: 3 of 4 photos" in capsys.readouterr().out
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image_name", "bbox_x", "bbox_y", "bbox_width", "bbox_height", "Gender", "Smile"]
    assert rows[1:] == [["a.jpg", "30.0", "30.0", "40.0", "50.0", "1", "1"], ["b.jpg", "30.0", "30.0", "40.0", "50.0", "0", "0"],
                        ["c.jpg", "30.0", "30.0", "40.0", "50.0", "1", "1"]]
    assert run("--photos", folder, "--score", path) == 0
    text = capsys.readouterr().out
    assert "gender 50.00 % of 4 faces" in text and "smile  66.67 % of 3 faces" in text
    assert "not predicted, counts as wrong: d.jpg" in text
    assert "Organizers' error: 1.5 over 3 images" in text


def test_a_submission_is_scored_on_the_photos_it_was_written_for(scored_project, capsys):
    """a.jpg is listed, but gone: both ways it counts as wrong, also where a submission has a row for it."""
    folder, path = write_photos(scored_project), scored_project / "mine.csv"
    os.remove(os.path.join(folder, "smiles_valset", "a.jpg"))
    assert run("--photos", folder, "--submission", str(path)) == 0
    assert results("_photos")["gender"] == (0.25, 4, 2)
    capsys.readouterr()
    for extra in ("", "a.jpg,1,2,3,4,1,1\n"):
        path.write_text(path.read_text() + extra)
        assert run("--photos", folder, "--score", str(path)) == 0
        text = capsys.readouterr().out
        assert "gender 25.00 % of 4 faces" in text and "Organizers' error: 2.5 over 3 images" in text
        assert "counts as wrong: a.jpg" in text and "counts as wrong: d.jpg" in text


@pytest.mark.parametrize("line, message", [
    ("x" * 200_000 + ",1,2,3,4,1,0", "line 2: not a row of a table (field larger"),
    ("a.jpg,1,2,3,4,1", "line 2: 6 values instead of 7"), ("a.jpg,1,2,3,4,1,0.7", "line 2: gender and smile are '1' and '0.7'"),
    ("z.jpg,1,2,3,4,1,0", "1 rows are of images that the table does not list, such as z.jpg"),
    ("b.jpg,1,2,3,4,0,0", "line 2: b.jpg again")])
def test_a_submission_that_is_not_of_the_form(scored_project, capsys, line, message):
    path = scored_project / "mine.csv"
    path.write_text(f"b.jpg, 1, 2, 3, 4, 0, 1\n{line}\n")
    assert run("--photos", write_photos(scored_project), "--score", str(path)) == 2
    assert message in capsys.readouterr().err
