"""A data set of recipe.DATASETS: its reader is found, asked for the right splits, and held to what its entry says."""

from __future__ import annotations

import argparse
import sys
import types

import pytest

import recipe
from lmdb_builders import build, readers
from lmdb_builders.errors import BuildError
from lmdb_builders.records import DataSet, FaceRecord


@pytest.fixture
def entry(monkeypatch):
    """entry(labels, found, **more): a data set "mine" whose reader returns `found`; what the reader was asked for."""
    asked = {}

    def add(labels=("woman", "age", "laughs"), found=None, **more):
        module = types.ModuleType("mine_reader")
        module.read = lambda folder, **words: (asked.update(folder=folder, **words), found)[1]
        monkeypatch.setitem(sys.modules, "mine_reader", module)
        more = {"reader": "mine_reader:read", **more}
        data_set = recipe.DataSet("mine", "Mine", layout="", labels=labels, columns={"gender": "woman", "smile": "laughs"},
                                  validation_faces=5, **more)
        monkeypatch.setitem(recipe.DATASETS, "mine", data_set)
        return asked

    return add


def test_a_reader_gets_the_splits_that_its_data_set_has_and_an_edition_if_there_are_some(entry):
    faces = DataSet("mine", "there", ("woman", "age", "laughs"))
    asked = entry(found=faces)
    assert readers.read("mine", "there", ("train", "val", "test")) is faces
    assert asked == {"folder": "there", "splits": ("train", "val")}
    asked = entry(found=faces, splits=("test", "val"), editions=("large", "small"))
    readers.read("mine", "there", ("train", "val"), "small")
    assert asked == {"folder": "there", "splits": ("val",), "edition": "small"}


@pytest.mark.parametrize("labels, found, more, message", [
    (("woman", "laughs"), None, {"reader": "mine_reader"}, r"recipe.DATASETS\['mine'\]: reader 'mine_reader' cannot be imported"),
    (("woman", "laughs"), None, {"reader": "no_such_module:read"}, "No module named 'no_such_module'"),
    (("woman", "laughs"), None, {"reader": "mine_reader:lies"}, "cannot be imported .*lies.*module:function"),
    (("woman", "laughs"), None, {}, "has to return a lmdb_builders.records.DataSet named 'mine', not None"),
    (("woman", "laughs"), DataSet("other", "there", ("woman", "laughs")), {}, "named 'mine', not 'other'"),
    (("woman", "laughs"), DataSet("mine", "there", ("woman",)), {}, "returns the labels woman, not woman, laughs as its"),
    (("woman", "laughs"), DataSet("mine", "there", ("woman", "laughs"), [FaceRecord("a", "val", None, None, b"\1\2", 1)]),
     {"undetermined": False}, "labels that are neither 0 nor 1: leave out undetermined=False"),
])
def test_a_reader_that_does_not_fit_its_entry_is_named(entry, labels, found, more, message):
    entry(labels, found, **more)
    with pytest.raises(BuildError, match=message):
        readers.read("mine", "there")


@pytest.mark.parametrize("name, labels, message", [
    ("my_faces", ("woman",), "lower-case"), ("Mine", ("woman",), "lower-case"), ("mine", ("age",), "woman of `columns` among"),
    ("mine", "a woman", "not a tuple of names")])
def test_an_entry_that_could_not_work_is_refused(name, labels, message):
    with pytest.raises(ValueError, match=message):
        recipe.DataSet(name, "", "", "", labels, {"gender": "woman"}, 1)


def test_a_net_or_step_that_could_not_work_is_refused():
    with pytest.raises(ValueError, match="net smile7: .* its crop of scheme1, .*, not 'scheme7'"):
        recipe.Net("smile7", "", "smile", "scheme7", "")
    with pytest.raises(ValueError, match="step 2 learns the forty attributes, which data set fotw does not have"):
        recipe.Step(2, "", "fotw", "attributes", "", "")


def test_names_of_lmdbs():
    celeba, fotw = recipe.DATASETS["celeba"], recipe.DATASETS["fotw"]
    assert (celeba.database("val"), fotw.labels_database("train")) == ("celeba_val", "fotw_train_labels")
    assert celeba.column("smile") == recipe.LABELS.index("Smiling") and fotw.column("smile") == 1


def test_a_folder_comes_from_the_command_line_else_from_the_environment(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CELEBA", " a folder ")
    monkeypatch.setenv("FOTW", "~/FotW")
    assert build._folders(argparse.Namespace(celeba=None, fotw=None)) == {"celeba": " a folder ", "fotw": "/home/me/FotW"}
    assert build._folders(argparse.Namespace(celeba=None, fotw="here")) == {"celeba": " a folder ", "fotw": "here"}
    monkeypatch.setenv("CELEBA", " ")  # as make CELEBA= gives it
    assert build._folders(argparse.Namespace(celeba=None, fotw=None)) == {"fotw": "/home/me/FotW"}
