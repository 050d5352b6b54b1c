"""Folds: whose faces go where, the data sets as their readers see them, and what is calibrated on what."""

from __future__ import annotations

import argparse
import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import recipe
from benchmarks import cross_validation, folds, groups, project
from benchmarks.groups import Row
from gender_smile.synthetic.data_sets import draw_data_sets
from gender_smile.training import schemes
from lmdb_builders.celeba import read_celeba
from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import read_fotw


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with CelebA and FotW of a few drawn faces."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_data_sets(str(folder), celeba=30, fotw=24, workers=1)
    return folder


def options(drawn, **changed):
    given = {"celeba": str(drawn / "CelebA"), "fotw": str(drawn / "FotW"), "profile": "small", "folds": 3,
             "precision": "bf16", "without_step1": True}
    return argparse.Namespace(**{**given, **changed})


def names(records):
    return sorted(os.path.basename(record.image) for record in records)


def test_each_face_is_validated_once_and_trained_on_otherwise(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setattr(project, "ROOT", tmp_path)
    every = [names(read_celeba(str(drawn / "CelebA"), ("train", "val", "test")).records),
             names(read_fotw(str(drawn / "FotW")).records)]
    assert len(every[0]) == 30 and len(every[1]) == 24
    places = cross_validation.make_folds(options(drawn))
    seen = [[], []]
    for place in places:
        for number, read in enumerate((lambda split: read_celeba(str(place / "CelebA"), (split,)),
                                       lambda split: read_fotw(str(place / "FotW"), (split,)))):
            trained, validated = read("train").records, read("val").records
            assert sorted(names(trained) + names(validated)) == every[number]
            assert len(validated) == len(every[number]) / 3
            seen[number] += names(validated)
    assert [sorted(part) for part in seen] == every
    one = {os.path.basename(record.image): record for record in read_fotw(str(drawn / "FotW")).records}
    for record in read_fotw(str(places[0] / "FotW")).records:  # the same face, wherever it lies
        assert (record.box, record.labels) == (one[os.path.basename(record.image)].box, one[os.path.basename(record.image)].labels)
        assert os.path.exists(places[0] / "FotW" / record.image)
    (places[0] / "kept").touch()
    cross_validation.make_folds(options(drawn))
    assert (places[0] / "kept").exists()  # the same command resumes
    with pytest.raises(BuildError, match="1of3 was made from .*CelebA.*: remove it"):
        cross_validation.make_folds(options(drawn, fotw=shutil.copytree(drawn / "FotW", tmp_path / "other")))
    with pytest.raises(BuildError, match="two photos named"):
        folds.write_fotw(read_fotw(str(drawn / "FotW")), {"a/1.jpg": 0, "b/1.jpg": 1}, 0, tmp_path / "twice")


def test_folds_have_the_same_share_of_each_label(drawn):
    data_set = read_fotw(str(drawn / "FotW"))
    columns = [data_set.label_names.index(recipe.DATASETS["fotw"].columns[task]) for task in ("gender", "smile")]
    dealt = folds.deal(data_set.records, columns, 3, seed=1)
    counts = Counter((dealt[record.image], *(record.labels[column] for column in columns)) for record in data_set.records)
    for labels in {key[1:] for key in counts}:
        numbers = [counts[(fold, *labels)] for fold in range(3)]
        assert max(numbers) - min(numbers) <= 1
    assert dealt != folds.deal(data_set.records, columns, 3, seed=2)


def test_every_fold_trains_the_users_chain_from_its_own_seed(tmp_path):
    rows = cross_validation.trainings(recipe.SMALL, tmp_path, 1, options(tmp_path))
    assert [(row.step, row.variant) for row in rows].count((4, "")) == 3 and len(rows) == 10 + 3
    commands = [" ".join(schemes.arguments(row)) for row in rows]
    assert commands[0] == "tools/train.py --step 1 --net gnet --profile small --precision bf16"
    assert "tools/train.py --step 4 --net gnet --profile small --seed 2017 --precision bf16 --variant none" in commands
    assert [row.weights_in for row in rows if row.variant] == [
        "weights/small/VGG_FACE_stand_in.caffemodel", "weights/small/step2_scheme3-without1.caffemodel",
        "weights/small/step3_gnet-without1.caffemodel"]


def random_rows(seed, count=300, skew=0.0):
    """Answers whose scores are three times as sure as they should be, and shifted by `skew`."""
    generator = np.random.default_rng(seed)
    scores, rows = generator.normal(0, 1.5, count), []
    for number, score in enumerate(scores):
        label = int(generator.random() < 1 / (1 + np.exp(-score)))
        sure = float(1 / (1 + np.exp(-3 * score - skew)))
        rows.append(Row(f"{seed}/{number}.jpg", "FotW", label, label, None, False, sure, sure))
    return rows


def test_a_fold_is_calibrated_by_the_others():
    answers = [random_rows(seed, skew=1.5) for seed in range(3)]
    answers[0][0] = replace(answers[0][0], gender_probability=None, smile_probability=None)  # no face was found
    answers[0][1] = replace(answers[0][1], smile=None)
    before = cross_validation.calibrated(answers, "smile")
    assert before[0][0].smile_probability is None and before[0][1].smile_probability is not None
    after = cross_validation.calibrated(before, "gender")
    text = cross_validation.report(answers, after)
    assert abs(cross_validation.accuracy(after[1], "gender") - 0.8) < 0.1
    turned = [[replace(row, smile=0) if row.smile else row for row in answers[0][:60]] + answers[0][60:], *answers[1:]]
    again = cross_validation.calibrated(turned, "smile")
    probabilities = [[[row.smile_probability for row in fold] for fold in part] for part in (before, again)]
    assert probabilities[0][0] == probabilities[1][0] and probabilities[0][1] != probabilities[1][1]  # its own labels change nothing
    errors = [float(line.split("ECE ")[1].split(" ")[0]) for line in text.splitlines() if "ECE" in line]
    assert len(errors) == 2 and max(errors) < 0.06
    assert "| **all** | 900 |" in text


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [*random_rows(1, 3), Row("a, b.jpg", "CelebA", None, 1, 0, True, turn=0.25, doubts=True)]
    groups.write(rows, str(tmp_path / "groups.csv"))
    assert groups.read(str(tmp_path / "groups.csv")) == rows
