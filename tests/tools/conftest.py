"""Fixtures that several tests of the tools share."""

import pytest
from pipeline_fakes import FakeDetector, fake_caffe, install

import recipe
from tools import engine


@pytest.fixture
def photos_folder(tmp_path, monkeypatch):
    """The folder of the user's photos, as working folder, beside a project with trained nets."""
    caffe = fake_caffe()
    monkeypatch.setenv("GLOG_minloglevel", "1")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path / "project"))
    monkeypatch.setattr(engine, "resolve", lambda name="auto": caffe)
    monkeypatch.setattr("detector.Detector", FakeDetector)
    install(recipe.ROOT, {"gnet": 0.93, "snet1": 0.8, "snet2": 0.6})
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    return tmp_path / "photos"
