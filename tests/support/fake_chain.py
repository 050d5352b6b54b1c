"""The tiny project with step 1 done, and a fake engine that starts at once, for tests of the chain's driver."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from tiny_project import TINY, make_project

import recipe
from common import engine, files
from gender_smile.training import chain, runs
from tools import train

FAKE = engine.Interpreter("fake_caffe", "a fake", (sys.executable,), {
    "PYTHONPATH": os.pathsep.join([recipe.ROOT, os.path.dirname(__file__)])})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("made"))
    make_project(root)
    run(root, [1])
    return root


@pytest.fixture
def project(made, tmp_path) -> str:
    """A copy of a project in which step 1 is done."""
    return shutil.copytree(made, tmp_path / "project", symlinks=True).__str__()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Drawing takes longer than all the rest here; test_chain.py looks at the curve."""
    monkeypatch.setattr(runs, "draw", lambda rows, path, title: None)


def run(root, steps, force=False, **options):
    """Run `steps` of GNet; returns (messages, last row)."""
    said = []
    rows = chain.rows(TINY, ["gnet"], steps, root=root, **options)
    train.run(rows, FAKE, force=force, say=said.append)
    return said, rows[-1]


def record(row):
    return files.read_json(row.path(row.weights_out) + ".json")
