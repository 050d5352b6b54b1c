"""Accuracy by group: which faces are asked about, what they look like, what is counted where."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

import recipe
from pipeline_fakes import install, photo
from benchmarks import groups
from benchmarks.groups import GROUPS, Row, certainty_table, share, table


@pytest.fixture
def project(tmp_path, fake_project):
    """A pipeline whose GNet takes bright faces for women's, and data sets of photos whose face lies in the middle."""
    install(fake_project, {"gnet": "bright", "snet1": 0.9, "snet2": 0.3})
    return tmp_path


def fotw(folder, rows) -> str:
    """FotW with `rows` of (brightness of a photo, box, gender, smile) to validate, and the same to train on."""
    for part, name in (("smiles_trset", "gender_fex_trset.csv"), ("smiles_valset", "gender_fex_valset.csv")):
        (folder / part).mkdir(parents=True)
        lines = ["image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile"]
        for number, (brightness, box, gender, smile) in enumerate(rows):
            Image.fromarray(photo(brightness)).save(folder / part / f"{number}.png")
            lines.append(f"{number}.png, {', '.join(map(str, box))}, {gender}, {smile}")
        (folder / part / name).write_text("\r\n".join(lines) + "\r\n")
    return str(folder)


MIDDLE, CORNER = (30, 30, 40, 50), (0, 0, 10, 10)


def test_faces_that_were_not_trained_on_the_annotated_one_of_each_photo(project, capsys):
    folder = fotw(project / "FotW", [
        (200, MIDDLE, 1, 1),  # bright, a woman: right; smiling 0.6: right
        (60, MIDDLE, 1, 0),  # dark, a woman: wrong; not smiling: wrong
        (60, MIDDLE, 0, 2),  # dark, a man: right; no smile annotated
        (0, MIDDLE, 0, 1),  # nobody found
        (200, CORNER, 0, 1),  # somebody else found
        (255, CORNER, 1, 1),  # two found, of which the one in the corner is meant
    ])
    assert groups.main(["--fotw", folder, "--profile", "demo"]) == 0
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows["FotW"] == rows["all"] and rows["CelebA"][0] == "0"
    assert rows["all"] == ["6", "2", share([True, False, True, False, False, True]), share([True, False, False, False, True]) + " |"]
    assert rows["annotated as women"][:3] == ["3", "0", share([True, False, True])]
    assert rows["men, smiling"][:3] == ["2", "2", share([False, False])]
    assert rows["with glasses (CelebA)"][0] == "0" and rows["gray photo"][0] == "6"
    with open(project / "project" / "runs" / "demo" / "groups.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["gender_probability"] != "" for row in written] == [True, True, True, False, False, True]
    assert [row["height"] for row in written] == ["50.0", "50.0", "50.0", "", "", "10.0"]


def test_photos_can_be_made_gray_or_small_first(project):
    seen = []
    pixels = photo(200)
    pixels[..., 0] = 50

    class Watch:
        def predict_photos(self, photos, all_faces):
            for one in photos:
                seen.append(one.pixels)
                yield one, []

    folder = fotw(project / "FotW", [(200, MIDDLE, 1, 1)])
    Image.fromarray(pixels).save(project / "FotW" / "smiles_valset" / "0.png")
    faces = groups.held_out(folder, None)
    list(groups.answer(Watch(), faces))
    list(groups.answer(Watch(), faces, groups.Change(gray=True, shrink=4)))
    assert seen[0].shape == (100, 100, 3) and not groups.is_gray(seen[0])
    assert seen[1].shape == (25, 25, 3) and groups.is_gray(seen[1])
    list(groups.answer(Watch(), faces, groups.Change(shrink=1e9)))
    assert seen[2].shape == (1, 1, 3)


def test_boxes_shrink_with_their_photos(project):
    from gender_smile.inference.pipeline import Pipeline

    faces = groups.held_out(fotw(project / "FotW", [(255, (14, 14, 20, 20), 1, 1)]), None)
    pipeline = Pipeline.load("demo")
    assert [row.height for row in groups.answer(pipeline, faces)] == [50]  # the face of the middle
    assert [row.height for row in groups.answer(pipeline, faces, groups.Change(shrink=2))] == [10]  # the corner's, which stays as large


def test_celeba_without_what_was_trained_on(project):
    folder = project / "CelebA"
    (folder / "img_celeba").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(3)]
    for name in names:
        Image.fromarray(photo(200)).save(folder / "img_celeba" / name)
    row = " ".join("1" if name == "Eyeglasses" else "-1" for name in recipe.CELEBA_ATTRIBUTES)
    (folder / "list_attr_celeba.txt").write_text(f"3\n{' '.join(recipe.CELEBA_ATTRIBUTES)}\n" + "".join(f"{name} {row}\n" for name in names))
    (folder / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for part, name in enumerate(names)))
    (folder / "list_bbox_celeba.txt").write_text("3\nimage_id x_1 y_1 width height\n" + "".join(f"{name} 30 30 40 50\n" for name in names))
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    (folder / "list_landmarks_celeba.txt").write_text(f"3\n{points}\n" + "".join(f"{name} 1 2 3 4 5 6 7 8 9 10\n" for name in names))
    found = groups.held_out(None, str(folder))
    assert [path[-5:] for path, _, _ in found] == ["1.jpg", "2.jpg"]
    assert [labels for _, _, labels in found] == [{"gender": 1, "smile": 0, "glasses": 1}] * 2


def test_photos_can_be_blurred_or_cut_first(project):
    """The box goes with the photo: the left 15 of 40 columns are cut off, the lowest 25 of 50 rows."""
    from gender_smile.inference.photos import Photo

    noise = np.random.default_rng(1).integers(0, 256, (100, 100, 3), np.uint8)
    cut, box = groups.Change(cut=0.375).apply(Photo("a", noise), MIDDLE)
    assert np.array_equal(cut.pixels, noise[:, 45:]) and box == (-15, 30, 40, 50)
    cut, box = groups.Change(cut_below=0.5).apply(Photo("a", noise), MIDDLE)
    assert np.array_equal(cut.pixels, noise[:55]) and box == MIDDLE
    blurred, _ = groups.Change(blur=0.1).apply(Photo("a", noise), MIDDLE)
    assert blurred.pixels.std() < noise.std() / 4
    same, box = groups.Change().apply(Photo("a", noise), MIDDLE)
    assert np.array_equal(same.pixels, noise) and box == MIDDLE


def test_certainty():
    """Probabilities on both sides of one half, at the borders, unlabeled and unfound faces."""
    probabilities = (0.5, 0.3, 0.75, 0.05, 0.99, 1.0, 0.0, None, 0.95)
    rows = [Row(str(n), "FotW", None if n == 8 else 1, 0, None, False, p, 0.6) for n, p in enumerate(probabilities)]
    lines = certainty_table(rows).splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert [cell[0] for cell in cells] == ["50% to 75%", "75% to 90%", "90% to 99%", "99% to 100%"]
    assert [cell[1] for cell in cells] == ["2", "1", "1", "3"]
    assert [cell[2][:5] for cell in cells] == ["0.0 %", "100.0", "0.0 %", "66.7 "]
    assert cells[0][3:] == ["9", share([False] * 9)]


def test_groups_that_split_all_faces_leave_none_out():
    random = np.random.RandomState(1)
    rows = [Row(str(n), ("FotW", "CelebA")[n % 5 == 0], n % 2, n // 2 % 2, None, bool(n % 3), 0.5, 0.5, random.randn() / 3, random.randn() * 20,
                random.rand() * 200, random.rand() * 255.0) for n in range(300)]
    counts = {title: sum(map(belongs, rows)) for title, belongs in GROUPS.items()}
    for words in (("facing", "turned a", "turned far"), ("upright", "tilted"), ("face below 80", "face of"), ("dark", "lighter"), ("gray", "photo in"), ("annotated",), ("FotW", "CelebA")):
        assert sum(count for title, count in counts.items() if title.startswith(words)) == 300, words
    assert table(rows).count("\n") == len(GROUPS) + 1


def test_wrong_use(project, capsys):
    for flags in ([], *(["--fotw", "x", "--shrink", shrink] for shrink in ("0.5", "inf", "nan"))):
        with pytest.raises(SystemExit) as stop:
            groups.main(flags)
        assert stop.value.code == 2
        assert ("--shrink is a number from 1 on" if flags else "--fotw") in capsys.readouterr().err.splitlines()[-1]
    assert groups.main(["--fotw", str(project / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err.splitlines()[-1]


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(project, capsys):
    (project / "project" / "runs").write_text("in the way")
    assert groups.main(["--fotw", fotw(project / "FotW", [(200, MIDDLE, 1, 1)]), "--profile", "demo"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("runs/demo/groups.csv: cannot be written: Not a directory\n")


def test_a_disk_that_fills_costs_the_file_and_not_the_table(project, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device", "groups.csv")

    monkeypatch.setattr(groups, "write", full)
    assert groups.main(["--fotw", fotw(project / "FotW", [(200, MIDDLE, 1, 1)]), "--profile", "demo"]) == 2
    captured = capsys.readouterr()
    assert "| all | 1 | 0 |" in captured.out and captured.err.endswith("groups.csv: No space left on device\n")


def test_a_reader_that_goes_away_costs_the_table_and_not_the_file(project, monkeypatch):
    def gone(*arguments, **options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    assert groups.main(["--fotw", fotw(project / "FotW", [(200, MIDDLE, 1, 1)]), "--profile", "demo"]) == 1
    assert (project / "project" / "runs" / "demo" / "groups.csv").read_text().count("\n") == 2


def test_shares_of_nothing():
    assert share([]) == share([None]) == "–"
