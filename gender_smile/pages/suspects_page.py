"""The page on which a human decides about suspect labels: one HTML file that needs no network, and exports corrections.csv."""

from __future__ import annotations

import base64
import functools
import html
import json
import os
from typing import Dict, List, Optional, Sequence

import recipe
from common.files import write_text

PHOTO_PIXELS = 300  # longer side of a photo on the page


def widest_first() -> List[str]:
    """The crop schemes by how much of a photo they show, of equally wide ones those that keep the photo's axes first."""
    return sorted(recipe.CROPS, key=lambda name: (-recipe.CROPS[name].side, recipe.CROPS[name].aligned))



def write(path: str, profile: recipe.Profile, suspects: Sequence, total: int) -> None:
    """Write the page for `suspects` (suspects.Suspect), of `total` labels."""
    data_set = recipe.target()
    photos = _photos(profile, [suspect.image for suspect in suspects])
    entries = [
        {"image": suspect.image.rsplit("/", 1)[-1], "column": data_set.columns[suspect.task], "label": suspect.label,
         "names": [*recipe.TASKS[suspect.task].classes, "undetermined"], "probability": round(suspect.probability, 4),
         "photo": photos[suspect.image]}
        for suspect in suspects
    ]
    data = json.dumps(entries).replace("<", "\\u003c")  # a file name must not end the script
    text = PAGE
    for mark, value in (("TOTAL", f"{total:,}"), ("PROFILE", profile.name), ("TITLE", html.escape(data_set.title)),
                        ("VARIABLE", data_set.variable), ("DATA", data)):
        text = text.replace(f"@{mark}@", value)
    write_text(path, text)


def _photos(profile: recipe.Profile, images: Sequence[str]) -> dict:
    """Image -> data: address of the photo where the data set is still in its place, else of its largest crop."""
    from lmdb_builders import manifest

    wanted, found, data_set = set(images), {}, recipe.target()
    for crop in widest_first():
        folder = recipe.absolute(recipe.lmdb_folder(profile.name, crop))
        places = _places(manifest.read(folder).get(data_set.name, {}).get("folder")) if wanted - set(found) else {}
        for image in (wanted - set(found)) & set(places):
            picture = _photo(places[image])
            if picture is not None:
                found[image] = picture
        for name in dict.fromkeys(data_set.databases("train").values()):
            if missing := wanted - set(found):
                found.update(_crops(os.path.join(folder, name), missing))
    return found


@functools.lru_cache(maxsize=1)
def _places(folder: Optional[str]) -> Dict[str, str]:
    """Image -> path of its photo, by the tables of the data set in `folder`; empty where it is not there any more."""
    from lmdb_builders import readers
    from lmdb_builders.errors import BuildError

    try:
        records = readers.read(recipe.target().name, folder, ("train",)).records if folder and os.path.isdir(folder) else ()
    except BuildError:
        return {}
    return {record.image.rsplit("/", 1)[-1]: os.path.join(str(folder), record.image) for record in records}


def _photo(path: str) -> Optional[str]:
    import cv2

    from lmdb_builders.errors import ImageError
    from gender_smile.inference.photos import read_photo

    try:
        pixels = read_photo(path)
    except (ImageError, OSError):
        return None
    scale = PHOTO_PIXELS / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return as_address(pixels)


def _crops(folder: str, images: set) -> dict:
    from gender_smile.evaluation.faces import read_lmdb

    if not os.path.isdir(folder):
        return {}
    return {name: as_address(crop) for name, _, crop in read_lmdb(folder, images)}


def as_address(pixels, quality: int = 85) -> str:
    """data: address of a JPEG of `pixels`, H x W x 3 uint8 BGR."""
    import cv2

    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Suspect labels</title>
<style>
:root { color-scheme: light dark; --line: #8884; --accent: #2e7d5b; --change: #d1495b; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 68rem; padding: 1.2rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
p { margin: .2rem 0 .8rem; max-width: 46rem; }
kbd { border: 1px solid var(--line); border-bottom-width: 2px; border-radius: .25rem; padding: 0 .4rem; font: inherit; }
#bar { position: sticky; top: 0; background: Canvas; padding: .5rem 0; display: flex; gap: 1rem; align-items: center;
       border-bottom: 1px solid var(--line); z-index: 1; flex-wrap: wrap; }
button { font: inherit; padding: .35rem .9rem; border-radius: .4rem; border: 1px solid var(--accent);
         background: var(--accent); color: #fff; cursor: pointer; }
button:disabled { opacity: .45; cursor: default; }
ol { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: .9rem;
     grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
li { border: 2px solid var(--line); border-radius: .6rem; padding: .6rem; scroll-margin: 5rem; }
li.now { border-color: var(--accent); box-shadow: 0 0 0 3px #2e7d5b44; }
li img { width: 100%; height: 13rem; object-fit: contain; border-radius: .3rem; background: #8882; }
.label { font-weight: 600; }
.doubt { float: right; font-variant-numeric: tabular-nums; opacity: .75; }
.decision { min-height: 1.5em; color: var(--change); font-weight: 600; }
.decision.kept { color: var(--accent); }
small { opacity: .7; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Suspect labels of @TITLE@'s training faces (profile @PROFILE@)</h1>
<p>Of @TOTAL@ labels, those that models which did not see them disagree with most, the most suspect first. A model's doubt
is no proof: look at the face. <kbd>c</kbd> correct the label, <kbd>u</kbd> undetermined (not used for this task),
<kbd>k</kbd> keep it, <kbd>x</kbd> undo, <kbd>&larr;</kbd> <kbd>&rarr;</kbd> move. Decisions stay in this browser.</p>
<div id="bar"><span id="count"></span><button id="save">Save corrections.csv</button>
<span>then: make lmdb CORRECTIONS=corrections.csv @VARIABLE@=&hellip;</span></div>
<ol id="faces"></ol>
<script id="data" type="application/json">@DATA@</script>
<script>
"use strict";
const faces = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("faces");
const key = face => face.image + "|" + face.column + "|" + face.label;
const store = "suspects of @PROFILE@";
let decisions = {};
try { decisions = JSON.parse(localStorage.getItem(store)) || {}; } catch (error) { decisions = {}; }
let now = 0;

faces.forEach((face, number) => {
  const item = document.createElement("li");
  const photo = document.createElement("img");
  photo.src = face.photo;
  photo.alt = "face " + (number + 1);
  const doubt = document.createElement("span");
  doubt.className = "doubt";
  doubt.textContent = (100 * face.probability).toFixed(1) + " %";
  doubt.title = "probability of the label";
  const label = document.createElement("span");
  label.className = "label";
  label.textContent = face.column + ": " + face.names[face.label];
  const decision = document.createElement("div");
  decision.className = "decision";
  const name = document.createElement("small");
  name.textContent = (number + 1) + ". " + face.image;
  item.append(photo, doubt, label, decision, name);
  item.addEventListener("click", () => select(number));
  list.append(item);
});

function show(number) {
  const face = faces[number], chosen = decisions[key(face)];
  const text = list.children[number].querySelector(".decision");
  text.className = chosen === face.label ? "decision kept" : "decision";
  text.textContent = chosen === undefined ? "" : chosen === face.label ? "kept" : "\\u2192 " + face.names[chosen];
}

function count() {
  const decided = faces.filter(face => decisions[key(face)] !== undefined);
  const changed = decided.filter(face => decisions[key(face)] !== face.label);
  document.getElementById("count").textContent =
    decided.length + " of " + faces.length + " decided, " + changed.length + " corrected";
  document.getElementById("save").disabled = !changed.length;
}

function select(number) {
  list.children[now].classList.remove("now");
  now = Math.max(0, Math.min(faces.length - 1, number));
  list.children[now].classList.add("now");
  list.children[now].scrollIntoView({block: "nearest"});
}

function decide(value) {
  if (value === undefined) delete decisions[key(faces[now])]; else decisions[key(faces[now])] = value;
  try { localStorage.setItem(store, JSON.stringify(decisions)); } catch (error) { /* private window: this page only */ }
  show(now);
  count();
  if (value !== undefined) select(now + 1);
}

function quoted(text) { return /[",\\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text; }

// A name that begins like a formula gets a ' in front, so that no spreadsheet runs it; make lmdb takes it away again.
function safe(text) { return /^'*[=+\\-@\\t\\r]/.test(text) ? "'" + text : text; }

function corrections() {
  const rows = faces.filter(face => decisions[key(face)] !== undefined && decisions[key(face)] !== face.label)
    .map(face => [quoted(safe(face.image)), face.column, face.label, decisions[key(face)]].join(","));
  return ["image,column,label,correction", ...rows].join("\\n") + "\\n";
}

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([corrections()], {type: "text/csv"}));
  link.download = "corrections.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {c: () => decide(1 - faces[now].label), u: () => decide(2), k: () => decide(faces[now].label),
                   x: () => decide(undefined), ArrowRight: () => select(now + 1), ArrowLeft: () => select(now - 1)};
  if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
});

faces.forEach((face, number) => show(number));
count();
select(0);
</script>
</body>
</html>
"""
