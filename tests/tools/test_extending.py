"""A crop, its nets and a data set that recipe.py gains by one entry each, from photos to the last table.

The project is this one with another recipe.py: commands that start commands read the same entries.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

CROP = '"scheme6": Crop("scheme6", True, (0.0, -0.45), 1.40, "around the eyes, aligned: ours"),'
NETS = ('Net("gender6", "gender on the eyes", "gender", "scheme6", "ours"),',
        'Net("smile6", "smile on the eyes", "smile", "scheme6", "ours"),')
DATA_SET = ('DataSet("mine", "My <faces>", "mine_reader:read", "as one table, faces.csv", ("woman", "laughs"), '
            '{"gender": "woman", "smile": "laughs"}, validation_faces=20),')
TINY = """
PROFILES["tiny"] = replace(DEMO, name="tiny", crop_size=32, width=0.05, batch_size=8, test_batch_size=8,
                           max_iter={2: 2, 3: 2, 4: 2}, test_interval={2: 2, 3: 2, 4: 2}, snapshot=2, display=1,
                           base_lr={2: 1e-4, 3: 1e-4, 4: 1e-4}, why="a test")
"""
READER = '''
import os

from lmdb_builders.records import DataSet, FaceRecord, read_cells


def read(folder, splits=("train", "val")):
    found = DataSet("mine", folder, ("woman", "laughs"))
    table = os.path.join(folder, "faces.csv")
    found.add_source(table)
    found.tables = dict.fromkeys(splits, "faces.csv")
    for line, (image, split, woman, laughs) in read_cells(table):
        if split in splits:
            found.records.append(FaceRecord(image, split, None, None, bytes([int(woman), int(laughs)]), line))
    return found
'''


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """The project with a sixth crop, two nets and a data set, its LMDBs, and the nets of the crop trained."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("tools", "gender_smile", "lmdb_builders", "detector", "common", "torchcaffe", "Makefile", "pyproject.toml",
                 "requirements.lock"):
        os.symlink(root / name, folder / name)
    os.symlink(sys.prefix, folder / ".venv")
    for name in ("weights", "prototxt"):
        (folder / name).mkdir()
        os.symlink(root / name / "mtcnn", folder / name / "mtcnn")
    write_recipe(root, folder)
    (folder / "mine_reader.py").write_text(READER)
    run(folder, "tools.draw_faces", "--celeba", "60", "--fotw", "66", "--output", "drawn", "--workers", "2")
    write_table(folder)
    run(folder, "tools.make_nets", "--profile", "tiny")
    make(folder, "lmdb", "PROFILE=tiny", "CROP=all", "TEST_SPLIT=1", "CELEBA=drawn/CelebA", "MINE=mine faces")
    make(folder, "step1", "step2", "step3", "step4", "NET=gender6 smile6", "PROFILE=tiny")
    stand_in(folder)
    return folder


def write_recipe(root: Path, folder: Path):
    text = (root / "recipe.py").read_text()
    for after, line in (('around mouth and cheeks, aligned: Figure 3(f)"),\n', f"    {CROP}\n"),
                        ('"smile on scheme 2", "smile", "scheme2", "Table 3"),\n', "".join(f"        {net}\n" for net in NETS)),
                        ("DATASETS = {\n    data_set.name: data_set\n    for data_set in (\n", f"        {DATA_SET}\n"),
                        ('"smile": ("snet1", "snet2"', ', "smile6"'),
                        ("PROFILES = {profile.name: profile for profile in (PAPER, DEMO, SMALL)}\n", TINY)):
        assert text.count(after) == 1, after
        text = text.replace(after, after + line)
    step4 = '4: Step(4, "one attribute on FotW", "fotw", '
    assert text.count(step4) == 1
    (folder / "recipe.py").write_text(text.replace(step4, '4: Step(4, "one attribute on my faces", "mine", '))


def write_table(folder: Path):
    """The drawn photos as "mine faces": a folder a split, one table; two labels of the training faces are not known."""
    rows = []
    for place, table, split in (("smiles_trset", "gender_fex_trset.csv", "train"), ("smiles_valset", "gender_fex_valset.csv", "val")):
        shutil.copytree(folder / "drawn" / "FotW" / place, folder / "mine faces" / split)
        with open(folder / "mine faces" / split / table, newline="") as file:
            for number, row in enumerate(list(csv.reader(file))[1:]):
                labels = (2, row[6]) if split == "train" and number == 5 else (row[5], row[6])
                rows.append(f"{split}/{row[0]},{split},{labels[0]},{labels[1]}")
    (folder / "mine faces" / "faces.csv").write_text("\n".join(rows) + "\n")


def stand_in(folder: Path):
    """Weights of the paper's nets: those of the sixth crop's net for the same task, which have the same layers."""
    nets = run(folder, "recipe_names")
    for key, task in (line.split() for line in nets.splitlines()):
        if not key.endswith("6"):
            shutil.copy(folder / f"weights/tiny/step4_{task}6.caffemodel", folder / f"weights/tiny/step4_{key}.caffemodel")


def run(folder: Path, module: str, *words: str) -> str:
    command = ["-m", module, *words]
    if module == "recipe_names":
        command = ["-c", "import recipe; print('\\n'.join(f'{net.key} {net.task}' for net in recipe.NETS.values()))"]
    return output([sys.executable, *command], folder)


def make(folder: Path, *words: str) -> str:
    return output(["make", "--no-print-directory", "-o", ".venv/ready", *words], folder)


def output(command: list, folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PROFILE", "ENGINE", "CELEBA", "FOTW", "MINE")}
    result = subprocess.run(command, cwd=folder, env={**clean, "ENGINE": "torch"}, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


def read_json(path: Path) -> dict:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


# ------------------------------------------------------------------------------------------ LMDBs and training
def test_lmdbs_hold_the_crop_and_the_data_set(project):
    manifest = read_json(project / "data/tiny/scheme6/manifest.json")
    images = manifest["mine"]["images"]
    assert images["mine_train"] == images["mine_train_labels"] >= 41 and images["mine_val"] >= 20
    assert manifest["mine"]["unusable_labels"]["train"] == {"woman": 1}
    assert list(manifest["mine"]["split_facts"]) == ["train", "val"]  # the test partition is CelebA's
    assert manifest["celeba"]["images"]["celeba_test"] == manifest["celeba"]["images"]["celeba_test_labels"] == 6
    assert manifest["celeba"]["facts"]["geometry"]["side"] == 1.4 and "fotw" not in manifest
    assert read_json(project / "data/tiny/scheme5/manifest.json")["mine"]["images"] == images


def test_its_nets_are_trained_on_them(project):
    solver = (project / "solvers/tiny/step4_smile6.prototxt").read_text()
    assert "ceil(20 /" not in solver and "ceil(300 /" in solver  # the demo's number, of every data set
    net = (project / "prototxt/tiny/step4_smile6.prototxt").read_text()
    assert 'source: "data/tiny/scheme6/mine_train"' in net and "ignore_label: 2" in net and "celeba" not in net
    for stem in ("step2_scheme6", "step3_gender6", "step3_smile6", "step4_gender6", "step4_smile6"):
        record = read_json(project / f"weights/tiny/{stem}.caffemodel.json")
        assert record["iteration"] == 2 and record["loss"] is not None, stem


# ------------------------------------------------------------------------------------------ what is made of them
def test_figure(project):
    photo = next((project / "mine faces" / "val").glob("*.jpg"))
    make(project, "figure3", f"IMAGE={photo}")
    import cv2

    picture = cv2.imread(str(project / f"runs/pictures/{photo.stem}_crops.png"))
    size, gap = 224, 224 // 16
    assert picture.shape[1] == 7 * (size + gap) + gap
    last = picture[gap : gap + size, -(size + gap) : -gap]
    assert last.std() > 10 and (last == 255).all(axis=2).mean() < 0.5  # the sixth panel is a crop, not paper
    caption = picture[gap + size :, -(size + gap) :]
    assert (caption < 128).any()


def test_evaluation_scores_its_nets_on_the_data_set(project):
    text = make(project, "evaluate", "PROFILE=tiny")
    assert "on My <faces>'s validation set" in text and "gender on the eyes" in text
    results = read_json(project / "runs/tiny/results.json")
    assert {"gender", "smile", "gender6", "smile6", "gender1"} <= set(results)
    assert results["smile6"]["faces"] == results["smile"]["faces"] >= 20
    metrics = read_json(project / "runs/tiny/evaluation.json")["metrics"]
    assert metrics["smile6"]["paper"] is None and metrics["snet1"]["paper"] == 88.79
    assert metrics["smile"]["paper"] is None  # of three nets: recipe.ENSEMBLES
    with open(project / "runs/tiny/evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        nets = [float(row[f"{net}_probability"]) for net in ("snet1", "snet2", "smile6")]
        assert float(row["smile_probability"]) == pytest.approx(sum(nets) / 3, abs=2e-6)
    make(project, "evaluate", "PROFILE=tiny", "PHOTOS=mine faces")
    photos = read_json(project / "runs/tiny/results_photos.json")
    assert photos["gender"]["faces"] == 22


def test_prediction_by_an_ensemble_with_its_net(project):
    photo = next((project / "mine faces" / "val").glob("*.jpg"))
    words = [str(photo), "--profile", "tiny", "--draw", "answers.png", "--show-crops"]
    text = run(project, "tools.predict", *words)
    assert "SNet2" in text and "smile on the eyes" in text
    smile = json.loads(run(project, "tools.predict", str(photo), "--profile", "tiny", "--json"))["smile"]
    one = smile["probability"] if smile["label"] == "smiling" else 1 - smile["probability"]
    assert one == pytest.approx(sum(smile[net] for net in ("snet1", "snet2", "smile6")) / 3, abs=2e-6)


def test_evaluation_of_the_attributes(project):
    text = make(project, "evaluate", "PROFILE=tiny", "ATTRIBUTES=1")
    assert "scheme6, on 6 faces of CelebA's test partition" in text
    with open(project / "runs/tiny/attributes_scheme6.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 40


def test_tables(project):
    text = run(project, "tools.tables", "--table", "3", "--profile", "tiny", "--report")
    with open(project / "runs/tiny/table3.csv", newline="") as file:
        rows = {(row["task"], row["row"]): row for row in csv.DictReader(file)}
    assert rows["gender", "6"]["paper"] == rows["smile", "6"]["difference"] == "" and rows["smile", "1"]["paper"] == "88.79"
    assert 0 <= float(rows["smile", "6"]["accuracy"]) <= 100 and "smile   6" in text
    assert (project / "runs/tiny/table3.png").stat().st_size > 5000


def test_suspects(project):
    text = run(project, "tools.suspects", "--profile", "tiny", "--top", "0.1")
    assert "gender: 43 training labels, 7 kinds of features" in text  # a crop each, and fc7 of step 3 of the sixth's net
    page = (project / "runs/tiny/suspects.html").read_text()
    entries = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert {entry["column"] for entry in entries} <= {"woman", "laughs"} and "My &lt;faces&gt;" in page
    import base64

    import cv2

    photo = cv2.imdecode(np.frombuffer(base64.b64decode(entries[0]["photo"].split(",")[1]), np.uint8), 1)
    original = cv2.imread(str(project / "mine faces" / "train" / entries[0]["image"]))
    assert photo.shape == original.shape  # the photo, which its reader finds, and no crop


def test_report(project):
    for name in ("results.json", "table3.json"):
        assert (project / "runs/tiny" / name).exists(), "run all tests of this file"
    run(project, "tools.report", "--profile", "tiny")
    page = (project / "runs/tiny/report.html").read_text()
    for text in ("<small>around the eyes, aligned</small>", "My &lt;faces&gt;", "Smile, SNet1 + SNet2 + smile on the eyes", "Gender, gender on the eyes", "scheme6"):
        assert text in page, text


def test_the_example_of_a_crop_without_a_net(project):
    """It has LMDBs and a panel of the figure; step 2 is a net's."""
    code = ("import recipe; recipe.CROPS['eyes'] = recipe.Crop('eyes', True, (0.0, -0.45), 1.40, 'eyes')\n"
            "from tools import evaluate; raise SystemExit(evaluate.main(['--profile', 'tiny', '--attributes', 'eyes']))")
    result = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert result.returncode == 2 and "add a Net of it to recipe.NETS" in result.stderr and "Traceback" not in result.stderr
