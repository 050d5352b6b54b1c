"""fotw.py on FotW's layout, its real tables and broken ones."""

from __future__ import annotations

import shutil

import pytest

from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import read_fotw
from recipe import UNUSABLE

TRAIN = "smiles_trset/gender_fex_trset.csv"


def test_everything_is_read(fotw):
    dataset = read_fotw(fotw)
    assert [record.split for record in dataset.records] == ["train"] * 6 + ["val"] * 3 and not dataset.skipped
    assert dataset.label_names == ("Gender", "Smile")
    record = dataset.records[1]
    assert record.image == "smiles_trset/im_GenFex_00002.jpg" and record.box == (14, 14, 20, 20) and record.line == 3
    assert record.landmarks is None and record.labels == bytes([1, 1])


def test_label_that_is_neither_zero_nor_one_is_unusable_for_its_task(fotw, edit):
    edit(fotw / TRAIN, "20,20,0,0", "20,20,3,male")
    labels = [record.labels for record in read_fotw(fotw, ("train",)).records]
    assert labels[0] == bytes([UNUSABLE, UNUSABLE])
    assert labels[4] == bytes([UNUSABLE, 1]) and labels[5] == bytes([0, UNUSABLE])


def test_test_split(fotw):
    folder = fotw / "track3_testing/track3_all"
    folder.mkdir(parents=True)
    shutil.copy(fotw / "smiles_valset/im_GenFex_00007.jpg", folder)
    table = "image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile\r\nim_GenFex_00007.jpg,1,2,3,4,1,0\r\n"
    for place in (folder, fotw / "track3_testing", fotw):
        (place / "test_gt.csv").write_text(table)
        (record,) = read_fotw(fotw, ("test",)).records
        assert record.image == "track3_testing/track3_all/im_GenFex_00007.jpg" and record.split == "test"
        (place / "test_gt.csv").unlink()


def test_folder_with_the_archives_prefix(fotw):
    (fotw / "smiles_trset").rename(fotw / "datasets_None_0f1e_smiles_trset")
    assert read_fotw(fotw).records[0].image == "datasets_None_0f1e_smiles_trset/im_GenFex_00001.jpg"


def test_table_beside_the_photos_folder(fotw):
    (fotw / TRAIN).rename(fotw / "gender_fex_trset.csv")
    dataset = read_fotw(fotw)
    assert len(dataset.records) == 9 and dataset.tables["train"] == "gender_fex_trset.csv"


@pytest.mark.parametrize("old, new, reason", [
    ("im_GenFex_00003.jpg,", "im_GenFex_99999.jpg,", "image file is missing"),
    ("im_GenFex_00003.jpg,", "../smiles_valset/im_GenFex_00007.jpg,", "leaves the data set's folder"),
    ("im_GenFex_00003.jpg,", ",", "no usable file name"),
    ("im_GenFex_00003.jpg,14", "im_GenFex_00003.jpg,left", "bbox_x is 'left', not a number"),
    ("im_GenFex_00003.jpg,14,", "im_GenFex_00003.jpg,", "6 values instead of 7"),
    ("im_GenFex_00003.jpg,", "im_GenFex_00001.jpg,", "named in line 2 already"),
])
def test_broken_row_is_skipped_by_name(fotw, edit, old, new, reason):
    edit(fotw / TRAIN, old, new)
    dataset = read_fotw(fotw)
    (entry,) = dataset.skipped
    assert len(dataset.records) == 8 and reason in entry.reason
    assert (entry.split, entry.file, entry.line) == ("train", TRAIN, 4)


@pytest.mark.parametrize("old, new, message", [
    (" Smile", " Smiles", f"{TRAIN}: no column Smile; its header has: image_name, .*, Smiles"),
    ("bbox_width", "bbox_w", "no column bbox_width"),
])
def test_missing_column_is_fatal(fotw, edit, old, new, message):
    edit(fotw / TRAIN, old, new)
    with pytest.raises(BuildError, match=message):
        read_fotw(fotw)


def test_missing_or_unreadable_table_is_fatal(fotw):
    (fotw / TRAIN).write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(BuildError, match="not a text file"):
        read_fotw(fotw)
    (fotw / TRAIN).unlink()
    with pytest.raises(BuildError, match=f"{TRAIN} is missing; looked for"):
        read_fotw(fotw)
    with pytest.raises(BuildError, match="no such folder"):
        read_fotw(fotw / "nowhere")


def test_real_tables(fotw, real_annotations, monkeypatch):
    """The published tables: all rows parse; the photos, which are not here, are taken to be."""
    names = set()
    for split, name in (("smiles_trset", "gender_fex_trset.csv"), ("smiles_valset", "gender_fex_valset.csv")):
        shutil.copy(real_annotations / name, fotw / split)
        names.update(line.split(",")[0] for line in (fotw / split / name).read_text().splitlines())
    monkeypatch.setattr("lmdb_builders.layouts.Photos.find", lambda photos, name: name if name in names else None)
    dataset = read_fotw(fotw)
    assert not dataset.skipped and len(dataset.records) == 6078 + 3052
    women = sum(record.labels[0] == 1 for record in dataset.records if record.split == "train")
    smiles = sum(record.labels[1] == 1 for record in dataset.records if record.split == "val")
    assert (women, smiles) == (1586 + 1174, 587 + 523)
