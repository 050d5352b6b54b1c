"""Fixtures that several tests of the tools share."""

from pathlib import Path

import pytest
from pipeline_fakes import FakeDetector, FakeNet, fake_caffe, install

import recipe
from tools import engine


@pytest.fixture
def fake_project(tmp_path, monkeypatch) -> Path:
    """The empty folder of a project, with the engine and the detector of pipeline_fakes.py: install() gives it nets."""
    caffe = fake_caffe()
    FakeNet.made.clear()
    monkeypatch.setenv("GLOG_minloglevel", "1")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path / "project"))
    monkeypatch.setattr(engine, "resolve", lambda name="auto": caffe)
    monkeypatch.setattr("detector.Detector", FakeDetector)
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def saved_figures(monkeypatch) -> list:
    """matplotlib's figures that the test has written to files, so that what was drawn can be read from their lines."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **options: figures.append(figure) or save(figure, *given, **options))
    return figures


@pytest.fixture
def photos_folder(tmp_path, monkeypatch, fake_project):
    """The folder of the user's photos, as working folder, beside a project with trained nets."""
    install(fake_project, {"gnet": 0.93, "snet1": 0.8, "snet2": 0.6})
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def scored_project(fake_project):
    """A project that can be evaluated: evaluation_project.fill."""
    import evaluation_project

    evaluation_project.fill(fake_project)
    return fake_project
