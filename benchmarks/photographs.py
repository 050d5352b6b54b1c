"""Photographs to measure on: real ones in the layouts of CelebA and FotW next to the project, else drawn ones."""

from __future__ import annotations

from benchmarks.measuring import ROOT

DRAWN = (900, 600)  # as the demo


def photographs(folder, drawn=DRAWN):
    """(CelebA's folder, FotW's folder, what is on them). Drawn photographs go into `folder`: as many of each as `drawn` says."""
    real = ROOT.parent / "shared" / "faces"
    if (real / "CelebA").is_dir() and (real / "FotW").is_dir():
        return str(real / "CelebA"), str(real / "FotW"), "photographs"
    from gender_smile.synthetic.data_sets import draw_data_sets

    return (*draw_data_sets(f"{folder}/faces", *drawn), "drawn faces")
