"""celeba.py on CelebA's layouts, its real table and broken ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import recipe
from lmdb_builders.celeba import read_celeba
from lmdb_builders.errors import BuildError
from lmdb_builders.images import read_image

ALL = ("train", "val", "test")


def test_everything_is_read(celeba):
    dataset = read_celeba(celeba, splits=ALL)
    assert [record.split for record in dataset.records] == ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    assert not dataset.skipped and dataset.label_names == recipe.LABELS
    record = dataset.records[4]
    assert record.image == "Img/img_celeba/000005.jpg" and record.box == (12, 12, 24, 24) and record.line == 5
    assert record.landmarks.shape == (5, 2)
    assert set(dataset.sources) == {
        "Anno/list_attr_celeba.txt", "Anno/list_bbox_celeba.txt", "Anno/list_landmarks_celeba.txt",
        "Eval/list_eval_partition.txt",
    }


def test_labels_are_zero_and_one_with_female_turned(celeba):
    for number, record in enumerate(read_celeba(celeba, splits=ALL).records):
        for position, name in enumerate(recipe.CELEBA_ATTRIBUTES):
            positive = (number + position) % 3 == 0
            assert record.labels[position] == (not positive if name == "Male" else positive)


def test_attributes_are_found_by_name(celeba, edit):
    before = read_celeba(celeba).records[0].labels
    path = celeba / "Anno/list_attr_celeba.txt"
    lines = path.read_text().split("\n")
    turned = [lines[0], *(" ".join([*row[:-40], *row[-40:][::-1]]) for row in map(str.split, lines[1:]) if row)]
    path.write_text("\n".join(turned))
    assert read_celeba(celeba).records[0].labels == before


def test_only_asked_splits_are_read(celeba):
    assert {record.split for record in read_celeba(celeba).records} == {"train", "val"}


def test_files_in_one_folder_and_nested_photos(celeba, tmp_path):
    flat = tmp_path / "flat"
    (flat / "img_celeba").mkdir(parents=True)
    for table in [*celeba.glob("Anno/*"), *celeba.glob("Eval/*")]:
        shutil.copy(table, flat)
    shutil.copytree(celeba / "Img/img_celeba", flat / "img_celeba/img_celeba")
    assert len(read_celeba(flat, splits=ALL).records) == 12


def test_csv_edition_with_aligned_photos(celeba, tmp_path):
    other = tmp_path / "csv"
    shutil.copytree(celeba / "Img/img_celeba", other / "img_align_celeba/img_align_celeba")
    for source, target, first in (
        ("Anno/list_attr_celeba.txt", "list_attr_celeba.csv", "image_id"),
        ("Anno/list_landmarks_celeba.txt", "list_landmarks_align_celeba.csv", "image_id"),
        ("Eval/list_eval_partition.txt", "list_eval_partition.csv", "image_id partition"),
    ):
        lines = [line.split() for line in (celeba / source).read_text().splitlines()]
        if "Anno" in source:
            lines = [["image_id", *lines[1]], *lines[2:]]
        else:
            lines = [first.split(), *lines]
        (other / target).write_text("\n".join(",".join(cells) for cells in lines))
    found, expected = read_celeba(other, splits=ALL), read_celeba(celeba, splits=ALL)
    assert [record.labels for record in found.records] == [record.labels for record in expected.records]
    assert found.records[0].box is None and np.array_equal(found.records[0].landmarks, expected.records[0].landmarks)
    assert any("aligned" in note for note in found.notes)


@pytest.mark.parametrize("file, old, new, message", [
    ("Anno/list_attr_celeba.txt", " Smiling ", " Smirking ", "list_attr_celeba.txt: no column Smiling; its header has"),
    ("Anno/list_landmarks_celeba.txt", "nose_x", "snout_x", "no column nose_x"),
    ("Anno/list_bbox_celeba.txt", "width", "breadth", "no column width"),
])
def test_missing_column_is_fatal(celeba, edit, file, old, new, message):
    edit(celeba / file, old, new)
    with pytest.raises(BuildError, match=message):
        read_celeba(celeba)


@pytest.mark.parametrize("path, message", [
    ("Anno/list_attr_celeba.txt", "Anno/list_attr_celeba.txt is missing"),
    ("Eval/list_eval_partition.txt", "Eval/list_eval_partition.txt is missing"),
    ("Img", "no photos found"),
    ("", "no such folder"),
])
def test_missing_file_is_fatal(celeba, path, message):
    target = celeba / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(BuildError, match=message):
        read_celeba(celeba)


@pytest.mark.parametrize("content", [b"", b"12\n", b"\xff\xd8\xff\xe0 not text"])
def test_table_that_is_no_table_is_fatal(celeba, content):
    (celeba / "Anno/list_attr_celeba.txt").write_bytes(content)
    with pytest.raises(BuildError, match="list_attr_celeba.txt"):
        read_celeba(celeba)


@pytest.mark.parametrize("file, old, new, reason", [
    ("Eval/list_eval_partition.txt", "000003.jpg 0", "999999.jpg 0", "no row in list_attr_celeba.txt"),
    ("Eval/list_eval_partition.txt", "000003.jpg 0", "000003.jpg 7", "partition is '7', expected 0, 1 or 2"),
    ("Eval/list_eval_partition.txt", "000003.jpg 0", "000003.jpg", "partition is '', expected"),
    ("Anno/list_landmarks_celeba.txt", "000003.jpg 20", "000003.jpg x", "list_landmarks_celeba.txt line 5: a value is"),
    ("Anno/list_landmarks_celeba.txt", "000003.jpg 20", "000003.jpg", "line 5: 9 values instead of 10"),
    ("Anno/list_attr_celeba.txt", "000003.jpg -1", "000003.jpg 0", "line 5: 5_o_Clock_Shadow is 0, not -1 or 1"),
])
def test_broken_row_is_skipped_by_name(celeba, edit, file, old, new, reason):
    edit(celeba / file, old, new)
    dataset = read_celeba(celeba)
    (entry,) = dataset.skipped
    assert len(dataset.records) == 9 and reason in entry.reason
    assert (entry.file, entry.line, entry.split) == ("Eval/list_eval_partition.txt", 3, "train")


def test_missing_photo_is_skipped_by_name(celeba):
    (celeba / "Img/img_celeba/000009.jpg").unlink()
    (entry,) = read_celeba(celeba).skipped
    assert entry == ("val", "000009.jpg", "Eval/list_eval_partition.txt", 9, "image file is missing")


def test_links_in_the_folder_are_followed(celeba, tmp_path):
    """Photos on another disk, one by one or as a folder: the links are the user's, not the table's."""
    photos = celeba / "Img/img_celeba"
    (tmp_path / "disk").mkdir()
    photos.joinpath("000002.jpg").rename(tmp_path / "disk" / "other.jpg")
    photos.joinpath("000002.jpg").symlink_to(tmp_path / "disk" / "other.jpg")
    expected = [record.image for record in read_celeba(celeba, splits=ALL).records]
    photos.rename(tmp_path / "disk" / "img_celeba")
    photos.symlink_to(tmp_path / "disk" / "img_celeba")
    found = read_celeba(celeba, splits=ALL)
    assert len(found.records) == 12 and [record.image for record in found.records] == expected
    assert read_image(celeba / found.records[1].image).shape[2] == 3


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "..\\x.jpg", "a/../../b.jpg"])
def test_name_that_leaves_the_folder_is_skipped(celeba, name):
    for path in [*celeba.glob("Anno/*"), *celeba.glob("Eval/*")]:
        path.write_text(path.read_text().replace("000003.jpg", name))
    (entry,) = read_celeba(celeba).skipped
    assert entry.image == name and "leaves the data set's folder" in entry.reason


def test_count_that_differs_and_images_without_partition_are_told(celeba, edit):
    edit(celeba / "Anno/list_attr_celeba.txt", "12\n", "202599\n")
    edit(celeba / "Eval/list_eval_partition.txt", "000012.jpg 2\n", "")
    notes = read_celeba(celeba).notes
    assert "Anno/list_attr_celeba.txt announces 202599 rows and has 12" in notes
    assert any(note.startswith("1 images of list_attr_celeba are in no partition") for note in notes)


def test_real_attribute_table(celeba, real_annotations):
    """CelebA's published table (its first 5,000 rows, CRLF): 000001.jpg is a smiling woman."""
    shutil.copy(real_annotations / "list_attr_celeba.head.txt", celeba / "Anno/list_attr_celeba.txt")
    dataset = read_celeba(celeba, splits=ALL)
    assert len(dataset.records) == 12 and not dataset.skipped
    labels = dict(zip(recipe.LABELS, dataset.records[0].labels))
    assert labels["Female"] == labels["Smiling"] == labels["Young"] == 1 and labels["Bald"] == 0


def test_real_landmarks_are_in_the_viewers_order(real_celeba):
    points = np.stack([record.landmarks for record in read_celeba(real_celeba, splits=ALL).records])
    assert len(points) == 2320
    assert (points[:, 0, 0] < points[:, 1, 0]).mean() > 0.99  # left eye left of the right eye
    assert (points[:, 3, 0] < points[:, 4, 0]).mean() > 0.99  # mouth corners likewise
    assert (points[:, 0, 1] < points[:, 3, 1]).mean() > 0.99  # eyes above the mouth
