"""A copy of the project, by links, in which weights of one's own lie: its commands then run as a user runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from benchmarks.measuring import ROOT

LINKED = ("recipe.py", "tools", "torchcaffe", "common", "lmdb_builders", "detector", "gender_smile", "benchmarks", "prototxt",
          "solvers", ".venv")  # fmt: skip


def link(folder: Path) -> Path:
    """The project without data, runs and weights but the detector's, in `folder`."""
    for name in LINKED:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    (folder / "weights").mkdir()
    (folder / "weights" / "mtcnn").symlink_to(ROOT / "weights" / "mtcnn")
    return folder


def linked_project(folder: Path, profile: str, write: Callable[[str, Path], None]) -> Path:
    """Make it in `folder`; write(definition, path) puts the weights of a net of the pipeline there. Returns `folder`."""
    import recipe

    link(folder)
    for net in recipe.PIPELINE_NETS:
        target = folder / recipe.step_weights(profile, net, 4)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(str(ROOT / recipe.deploy_prototxt(profile, recipe.NETS[net].task)), target)
    return folder
