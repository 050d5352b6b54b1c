"""Tables 2 and 3: which trainings they share, the commands that do them, and what is made of the scores."""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import face_lmdbs
import pytest
from PIL import Image
from pipeline_fakes import fake_caffe, install, photo

import recipe
from common import engine
from gender_smile.evaluation import tables as evaluation_tables
from gender_smile.inference.classifier import PipelineError
from gender_smile.training import chain, schemes, workers
from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, record_key
from tools import evaluate, tables

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIZE = recipe.DEMO.stored_size

# Stands for tools/train.py: notes when it began and ended, and writes the weights, a number as pipeline_fakes reads it.
TRAIN = """
import argparse, os, signal, sys, time
parser = argparse.ArgumentParser()
for name in ("step", "net", "profile", "seed", "max-iter", "precision", "weights", "variant", "engine", "gpu"):
    parser.add_argument("--" + name)
parser.add_argument("--no-notes", action="store_true")
options = parser.parse_args()
sys.path.insert(0, {root!r})
import recipe  # noqa: E402
path = recipe.step_weights(options.profile, options.net, int(options.step))
path = path.replace(".caffemodel", "-" + options.variant + ".caffemodel") if options.variant else path
def note(word):
    with open("log", "a") as log:
        log.write("%s %s %.6f %s\\n" % (word, path, time.monotonic(), os.environ.get("OMP_NUM_THREADS")))
def stop(number, frame):
    note("stopped")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, lambda number, frame: note("snapshot"))
note("began")
if options.weights not in (None, "none") and not os.path.exists(options.weights):
    sys.exit("no " + options.weights)
if options.net == "gender4" and os.path.exists("broken"):
    print("the disk is full")
    sys.exit(1)
time.sleep(5 if os.path.exists("slow") else 0.05)
os.makedirs(os.path.dirname(path), exist_ok=True)
with open(path, "w") as file:
    file.write("bright" if "without" not in path else "0.4")
print("made " + path)
note("ended")
"""


# ------------------------------------------------------------------------------------------ plan
def test_what_the_tables_share():
    """A seed of both tables is 1 + 5 + 8 + 11 trainings: step 1; a step 2 a crop; a step 3 and a step 4 a net, and
    Table 2's own. More than five of a step 2, and something that depends on the crop only would be trained twice."""
    cells = schemes.table_rows(recipe.DEMO, [2, 3], seed=2016)
    rows = schemes.trainings(cells)
    assert [sum(row.step == step for row in rows) for step in (1, 2, 3, 4)] == [1, 5, 8, 11]
    assert len({row.weights_out for row in rows}) == len(rows)
    made = set()
    for row in rows:  # in this order each finds the weights that it starts from
        assert row.step == 1 or row.weights_in is None or row.weights_in in made
        made.add(row.weights_out)
    two = {seed: schemes.trainings(schemes.table_rows(recipe.DEMO, [2, 3], seed)) for seed in (2016, 2017)}
    assert {row.weights_out for row in two[2016]} & {row.weights_out for row in two[2017]} == {
        "weights/demo/step1.caffemodel"}


def test_the_recipes_own_numbers_are_the_chains_trainings():
    rows = schemes.training_scheme(recipe.DEMO, "snet1", (1, 2, 3), seed=recipe.DEMO.random_seed)
    assert list(rows) == chain.rows(recipe.DEMO, ["snet1"], [1, 2, 3, 4])


def test_schemes_of_table_2():
    """What each row's step 4 starts from, as section 4.1 says."""
    cells = schemes.table_rows(recipe.DEMO, [2], seed=2016)
    assert [(cell.name, cell.paper, cell.finals[0].weights_in) for cell in cells] == [
        ("without step 1, 2 and 3", 84.04, None),
        ("without step 2, 3", 91.07, "weights/demo/step1.caffemodel"),
        ("without step 2", 91.19, "weights/demo/step3_gnet-without2.caffemodel"),
        ("without step 3", 91.30, "weights/demo/step2_scheme3.caffemodel"),
        ("with all steps", 91.66, "weights/demo/step3_gnet.caffemodel")]
    assert cells[2].chains[0][1].weights_in == "weights/demo/step1.caffemodel"
    assert all(cell.finals[0].databases["train"] == "data/demo/scheme3/fotw_train" for cell in cells)


def test_every_row_of_a_table_gets_the_same_share_and_precision():
    rows = schemes.trainings(schemes.table_rows(recipe.DEMO, [2, 3], 5, share=0.5, precision="bf16"))
    for row in rows[1:]:
        assert row.max_iter == recipe.DEMO.max_iter[row.step] // 2 and row.precision == "bf16" and row.seed == 5
        assert "seed5-50percent-bf16" in row.weights_out
        words = schemes.arguments(row)
        assert words[words.index("--seed") + 1] == "5" and words[words.index("--weights") + 1] in ("none", row.weights_in)


def test_every_ordering_is_between_rows_of_its_table_and_is_the_papers():
    papers = {(2, "gender", name): value for name, _, value in recipe.TABLE2}
    for name, _, gender, _, smile in recipe.TABLE3:
        papers.update({(3, "gender", name): gender, (3, "smile", name): smile})
    for item in recipe.ORDERINGS:
        assert papers[item.table, item.task, item.better] > papers[item.table, item.task, item.worse], item


# ------------------------------------------------------------------------------------------ commands
@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a stand-in for tools/train.py, nets that answer how bright a crop is, and all validation LMDBs."""
    caffe = fake_caffe()
    monkeypatch.setenv("GLOG_minloglevel", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setattr(engine, "resolve", lambda name="auto": caffe)
    table_rows = schemes.table_rows
    monkeypatch.setattr(schemes, "table_rows", lambda *words, **more: table_rows(*words, **more, root=str(tmp_path)))
    install(str(tmp_path), {})
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "train.py").write_text(TRAIN.format(root=ROOT))
    for net in recipe.NETS.values():
        write_lmdb(net)
    write_other_inputs(tmp_path)
    return tmp_path


def write_other_inputs(root):
    """Nets and solvers, and one LMDB in the place of all that are trained on: the stand-in for training opens none."""
    writer = LmdbWriter(str(root / "stand_in"))
    writer.put(record_key(0, "0.jpg"), image_datum(encode_crop(photo(9, SIZE, SIZE), "raw"), SIZE, "raw", 0))
    writer.close()
    for row in chain.rows(recipe.DEMO, recipe.NETS, [1, 2, 3, 4]):
        for path in [row.definition] + [row.solver] * (row.step > 1):
            os.makedirs(os.path.dirname(root / path), exist_ok=True)
            (root / path).touch()
        for path in row.databases.values():
            if not os.path.exists(root / path):
                os.symlink(root / "stand_in", root / path)


def write_lmdb(net: recipe.Net, listed: int = 20):
    """Twenty faces; brighter ones are class 1, but every tenth is labeled otherwise: "bright" is right 18 times."""
    folder = recipe.absolute(recipe.lmdb_paths("demo", net.key, 4)["val"])
    if os.path.exists(folder):
        return
    face_lmdbs.write(folder, ((f"{index}.jpg", photo(200 if index % 2 else 50, SIZE, SIZE),
                               [int(bool(index % 2) != (index % 10 == 0))] * 2) for index in range(20)))
    path = os.path.join(os.path.dirname(folder), "manifest.json")
    images = json.load(open(path))["fotw"]["images"] if os.path.exists(path) else {}
    images[os.path.basename(folder)] = listed
    with open(path, "w") as file:
        json.dump({"fotw": {"images": images, "skipped": []}}, file)


def log(project) -> list:
    return [line.split() for line in (project / "log").read_text().splitlines()] if (project / "log").exists() else []


@pytest.mark.parametrize("jobs", [1, 3])
def test_trainings_wait_for_the_weights_they_start_from(project, jobs):
    rows = schemes.trainings(schemes.table_rows(recipe.DEMO, [3], 2016))
    workers.train(rows, jobs, say=lambda line: None)
    times = {(word, path): float(when) for word, path, when, _ in log(project)}
    assert len(times) == 2 * len(rows)
    for row in rows[1:]:
        assert times["ended", row.weights_in] < times["began", row.weights_out]
    moments = sorted((when, 1 if word == "began" else -1) for (word, _), when in times.items())
    at_once = [sum(change for _, change in moments[:count + 1]) for count in range(len(moments))]
    assert max(at_once) <= jobs and (max(at_once) > 1) == (jobs > 1)
    threads = {line[3] for line in log(project)}
    assert threads == ({"None"} if jobs == 1 else {str(max(1, os.cpu_count() // jobs))})


def test_each_training_gets_a_gpu_of_its_own_a_number_and_the_notes_once(project):
    rows, said = schemes.trainings(schemes.table_rows(recipe.DEMO, [3], 2016)), []
    workers.train(rows, 3, say=said.append, gpus=[0, 2, 5])
    started = [line for line in said if "$ " in line]
    assert [line.split(" $ ")[0] for line in started] == [f"[{count} of {len(rows)}]" for count in range(1, len(rows) + 1)]
    assert ["--no-notes" in line for line in started] == [False] + [True] * (len(rows) - 1)
    gpus = {}  # weights that a training makes: its GPU
    for line in started:
        words = line.split()
        row = next(row for row in rows if row.step == int(words[words.index("--step") + 1])
                   and row.net == words[words.index("--net") + 1])
        gpus[row.weights_out] = words[words.index("--gpu") + 1]
    busy, used = set(), set()
    moments = [(float(when), word, path) for word, path, when, _ in log(project)]
    for _, word, path in sorted(moments):
        if word == "began":
            assert gpus[path] not in busy
            busy.add(gpus[path])
        else:
            busy.remove(gpus[path])
        used.add(gpus[path])
    assert used == {"0", "2", "5"}


@pytest.mark.parametrize("words, message", [
    (["--gpus", "4"], "for one GPU: GPU="), (["--gpus", "0,0"], "list of GPU numbers"),
    (["--gpus", "0,1", "--gpu", "0"], "leave out --gpu and --jobs"), (["--gpus", "0,1", "--jobs", "3"], "leave out --gpu and --jobs"),
])
def test_gpus_are_a_list(words, message, capsys):
    with pytest.raises(SystemExit):
        tables.main(["--table", "2", "--profile", "demo", *words])
    assert message in capsys.readouterr().err


def test_a_training_that_fails_is_named_and_nothing_starts_after_it(project, capsys):
    (project / "broken").touch()
    assert tables.main(["--table", "3", "--profile", "demo", "--jobs", "2"]) == 1
    captured = capsys.readouterr()
    assert "the disk is full" in captured.out
    assert "step 2, scheme4 failed; fix the cause and type the same command again" in captured.err
    assert not any("step4_gender4" in line[1] for line in log(project))
    os.remove(project / "broken")
    assert tables.main(["--table", "3", "--profile", "demo", "--jobs", "2"]) == 0


def test_nothing_runs_on_when_there_is_nobody_to_tell(project):
    rows = schemes.trainings(schemes.table_rows(recipe.DEMO, [2], 2016))
    workers.train(rows[:1], say=lambda line: None)
    (project / "log").unlink()
    (project / "slow").touch()

    def say(line):
        if said:  # of the second training, which is not started
            wait_for(project, 1)
            raise BrokenPipeError("the terminal is gone")
        said.append(line)

    said = []
    with pytest.raises(BrokenPipeError):
        workers.train(rows[1:], jobs=3, say=say)
    assert [line[0] for line in log(project)] == ["began", "stopped"]


def wait_for(project, lines: int):
    end = time.monotonic() + 60
    while len(log(project)) < lines and time.monotonic() < end:
        time.sleep(0.05)


TWO_AT_A_TIME = textwrap.dedent("""
    import sys
    import recipe  # noqa: E402
    from gender_smile.training import schemes, workers
    workers.HANGING_SECONDS = 0.5
    try:
        workers.train(schemes.trainings(schemes.table_rows(recipe.DEMO, [2], 2016, root=sys.argv[1])), jobs=2)
    except workers.Interrupted:
        raise SystemExit(130)
""")


def start(project) -> subprocess.Popen:
    (project / "slow").touch()
    return subprocess.Popen([sys.executable, "-c", TWO_AT_A_TIME, str(project)], stdout=subprocess.DEVNULL,
                            env={**os.environ, "PYTHONPATH": ROOT})


def test_a_training_that_hangs_is_killed_after_a_second_signal(project):
    process = start(project)
    wait_for(project, 2)
    children = "".join(path.read_text() for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")).split()
    for pid in children:
        os.kill(int(pid), signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(20) == 130
        assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
    finally:
        process.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def test_a_signal_is_handed_on(project):
    process = start(project)
    wait_for(project, 2)
    process.send_signal(signal.SIGHUP)
    wait_for(project, 4)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert [line[0] for line in log(project)] == ["began", "began", "snapshot", "snapshot", "stopped", "stopped"]


# ------------------------------------------------------------------------------------------ before and after training
def test_all_that_is_missing_is_named_before_the_first_training(project, capsys):
    """As after README's `make lmdb`, which builds the crops of the pipeline's three nets only."""
    for crop in ("scheme2", "scheme4"):
        shutil.rmtree(project / "data" / "demo" / crop)
    os.remove(project / recipe.solver_prototxt("demo", "gnet", 4))
    assert tables.main(["--table", "3", "--profile", "demo"]) == 2
    text = capsys.readouterr().err
    assert 'make lmdb CROP="scheme2 scheme4" PROFILE=demo CELEBA=path FOTW=path' in text and text.count("make lmdb") == 1
    assert "LMDBs of scheme4: celeba_train, celeba_val, celeba_train_labels, celeba_val_labels, fotw_train" in text
    assert "solvers/demo/step4_gnet.prototxt is missing: make prototxt" in text
    assert not log(project)
    shutil.rmtree(project / "data" / "demo" / "scheme3" / "fotw_val")
    (project / recipe.solver_prototxt("demo", "gnet", 4)).touch()
    assert tables.main(["--table", "2", "--profile", "demo"]) == 2
    assert "LMDBs of scheme3: fotw_val\n  make lmdb CROP=scheme3 PROFILE=demo FOTW=path\n" in capsys.readouterr().err


def test_weights_that_no_training_makes_are_asked_for_first(project, capsys, monkeypatch):
    """The paper's step 1 needs VGG-Face's release."""
    rows = schemes.trainings(schemes.table_rows(recipe.DEMO, [2], 2016))
    monkeypatch.setattr(chain, "is_full_size", lambda profile: True)
    with pytest.raises(PipelineError, match=r"VGG_FACE.caffemodel is missing: make weights") as caught:
        evaluation_tables.check_inputs(rows)
    assert str(caught.value).count("is missing") == 1  # what the steps before write is not


def test_real_caffe_that_cannot_score_here_is_refused_before_training(project, capsys, monkeypatch):
    def resolve(name="auto"):
        raise engine.EngineError("real Caffe has a Python of its own: use ENGINE=torch here")

    monkeypatch.setattr(engine, "resolve", resolve)
    assert tables.main(["--table", "2", "--profile", "demo", "--engine", "caffe"]) == 2
    assert "use ENGINE=torch" in capsys.readouterr().err and not log(project)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_missing_or_damaged_lmdb_is_no_traceback(project, capsys, with_manifest):
    assert tables.main(["--table", "2", "--profile", "demo", "--jobs", "4"]) == 0
    folder = project / "data" / "demo" / "scheme3" / "fotw_val"
    if not with_manifest:
        os.remove(folder.parent / "manifest.json")
    for path in glob.glob(str(project / "runs" / "demo" / "step4*" / "faces.json")):
        os.remove(path)
    (folder / "data.mdb").write_bytes(b"no LMDB" * 4000)
    capsys.readouterr()
    assert tables.main(["--table", "2", "--profile", "demo", "--report"]) == 1
    text = capsys.readouterr().err
    assert "scheme3/fotw_val" in text and text.startswith("tables: ") and text.count("\n") == 1
    shutil.rmtree(folder)
    assert tables.main(["--table", "2", "--profile", "demo", "--report"]) == 2
    assert "scheme3/fotw_val is missing: make lmdb CROP=scheme3 PROFILE=demo FOTW=path" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ tables
def test_table_2(project, capsys, saved_figures):
    """The row with all steps answers by brightness, 18 of 20 right; the others answer 0 always, 8 right, all of the 18."""
    assert tables.main(["--table", "2", "--profile", "demo", "--seeds", "2016", "7", "--jobs", "4"]) == 0
    text = capsys.readouterr().out
    assert "seeds 2016, 7\n20 validation faces" in text and "photos without a face, not counted: 0" in text
    for name, _, _ in recipe.TABLE2[:-1]:
        assert f"Warning: gender, {name}: answers \"male\" for every face (2 of 2 seeds)" in text
    assert text.count("Warning") == len(recipe.TABLE2) - 1
    with open(recipe.absolute("runs/demo/table2.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["paper"]) for row in rows] == [(name, f"{paper:.2f}") for name, _, paper in recipe.TABLE2]
    assert [float(row["accuracy"]) for row in rows] == [40.0, 40.0, 40.0, 40.0, 90.0]
    last = rows[-1]
    assert [row["majority"] for row in rows] == ["60.0000"] * 5 and {row["majority_answer"] for row in rows} == {"female"}
    assert [row["balanced_accuracy"] for row in rows] == ["50.0000"] * 4 + [last["balanced_accuracy"]]
    assert float(last["balanced_accuracy"]) == pytest.approx(100 * (8 / 8 + 10 / 12) / 2)
    assert float(last["difference"]) == pytest.approx(90 - 91.66) and last["accuracy_1"] == last["accuracy_2"] == "90.0000"
    assert 65 < float(last["low"]) < 85 < 95 <= float(last["high"]) <= 100
    with open(recipe.absolute("runs/demo/table2_orderings.csv"), newline="") as file:
        orderings = {(row["better"], row["worse"]): row for row in csv.DictReader(file)}
    found = orderings["with all steps", "without step 3"]
    assert (found["better_only_7"], found["worse_only_7"], found["verdict"]) == ("10", "0", "yes")
    assert float(found["p_7"]) == pytest.approx(2 / 2**10, rel=1e-4)
    assert orderings["without step 3", "without step 2"]["verdict"] == "equal"
    with open(recipe.absolute("runs/demo/table2.json")) as file:
        kept = json.load(file)
    assert kept["seeds"] == [2016, 7] and len(kept["weights"]["7"]) == 5
    ((axes,),) = (figure.axes for figure in saved_figures)
    assert [label.get_text() for label in axes.get_yticklabels()] == [row["row"] for row in rows]
    drawn = [list(line.get_xdata()) for line in axes.lines]  # of each row: interval, seeds, mean, the paper's
    assert drawn[-4:] == [pytest.approx(numbers) for numbers in (
        [float(last["low"]), float(last["high"])], [90, 90], [90], [91.66])] and len(drawn) == 4 * len(rows)
    assert Image.open(recipe.absolute("runs/demo/table2.png")).format == "PNG"


def test_evaluate_and_the_table_count_the_same_faces(project, capsys):
    """Two photos gave no face: both tell so, and neither counts them."""
    for scheme in ("scheme1", "scheme3", "scheme5"):
        path = recipe.absolute(f"data/demo/{scheme}/manifest.json")
        content = json.load(open(path))
        content["fotw"]["skipped"] = [{"split": "val", "image": f"smiles_valset/{name}", "file": "t.csv", "line": 3,
                                       "reason": "no face found"} for name in ("x.jpg", "y.jpg")]
        with open(path, "w") as file:
            json.dump(content, file)
    assert tables.main(["--table", "2", "3", "--profile", "demo", "--jobs", "4"]) == 0
    assert "photos without a face, not counted: 2)" in capsys.readouterr().out
    assert evaluate.main(["--profile", "demo"]) == 0
    assert "2 photos without an answer, not counted" in capsys.readouterr().out
    results = json.load(open(recipe.absolute("runs/demo/results.json")))
    rows = {}
    for table in (2, 3):
        with open(recipe.absolute(f"runs/demo/table{table}.csv"), newline="") as file:
            rows.update({(row["task"], row["row"]): row for row in csv.DictReader(file)})
    for name, key in {"gender": ("gender", "with all steps"), "smile": ("smile", "1+5"), "snet1": ("smile", "1")}.items():
        for ours, theirs in (("accuracy", "accuracy"), ("majority_accuracy", "majority"), ("balanced_accuracy",) * 2):
            assert f"{100 * results[name][ours]:.4f}" == rows[key][theirs]
        assert (results[name]["faces"], results[name]["missed"]) == (20, 2) == (int(rows[key]["faces"]), int(rows[key]["missed"]))


def test_table_3_averages_the_probabilities_of_an_ensemble(project):
    assert tables.main(["--table", "3", "--profile", "demo", "--jobs", "4"]) == 0
    with open(recipe.absolute("weights/demo/step4_snet2.caffemodel"), "w") as file:
        file.write("0.6")  # with a dark face's 50 / 255, and with a bright one's 200 / 255, as the bright net says alone
    assert tables.main(["--table", "3", "--profile", "demo", "--report"]) == 0
    with open(recipe.absolute("runs/demo/table3.csv"), newline="") as file:
        rows = {(row["task"], row["row"]): row for row in csv.DictReader(file)}
    assert list(rows) == [("gender", "1"), ("smile", "1"), ("gender", "2"), ("smile", "2"), ("gender", "3"),
                          ("gender", "4"), ("smile", "5"), ("smile", "1+5"), ("gender", "3+4")]
    assert rows["smile", "5"]["accuracy"] == "60.0000" and rows["smile", "1+5"]["accuracy"] == "90.0000"


def test_report_takes_the_seeds_that_are_trained(project, capsys):
    command = ["--table", "2", "--profile", "demo"]
    assert tables.main([*command, "--report"]) == 2
    assert "no seed is trained yet" in capsys.readouterr().err
    assert tables.main([*command, "--seeds", "7", "--jobs", "4"]) == 0
    count = len(log(project))
    assert tables.main([*command, "--seeds", "7", "8", "--report"]) == 0
    assert "seed 7\n20" in capsys.readouterr().out and len(log(project)) == count


def test_faces_that_are_not_the_manifests_are_no_table(project, capsys):
    path = recipe.absolute("data/demo/scheme3/manifest.json")
    content = json.load(open(path))
    content["fotw"]["images"]["fotw_val"] = 21
    with open(path, "w") as file:
        json.dump(content, file)
    assert tables.main(["--table", "2", "--profile", "demo", "--jobs", "4"]) == 1
    assert "20 faces scored, but 21 in the manifest" in capsys.readouterr().err
    assert not os.path.exists(recipe.absolute("runs/demo/table2.csv"))


@pytest.mark.parametrize("words", [["--table", "4"], ["--table", "2", "--share", "1.5"], ["--table", "2", "--jobs", "0"],
                                   ["--table", "2", "--engine", "caffe", "--precision", "bf16"]])
def test_wrong_use(words):
    with pytest.raises(SystemExit) as stop:
        tables.main(words)
    assert stop.value.code == 2


def test_the_text_fits_100_columns(project, capsys):
    assert tables.main(["--table", "2", "3", "--profile", "demo", "--seeds", "7", "8", "--jobs", "4"]) == 0
    text = capsys.readouterr().out
    told = text[text.index("Table 2: training schemes"):]
    assert [line for line in told.splitlines() if len(line) > 100 and "written: " not in line] == []
    assert "gender: with all steps > without step 3: " in told and "2 seeds; p " in told
