"""Choice of the engine."""

from __future__ import annotations

import sys
import types

import pytest

from common import engine


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


@pytest.fixture
def caffe_package(tmp_path, monkeypatch):
    """Makes a package named caffe of some source, importable from here alone."""
    def make(source):
        (tmp_path / "caffe").mkdir()
        (tmp_path / "caffe" / "__init__.py").write_text(source)

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "caffe", raising=False)
    engine._importable.cache_clear()
    yield make
    sys.modules.pop("caffe", None)
    engine._importable.cache_clear()


@pytest.mark.parametrize("source, reason", [
    ("from ._caffe import Net", "No module named 'caffe._caffe'"),  # a source tree that was never built
    ("import os; os.abort()", "status -6"),  # built for another library
    ("1 +", "SyntaxError"),
    ("", "cannot import name 'Net'"),  # another package of that name
])  # fmt: skip
def test_auto_passes_over_a_broken_caffe_and_says_so_once(caffe_package, capfd, source, reason):
    caffe_package(source)
    for _ in range(2):
        assert engine.resolve("auto").__name__ == "torchcaffe"
        assert engine.interpreter("auto").module == "torchcaffe"
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "ignored a Python module caffe" in err and reason in err


def test_auto_takes_a_caffe_that_can_be_imported(caffe_package, capfd):
    caffe_package("class Net: pass")
    assert engine.module_name("auto") == "caffe"
    assert engine.resolve("auto").__name__ == "caffe"
    assert capfd.readouterr().err == ""


def test_torchcaffe_under_caffes_name_is_not_caffe(monkeypatch):
    """As a net with a Python layer leaves it, or torchcaffe.install()."""
    import torchcaffe

    monkeypatch.setitem(sys.modules, "caffe", torchcaffe)
    engine._importable.cache_clear()
    assert engine.module_name("auto") == "torchcaffe"
    assert engine.interpreter("auto").module == "torchcaffe"
    engine._importable.cache_clear()


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
