"""Fixtures that every part's tests share.

Real photographs, annotations and published Caffe models lie in a folder `shared` beside the repository. They are not
part of it, so a test that needs them asks for a fixture below and is skipped where they are missing.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as tools/environment.py has it, before torch is loaded

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


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
