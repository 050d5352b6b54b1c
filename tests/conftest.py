"""Fixtures that every part's tests share.

Real photographs, annotations and published Caffe models lie in a folder `shared` beside the repository. They are not
part of it, so a test that needs them asks for a fixture below and is skipped where they are missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import torchcaffe  # noqa: F401  before torch: it sets how threads wait

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser):
    parser.addoption("--device", default="0", metavar="GPU", help="for the tests of a GPU, `-m gpu`: its number, or cpu")


def _existing(folder: Path) -> Path:
    if not folder.exists():
        pytest.skip(f"needs {folder.relative_to(ROOT.parent)} beside the repository")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository."""
    return _existing(SHARED)


@pytest.fixture(scope="session")
def real_celeba() -> Path:
    """Real photographs in CelebA's layout (Img/img_celeba, Anno, Eval)."""
    return _existing(SHARED / "faces" / "CelebA")


@pytest.fixture(scope="session")
def real_fotw() -> Path:
    """Real photographs in FotW's layout (smiles_trset, smiles_valset)."""
    return _existing(SHARED / "faces" / "FotW")


@pytest.fixture(scope="session")
def real_annotations() -> Path:
    """FotW's own tables and the head of CelebA's attribute table, as published."""
    return _existing(SHARED / "annotations")


@pytest.fixture(scope="session")
def mtcnn_originals() -> Path:
    """The MTCNN authors' det1..det3 prototxts and caffemodels."""
    return _existing(SHARED / "caffe-models" / "mtcnn")


# ---------------------------------------------------------------------------------------------- made-up projects
@pytest.fixture
def fake_project(tmp_path, monkeypatch) -> Path:
    """The empty folder of a project, with the engine and the detector of pipeline_fakes.py: install() gives it nets."""
    import recipe
    from common import engine
    from pipeline_fakes import FakeDetector, FakeNet, fake_caffe

    caffe = fake_caffe()
    FakeNet.made.clear()
    monkeypatch.setenv("GLOG_minloglevel", "1")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path / "project"))
    monkeypatch.setattr(engine, "resolve", lambda name="auto", predicting=False: caffe)
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
    from pipeline_fakes import install

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
