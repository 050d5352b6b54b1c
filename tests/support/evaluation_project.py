"""A project whose trained nets answer how bright a crop is, its validation LMDBs, and FotW's photos."""

from __future__ import annotations

import json
import os
import shutil

from PIL import Image

import face_lmdbs
import recipe
from pipeline_fakes import install, photo
from tools import evaluate

SIZE = recipe.DEMO.stored_size
BRIGHTNESS = {"a.jpg": 200, "b.jpg": 60, "c.jpg": 220, "d.jpg": 30}  # the fake nets answer 1 above 127
GENDER = {"a.jpg": 1, "b.jpg": 0, "c.jpg": 0, "d.jpg": 0}  # c is answered wrongly
SMILE = {"a.jpg": 1, "b.jpg": 1, "c.jpg": 1, "d.jpg": 0}  # b is


def fill(project):
    """Give `project` (conftest.py's fake_project) trained nets and the three validation LMDBs."""
    install(project, {"gnet": "bright", "snet1": "bright", "snet2": 0.4})
    write_lmdb("gnet", GENDER)
    write_lmdb("snet1", SMILE)
    write_lmdb("snet2", dict(reversed(SMILE.items())), encode="png")


def write_lmdb(net: str, labels: dict, listed=None, encode: str = "raw", skipped=()) -> str:
    folder = recipe.absolute(recipe.lmdb_paths("demo", net, 4)["val"])
    for path in (folder, folder + "_labels"):
        shutil.rmtree(path, ignore_errors=True)
    column = recipe.target().column(recipe.NETS[net].task)
    face_lmdbs.write(folder, ((name, photo(BRIGHTNESS[name], SIZE, SIZE), [label if own == column else 0 for own in (0, 1)])
                              for name, label in labels.items()), encode)
    listed = len(labels) if listed is None else listed
    rows = [{"split": "val", "image": name, "file": "t.csv", "line": 9, "reason": "no face found"} for name in skipped]
    entry = {"images": {os.path.basename(folder): listed}, "skipped": rows}
    with open(os.path.join(os.path.dirname(folder), "manifest.json"), "w") as file:
        json.dump({"fotw": entry}, file)
    return folder


def run(*arguments) -> int:
    return evaluate.main(["--profile", "demo", *arguments])


def results(suffix: str = "") -> dict:
    """Of each name in results.json (accuracy, faces, missed)."""
    with open(recipe.absolute(f"runs/demo/results{suffix}.json")) as file:
        return {name: (own["accuracy"], own["faces"], own["missed"]) for name, own in json.load(file).items()}


def evaluation(suffix: str = "") -> dict:
    with open(recipe.absolute(f"runs/demo/evaluation{suffix}.json")) as file:
        return json.load(file)


def write_photos(project) -> str:
    """FotW's validation photos: b has no usable smile label, d is black, so its face is not found."""
    folder = project / "FotW" / "smiles_valset"
    folder.mkdir(parents=True)
    lines = ["image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile"]
    for name, brightness in {**BRIGHTNESS, "d.jpg": 0}.items():
        Image.fromarray(photo(brightness)).save(folder / name, quality=95)
        lines.append(f"{name}, 30, 30, 40, 50, {GENDER[name]}, {2 if name == 'b.jpg' else SMILE[name]}")
    (folder / "gender_fex_valset.csv").write_text("\r\n".join(lines) + "\r\n")
    return str(project / "FotW")
