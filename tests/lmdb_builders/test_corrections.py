"""Corrections of training labels: applied to the records, counted in the manifest, refused where they do not fit."""

from __future__ import annotations

import pytest

from lmdb_builders import corrections, manifest
from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import read_fotw

HEADER = "image,column,label,correction\n"


def apply(fotw, tmp_path, text):
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    dataset = read_fotw(str(fotw))
    corrections.apply(dataset, str(path))
    return dataset


def test_labels_are_corrected_and_counted(fotw, tmp_path):
    """Photos 1, 2 and 4 are 0,0 and 1,1 and 1,0 in the table; the last row keeps what is there."""
    before = read_fotw(str(fotw))
    dataset = apply(fotw, tmp_path, HEADER + "im_GenFex_00001.jpg,Gender,0,1\r\nim_GenFex_00002.jpg,Smile,1,2\n"
                    "smiles_trset/im_GenFex_00004.jpg,Smile,0,1\nim_GenFex_00004.jpg,Gender,1,1\n")
    changed = {record.image[-9:]: (tuple(old.labels), tuple(record.labels))
               for old, record in zip(before.records, dataset.records) if old != record}
    assert changed == {"00001.jpg": ((0, 0), (1, 0)), "00002.jpg": ((1, 1), (1, 2)), "00004.jpg": ((1, 0), (1, 1))}
    assert dataset.corrections["counts"] == {"Gender 0 to 1": 1, "Smile 0 to 1": 1, "Smile 1 to 2": 1}
    assert dataset.sources == before.sources  # no face has to be found again
    assert "3 training labels corrected" in dataset.notes[-1]


@pytest.mark.parametrize("text, message", [
    ("", "the first line is not image,column,label,correction"),
    (HEADER + "im_GenFex_00001.jpg,Gender,0\n", "line 2: 'im_GenFex_00001.jpg,Gender,0' is not"),
    (HEADER + "im_GenFex_00001.jpg,Gender,0,7\n", "with 0, 1 or 2"),
    (HEADER + "\nim_GenFex_00001.jpg,Gender,1,0\n", "line 3: Gender of im_GenFex_00001.jpg is 0 in the table, not 1"),
    (HEADER + "im_GenFex_00001.jpg,Age,0,1\n", "no label Age; there are Gender, Smile"),
    (HEADER + "im_GenFex_00007.jpg,Gender,1,0\n", "im_GenFex_00007.jpg is no face of the training table"),  # validation
    (HEADER + "im_GenFex_00001.jpg,Smile,0,1\n" * 2, "line 3: Smile of im_GenFex_00001.jpg is corrected in line 2 already")])
def test_what_does_not_fit_is_refused(fotw, tmp_path, text, message):
    with pytest.raises(BuildError) as error:
        apply(fotw, tmp_path, text)
    assert message in str(error.value)


def test_corrections_change_the_facts_of_the_training_split_only(fotw, tmp_path):
    from lmdb_builders.builder import Settings
    import recipe

    settings = Settings(profile=recipe.DEMO, crops=("scheme1",), output=str(tmp_path), splits=("train", "val"))
    plain = manifest.facts(read_fotw(str(fotw)), settings, {})["scheme1"]
    dataset = apply(fotw, tmp_path, HEADER + "im_GenFex_00001.jpg,Gender,0,1\n")
    corrected = manifest.facts(dataset, settings, {})["scheme1"]
    assert corrected.common == plain.common and corrected.splits["val"] == plain.splits["val"]
    assert corrected.splits["train"]["rows_sha256"] != plain.splits["train"]["rows_sha256"]
    assert set(corrected.splits["train"]) - set(plain.splits["train"]) == {"corrections_sha256"}
