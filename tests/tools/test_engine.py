"""Choice of the engine."""

from __future__ import annotations

import sys
import types

import pytest

from tools import engine


def test_torch_is_torchcaffe():
    assert engine.resolve("torch").__name__ == "torchcaffe"
    assert engine.interpreter("torch").module == "torchcaffe"


def test_auto_takes_caffe_only_where_python_imports_it(monkeypatch):
    monkeypatch.setattr(engine, "_importable", lambda name: False)
    assert engine.resolve("auto").__name__ == "torchcaffe"
    monkeypatch.setattr(engine, "_importable", lambda name: True)
    monkeypatch.setitem(sys.modules, "caffe", types.ModuleType("caffe"))
    assert engine.resolve("auto").__name__ == "caffe"
    assert engine.interpreter("caffe").command == (sys.executable,)


def test_caffe_that_is_nowhere_names_make_caffe(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_importable", lambda name: False)
    monkeypatch.setattr(engine, "DEBIAN", str(tmp_path / "none"))
    for ask in (engine.resolve, engine.interpreter):
        with pytest.raises(engine.EngineError, match="make caffe"):
            ask("caffe")


def test_debian_caffe_runs_in_its_own_python(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_importable", lambda name: False)
    monkeypatch.setattr(engine, "DEBIAN", str(tmp_path))
    (tmp_path / "python").touch()
    assert engine.interpreter("caffe").command == (str(tmp_path / "python"),)
    with pytest.raises(engine.EngineError, match="ENGINE=torch"):
        engine.resolve("caffe")


def test_unknown_engine_lists_the_known():
    with pytest.raises(engine.EngineError, match="auto, caffe, torch"):
        engine.resolve("tensorflow")
