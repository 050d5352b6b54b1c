"""Data sets as people have them: each layout made of the same made-up photos gives the same faces."""

from __future__ import annotations

import csv
import os
import shutil
import sys

import pytest

import recipe
from lmdb_builders.celeba import read_celeba
from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import read_fotw

ALL = ("train", "val", "test")
UUID = "datasets_None_1e9d5f3c-5f0b-4a2a-8a35-11f2a7e7b0c4_"


def faces(dataset):
    """What does not depend on where the photos lie."""
    return [(record.split, os.path.splitext(os.path.basename(record.image))[0], record.box, record.labels,
             None if record.landmarks is None else record.landmarks.tolist()) for record in dataset.records]


def move(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


# ---------------------------------------------------------------------------------------------- FotW
@pytest.mark.parametrize("train, val", [
    (f"{UUID}smiles_trset", f"{UUID}smiles_valset"),
    (f"{UUID}smiles_trset/smiles_trset", f"{UUID}smiles_valset/smiles_valset"),
    ("smiles_trset/smiles_trset", "smiles_valset/smiles_valset"),
    (f"train/{UUID}smiles_trset/smiles_trset", f"val/{UUID}smiles_valset/smiles_valset"),
    ("smiles_trset.zip/smiles_trset", "FotW/smiles_valset"),
])
def test_fotw_in_the_folders_of_its_archives(fotw, tmp_path, train, val):
    expected = faces(read_fotw(fotw))
    move(fotw / "smiles_trset", tmp_path / "given" / train)
    move(fotw / "smiles_valset", tmp_path / "given" / val)
    dataset = read_fotw(tmp_path / "given")
    assert len(expected) == 9 and faces(dataset) == expected and not dataset.skipped
    assert all((tmp_path / "given" / record.image).is_file() for record in dataset.records)
    assert dataset.notes[0] == f"train: {train}/gender_fex_trset.csv, photos in {train}"


def test_fotws_official_test_folder(fotw):
    folder = fotw / f"{UUID}track3_testing/track3_all"
    folder.mkdir(parents=True)
    shutil.copy(fotw / "smiles_valset/im_GenFex_00007.jpg", folder)
    table = "image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile\r\nim_GenFex_00007.jpg,1,2,3,4,1,0\r\n"
    (fotw / "test_gt.csv").write_text(table)
    (record,) = read_fotw(fotw, ("test",)).records
    assert record.image == f"{UUID}track3_testing/track3_all/im_GenFex_00007.jpg"


def test_two_folders_that_could_be_meant_are_both_named(fotw):
    shutil.copytree(fotw / "smiles_trset", fotw / "old/smiles_trset")
    with pytest.raises(BuildError, match="2 folders of photos named smiles_trset: old/smiles_trset, smiles_trset; keep one"):
        read_fotw(fotw)


def test_fotw_with_semicolons_quotes_and_other_extensions(fotw):
    expected = faces(read_fotw(fotw))
    for table in fotw.glob("*/*.csv"):
        rows = list(csv.reader(table.read_text().splitlines(), skipinitialspace=True))
        with table.open("w", newline="") as file:
            csv.writer(file, delimiter=";", quoting=csv.QUOTE_ALL).writerows(rows)
    for photo in fotw.glob("*/*1.jpg"):
        photo.rename(photo.with_suffix(".JPG"))
    assert faces(read_fotw(fotw)) == expected


@pytest.mark.parametrize("archive, command", [
    ("smiles_trset.zip", "unzip '{0}/my data/smiles_trset.zip' -d '{0}/my data'"),
    ("x.7z.001", "7z x '{0}/my data/x.7z.001' -o'{0}/my data'"),
])
def test_an_archive_that_lies_there_is_named_with_its_command(tmp_path, archive, command):
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data" / archive).write_bytes(b"")
    with pytest.raises(BuildError) as error:
        read_fotw(tmp_path)
    assert "smiles_trset/gender_fex_trset.csv is missing; looked for gender_fex_trset.csv, smiles_trset" in str(error.value)
    assert command.format(tmp_path) in str(error.value)


# ---------------------------------------------------------------------------------------------- CelebA
@pytest.mark.parametrize("changes", [
    {"Img/img_celeba": "Img/img_celeba.7z/img_celeba"},
    {"Img/img_celeba": "Img/img_celeba.7z"},
    {"Img/img_celeba": "img_celeba/img_celeba"},
    {"": "celeba"},
    {"": "celeba", "Img/img_celeba": "Img/img_celeba.7z/img_celeba"},
    {"Anno": "CelebA/Anno", "Eval": "CelebA/Eval"},
])
def test_celeba_in_the_folders_of_its_archives(celeba, tmp_path, changes):
    expected = faces(read_celeba(celeba, splits=ALL))
    for old, new in changes.items():
        if old:
            move(celeba / old, tmp_path / "moved")
            move(tmp_path / "moved", celeba / new)
    root = celeba
    if "" in changes:
        root = tmp_path / "root"
        move(celeba, root / changes[""])
    dataset = read_celeba(root, splits=ALL)
    assert len(expected) == 12 and faces(dataset) == expected and not dataset.skipped
    assert all((root / record.image).is_file() for record in dataset.records)


def aligned(celeba, folder):
    """Turn the edition in the wild into the aligned one, of the same photos; the faces that it has."""
    wild = faces(read_celeba(celeba, splits=ALL))
    move(celeba / "Img/img_celeba", celeba / "Img" / folder)
    (celeba / "Anno/list_landmarks_celeba.txt").rename(celeba / "Anno/list_landmarks_align_celeba.txt")
    (celeba / "Anno/list_bbox_celeba.txt").unlink()
    return [(split, name, None, labels, points) for split, name, _, labels, points in wild]


@pytest.mark.parametrize("folder, end", [("img_align_celeba", ".jpg"), ("img_align_celeba", ".JPG"),
                                         ("img_align_celeba_png.7z/img_align_celeba_png", ".png")])
def test_the_aligned_editions(celeba, folder, end):
    expected = aligned(celeba, folder)
    for photo in (celeba / "Img" / folder).iterdir():
        photo.rename(photo.with_suffix(end))
    dataset = read_celeba(celeba, splits=ALL)
    assert faces(dataset) == expected and dataset.aligned
    assert dataset.records[0].image == f"Img/{folder}/000001{end}"


@pytest.mark.parametrize("separator, quoting", [(",", csv.QUOTE_MINIMAL), (",", csv.QUOTE_ALL), (";", csv.QUOTE_NONNUMERIC)])
@pytest.mark.parametrize("low", ["-1", "0"])
def test_kaggles_tables(celeba, separator, quoting, low):
    expected = aligned(celeba, "img_align_celeba/img_align_celeba")
    move(celeba / "Img/img_align_celeba", celeba / "img_align_celeba")
    for text in [*celeba.glob("Anno/*.txt"), *celeba.glob("Eval/*.txt")]:
        rows = [line.split() for line in text.read_text().splitlines()]
        if "Anno" in str(text):
            rows = [["image_id", *rows[1]], *rows[2:]]
            rows = [[low if cell == "-1" else cell for cell in row] for row in rows]
        else:
            rows = [["image_id", "partition"], *rows]
        with (celeba / (text.stem + ".csv")).open("w", newline="") as file:
            csv.writer(file, delimiter=separator, quoting=quoting).writerows(rows)
        text.unlink()
    dataset = read_celeba(celeba, splits=ALL)
    assert faces(dataset) == expected and not dataset.skipped
    assert any("has no -1: 0 is read as absent" in note for note in dataset.notes) == (low == "0")


def test_what_lies_there_instead_of_celebas_photos_is_named(celeba):
    shutil.rmtree(celeba / "Img/img_celeba")
    with pytest.raises(BuildError, match=r"no photos found; looked for img_celeba, img_align_celeba, .*; there is: Anno/"):
        read_celeba(celeba)
    (celeba / "Img/img_celeba.7z").mkdir()
    for part in (1, 2):
        (celeba / f"Img/img_celeba.7z/img_celeba.7z.00{part}").write_bytes(b"")
    with pytest.raises(BuildError) as error:
        read_celeba(celeba)
    path = celeba / "Img/img_celeba.7z"
    assert f"unpack them by `7z x {path}/img_celeba.7z.001 -o{path}`" in str(error.value)


# ---------------------------------------------------------------------------------------------- Hugging Face's parquet
@pytest.fixture
def hugging_face(celeba, tmp_path):
    """hugging_face(named): the photos and labels of `celeba` as parquet files; photos with their names, or without."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (the extra parquet)")
    from pyarrow import parquet

    def make(named=True):
        records = read_celeba(celeba, splits=ALL).records
        for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
            rows = [{
                "image": {"bytes": (celeba / record.image).read_bytes(),
                          "path": os.path.basename(record.image) if named else None},
                "celeb_id": 7,
                **{label: bool(value) != (label == "Female") for label, value in zip(recipe.LABELS, record.labels)},
            } for record in records if record.split == split]
            for row in rows:
                row["Male"] = row.pop("Female")
            path = tmp_path / f"hf/data/{name}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return tmp_path / "hf"

    return make


@pytest.mark.parametrize("named", [True, False])
def test_hugging_faces_edition(celeba, hugging_face, named):
    folder = hugging_face(named)
    expected = [(split, name, None, labels, None) for split, name, _, labels, _ in faces(read_celeba(celeba, splits=ALL))]
    for _ in range(2):  # the second time it is unpacked already
        dataset = read_celeba(folder, splits=ALL)
        assert len(expected) == 12 and faces(dataset) == expected
        assert dataset.aligned and not dataset.has_landmarks and not dataset.skipped
        first = folder / dataset.records[0].image
        assert first.read_bytes() == (celeba / "Img/img_celeba/000001.jpg").read_bytes()
        times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert {path.name for path in folder.iterdir()} == {"data", "celeba_from_parquet"}
    read_celeba(folder, splits=ALL)
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_hugging_faces_edition_gets_its_landmarks_from_the_detector(hugging_face, tmp_path):
    from fake_detector import FakeDetector
    from lmdb_builders.builder import Settings, build_dataset

    said = []
    settings = Settings(profile=recipe.DEMO, crops=("scheme2",), output=str(tmp_path / "out"), detector=FakeDetector,
                        say=said.append)
    (tmp_path / "out").mkdir()
    build_dataset(read_celeba(hugging_face()), settings, str(tmp_path / "staging"))
    assert "10 faces listed; landmarks made from the photos (10 new)" in said[0]
    assert "celeba_train 8, celeba_train_labels 8, celeba_val 2" in said[-1] and "warning: the photos" in said[1]


def test_a_parquet_file_that_is_damaged_or_another_is_one_error(hugging_face):
    import pyarrow
    from pyarrow import parquet

    folder = hugging_face()
    path = folder / "data/valid-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(BuildError, match="valid-00000-of-00001.parquet: not a parquet file .*; download it again"):
        read_celeba(folder)
    parquet.write_table(pyarrow.table({"image": [b"x"], "label": [3]}), path)
    with pytest.raises(BuildError, match="no column 5_o_Clock_Shadow, .*; its columns are image, label"):
        read_celeba(folder)
    assert [item.name for item in folder.iterdir()] == ["data"]
    (folder / "other").mkdir()
    shutil.copy(path, folder / "other")
    with pytest.raises(BuildError, match="parquet files lie in data, other; give the folder of one edition"):
        read_celeba(folder)


def test_parquet_without_pyarrow_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BuildError, match="needs pyarrow: pip install"):
        read_celeba(tmp_path)
