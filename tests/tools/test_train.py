"""The driver of the steps, with a fake engine that starts at once: what it skips, repeats, refuses and keeps."""


from __future__ import annotations

import glob
import os
import re
import shutil
from dataclasses import replace

import pytest
from fake_chain import FAKE, made, no_curves, project, record, run  # noqa: F401 (fixtures)
from tiny_project import TINY

import recipe
from common import engine, files
from gender_smile.training import chain, fingerprints, metrics, run_files, runs, status
from tools import train
from torchcaffe.formats import files as caffe_files

def test_done_step_is_left_alone_and_force_repeats_it(project):
    _, row = run(project, [2])
    before = os.stat(row.path(row.weights_out)).st_mtime_ns
    said, _ = run(project, [2])
    assert "done" in said[0] and "FORCE=1" in said[0]
    assert os.stat(row.path(row.weights_out)).st_mtime_ns == before
    run(project, [2], force=True)
    assert os.stat(row.path(row.weights_out)).st_mtime_ns > before


def test_steps_that_nets_share_come_once():
    rows = chain.rows(recipe.PAPER, ["gnet", "snet1", "snet2", "gender1"], [4, 1, 2])
    assert [row.title for row in rows] == [
        "step 1", "step 2, scheme3", "step 2, scheme1", "step 2, scheme5",
        "step 4, GNet", "step 4, SNet1", "step 4, SNet2", "step 4, gender on scheme 1"]
    written = [row.weights_out for row in chain.rows(recipe.PAPER, recipe.NETS, [1, 2, 3, 4])]
    assert len(written) == len(set(written))
    for row in chain.rows(recipe.PAPER, recipe.NETS, [2, 3, 4]):
        assert row.weights_in in written  # declared output of an earlier row


@pytest.mark.parametrize("text", ["[1, 2]", "{}", '{"inputs": {}', "[" * 100_000])
def test_records_that_hold_something_else_are_no_records(project, text):
    run(project, [2])
    row = chain.rows(TINY, ["gnet"], [2], root=project)[0]
    inputs = fingerprints.fingerprints(row, *run_files.definitions(row))
    for path in (row.weights_out + ".json", f"{row.folder}/run.json"):
        kept = open(row.path(path)).read()
        with open(row.path(path), "w") as stream:
            stream.write(text)
        assert chain.state(row, inputs).kind == "done"
        with open(row.path(path), "w") as stream:
            stream.write(kept)


def test_changed_weights_and_database_are_named(project):
    run(project, [2, 3])
    run(project, [2], max_iter=8, force=True)
    with pytest.raises(chain.ChainError, match="step2_scheme3.caffemodel has changed"):
        run(project, [3])
    _, row = run(project, [3], force=True)
    shutil.rmtree(row.path(row.databases["train"]))
    shutil.copytree(row.path(row.databases["val"]), row.path(row.databases["train"]))
    with pytest.raises(chain.ChainError, match=f"{row.databases['train']} has changed"):
        run(project, [3])


def test_manifest_tells_whether_a_database_is_the_same(project):
    path = os.path.join(project, "data/tiny/scheme3/celeba_val")
    manifest = {"celeba": {"facts": {"seed": 1}, "split_facts": {}, "images": {"celeba_val": 10}}, "fotw": {}}
    prints = []
    for facts in ({}, {}, {"seed": 2}):
        manifest["celeba"]["facts"].update(facts)
        files.write_json(os.path.join(project, "data/tiny/scheme3/manifest.json"), manifest)
        prints.append(fingerprints.database_fingerprint(path))
    assert prints[0] == prints[1] != prints[2]


def test_display_and_snapshot_intervals_do_not_matter_to_the_result(project):
    _, row = run(project, [2])
    path = row.path(row.solver)
    with open(path) as stream:
        text = stream.read()
    with open(path, "w") as stream:
        stream.write(text.replace("display: 1 ", "display: 3 ").replace("snapshot: 2 ", "snapshot: 5 "))
    said, _ = run(project, [2])
    assert "done" in said[0]


def test_weights_put_there_by_hand_are_not_replaced(project):
    _, row = run(project, [2])
    os.remove(row.path(row.weights_out) + ".json")
    said, _ = run(project, [2], max_iter=2)
    assert "no record beside it" in said[0]


def test_run_files(project):
    _, row = run(project, [2], batch=5)
    solver = caffe_files.read_solver(row.path(f"{row.folder}/solver.prototxt"))
    net = caffe_files.read_net(row.path(solver.net))
    batches = [layer.data_param.batch_size for layer in net.layer if layer.type == "Data"]
    assert batches == [5, 5, 5, 5] and list(solver.test_iter) == [2]  # 10 faces, none of them twice
    assert solver.test_interval == 2**31 - 1 and not solver.test_initialization
    assert sorted(os.path.basename(path) for path in glob.glob(row.path(f"{row.folder}/snapshot_*"))) == [
        "snapshot_iter_6.caffemodel", "snapshot_iter_6.json", "snapshot_iter_6.solverstate"]
    rows = metrics.read(row.path(f"{row.folder}/metrics.csv"))
    assert rows[0]["val_loss"] is not None and rows[0]["train_loss"] is None
    assert rows[1]["learning_rate"] == pytest.approx(1e-4) and rows[2]["learning_rate"] == pytest.approx(1e-4 * 5 / 6)
    assert record(row)["train_loss"] == pytest.approx(1 / 6, rel=1e-6)


def test_iter_size_divides_the_batch_and_is_no_setting_of_the_result(project):
    rows = chain.rows(TINY, ["gnet"], [2], root=project)
    assert " in 4 passes" in train.plan(rows, FAKE, passes=4)
    train.run(rows, FAKE, passes=4)
    solver = caffe_files.read_solver(rows[0].path(f"{rows[0].folder}/solver.prototxt"))
    net = caffe_files.read_net(rows[0].path(solver.net))
    batches = [layer.data_param.batch_size for layer in net.layer if layer.type == "Data" and not layer.include[0].phase]
    assert batches == [2, 2] and solver.iter_size == 4 and TINY.batch_size == 8  # crops and labels
    assert (record(rows[0])["batch"], record(rows[0])["iter_size"]) == (8, 4)
    said, _ = run(project, [2])
    assert "done" in said[0] and len(said) == 1
    for passes in (3, 16):
        with pytest.raises(chain.ChainError, match=f"batch of 8 does not divide into {passes} passes: ITER_SIZE= .*may be 2, 4, 8"):
            train.run(rows, FAKE, passes=passes, force=True)


def test_iter_size_counts_where_a_layer_sees_the_batch_of_a_pass(project):
    row, = chain.rows(TINY, ["gnet"], [2], root=project)
    whole, parts = (run_files.definitions(row, passes) for passes in (None, 4))
    assert fingerprints.fingerprints(row, *whole) == fingerprints.fingerprints(row, *parts)
    for _, net in (whole, parts):
        net.layer.add(name="normalized", type="BatchNorm")
    assert fingerprints.differences(*(fingerprints.fingerprints(row, *each) for each in (whole, parts))) == [
        "solver's iter_size was not set, is 4"]


def test_deterministic_is_recorded_and_is_no_setting_of_the_result(project, tmp_path, monkeypatch):
    """It lets a GPU repeat a result, and changes what is learned as little as the GPU's number does."""
    monkeypatch.setenv("FAKE_SAYS", str(tmp_path / "said"))
    rows = chain.rows(TINY, ["gnet"], [2], root=project)
    train.run(rows, FAKE, deterministic=True)
    assert (tmp_path / "said").read_text().split() == ["set_deterministic", "set_mode_cpu", "set_compile=False"]
    assert record(rows[0])["deterministic"] is True
    said, row = run(project, [2])
    assert "done" in said[0] and len(said) == 1
    run(project, [2], force=True)
    assert record(row)["deterministic"] is False


@pytest.mark.parametrize("typed, expected", [([], "False"), (["--compile"], "True"), (["--no-compile"], "False")])
def test_training_on_the_cpu_is_compiled_where_it_is_asked_for(project, tmp_path, monkeypatch, typed, expected):
    monkeypatch.setenv("FAKE_SAYS", str(tmp_path / "said"))
    options = train.get_parser().parse_args(["--step", "2", *typed])
    row, = chain.rows(TINY, ["gnet"], [2], root=project)
    train.run([row], FAKE, compiles=options.compile)
    assert f"set_compile={expected}" in (tmp_path / "said").read_text().split()
    words = run_files.machine(None, None, False, None, options.compile)
    assert words == ([f"COMPILE={expected == 'True':d}"] if typed else [])


def test_times_are_told_apart(project, monkeypatch):
    """Start, first iteration, the iterations after it, validation and snapshots; the speed leaves the others out."""
    monkeypatch.setenv("FAKE_SECONDS", "0.02")
    _, row = run(project, [2])
    timing = record(row)["timing"]
    assert timing["iterations"] == 5 and 0.1 <= timing["training"] < 2 and timing["first iteration"] >= 0.02
    assert timing["start"] > 0 and timing["validation"] > 0 and timing["snapshots"] > 0
    with open(row.path(f"{row.folder}/train.log")) as stream:
        log = stream.read()
    assert re.search(r"\] First iteration done, \d+\.\d s after the start\n", log)
    speed = re.search(r"\] Time: start .* s, first iteration .* s, training .* s, validation .* s, snapshots .* s, "
                      r"(\d+\.\d) images/s after the first iteration\n", log)
    assert float(speed[1]) == pytest.approx(8 * 5 / timing["training"], abs=0.1)
    rows = metrics.read(row.path(f"{row.folder}/metrics.csv"))
    assert rows[0]["images_per_second"] is None and all(0 < line["images_per_second"] <= 8 / 0.02 for line in rows[1:])


def test_an_older_metrics_file_is_read(tmp_path):
    """Without images_per_second; a row that is being written is left out in both forms."""
    (tmp_path / "metrics.csv").write_text(",".join(metrics.COLUMNS[:-1]) + "\n1,0.1,0.5,,,3.5\n2,0.1,0.4\n")
    assert metrics.read(str(tmp_path / "metrics.csv")) == [
        {"iteration": 1, "learning_rate": 0.1, "train_loss": 0.5, "val_loss": None, "val_accuracy": None, "seconds": 3.5,
         "images_per_second": None}]


def test_killed_run_resumes_from_a_whole_snapshot_and_ends_the_same(project, monkeypatch):
    _, row = run(project, [2])
    straight = record(row)["sha256"]
    monkeypatch.setenv("FAKE_ABORT", "5")
    with pytest.raises(chain.ChainError, match=r"Check failed: shape.*snapshot of iteration 4 is kept"):
        run(project, [2], force=True)
    assert record(row)["sha256"] == straight  # the old result stays until there is a new one
    monkeypatch.delenv("FAKE_ABORT")
    with open(row.path(f"{row.folder}.new/snapshot_iter_4.solverstate"), "r+b") as stream:
        stream.truncate(3)  # torn: the one before it has to do
    os.remove(row.path(row.weights_out))
    said, row = run(project, [2])
    assert "iteration 4 is left out: snapshot_iter_4.solverstate has 3 bytes" in said[0]
    assert "resumes from iteration 2 " in said[1]
    assert record(row)["sha256"] == straight


@pytest.mark.parametrize("spoiled, sentence", [
    ("nan@3", "iteration 3: the loss is nan; most likely the learning rate 5e-05 is too high"),
    ("stuck", "the loss has been 87.3365"),
])
def test_broken_loss_stops_the_run_and_keeps_the_snapshot(project, monkeypatch, spoiled, sentence):
    monkeypatch.setenv("FAKE_LOSS", spoiled)
    with pytest.raises(chain.ChainError) as error:
        run(project, [2], max_iter=6 if "nan" in spoiled else 40)
    assert sentence in str(error.value) and "is kept" in str(error.value)
    assert not os.path.exists(os.path.join(project, "weights/tiny/step2_scheme3.caffemodel"))


def test_exploding_gradients_are_told_with_iteration_layer_and_cause(project, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_EXPLODES", "35")
    _, row = run(project, [2], max_iter=60)
    said = capfd.readouterr()
    sentence = "iteration 35: the gradients' norm is .*, usual was .*; the largest is layer .*'s.*learning rate .* too high"
    found = [line for line in (said.out + said.err).splitlines() if "gradients" in line]
    assert len(found) == 1 and re.search(sentence, found[0])
    with open(row.path(f"{row.folder}/train.log")) as log:
        assert re.search(sentence, log.read())


def test_file_without_an_expected_layer_is_refused(project):
    row, = chain.rows(TINY, ["gnet"], [1], root=project)
    layers = [layer for layer in caffe_files.read_weights(row.path(row.weights_out)) if layer.name != "fc6"]
    net = caffe_files.parse_net("".join(f'layer {{ name: "{layer.name}" type: "{layer.type}" }}\n' for layer in layers))
    caffe_files.write_weights(row.path("weights/tiny/no_fc6.caffemodel"), net,
                        [[blob.data.reshape(blob.shape) for blob in layer.blobs] for layer in layers])
    with pytest.raises(chain.ChainError, match="does not fill layer fc6"):
        run(project, [2], start="weights/tiny/no_fc6.caffemodel", variant="no_fc6")


def test_variant_skips_steps_and_keeps_the_chain_apart(project):
    _, row = run(project, [4], start="", variant="no_steps")
    assert row.weights_out == "weights/tiny/step4_gnet-no_steps.caffemodel" and record(row)["iteration"] == 6
    _, row = run(project, [4], start=recipe.step_weights("tiny", "gnet", 1), variant="only_step1")
    assert row.head == "fc8_gender" and record(row)["iteration"] == 6
    assert not os.path.exists(row.path("weights/tiny/step4_gnet.caffemodel"))


@pytest.mark.parametrize("step, missing, command", [
    (2, "data/tiny/scheme3/celeba_train", "make lmdb CROP=scheme3 PROFILE=tiny CELEBA="),
    (4, "data/tiny/scheme3/fotw_train", "make lmdb CROP=scheme3 PROFILE=tiny FOTW="),
    (3, "weights/tiny/step2_scheme3.caffemodel", "make step2 NET=gnet PROFILE=tiny"),
    (4, "solvers/tiny/step4_gnet.prototxt", "make prototxt"),
])
def test_missing_input_names_the_command_that_makes_it(project, step, missing, command):
    if not missing.startswith("weights"):
        shutil.rmtree(os.path.join(project, missing.split("/")[0]))
    with pytest.raises(chain.ChainError) as error:
        run(project, [step])
    assert missing in str(error.value) and command in str(error.value)


def test_missing_vgg_face_says_make_weights(tmp_path):
    make = chain.Row(recipe.PAPER, "gnet", 1, root=str(tmp_path))
    os.makedirs(os.path.dirname(make.path(make.definition)))
    open(make.path(make.definition), "w").close()
    with pytest.raises(chain.ChainError, match=r"VGG_FACE.caffemodel is missing: make weights .* VGG_FACE=path"):
        chain.check_inputs(make)


def test_two_processes_do_not_train_in_one_folder(project):
    row, = chain.rows(TINY, ["gnet"], [2], root=project)
    os.makedirs(row.path(row.folder))
    with runs.only_one(row):
        assert status.describe(row)["state"] == "running"
        with pytest.raises(chain.ChainError, match=f"another process .*process {os.getpid()}, or one that it has"):
            run(project, [2])


def test_the_best_snapshot_stays_beside_the_newest(project, monkeypatch):
    accuracies = iter([0.1, 0.9, 0.4, 0.5, 0.5])
    take = runs.Run.event
    monkeypatch.setattr(runs.Run, "event", lambda self, event: take(
        self, {**event, "accuracy": next(accuracies)} if event["event"] == "test" else event))
    rows = chain.rows(TINY, ["gnet"], [2], root=project)
    path = rows[0].path(rows[0].solver)
    with open(path) as stream:
        text = stream.read()
    with open(path, "w") as stream:
        stream.write(text.replace("snapshot: 2 ", "snapshot: 3 ").replace("max_iter: 6 ", "max_iter: 12 "))
    train.run(rows, FAKE, say=print)  # tests and snapshots at 3, 6, 9, 12
    left = sorted(os.path.basename(name) for name in glob.glob(rows[0].path(f"{rows[0].folder}/*.caffemodel")))
    assert left == ["snapshot_iter_12.caffemodel", "snapshot_iter_3.caffemodel"]
    best = record(rows[0])["best"]
    assert (best["iteration"], best["accuracy"]) == (3, 0.9) and os.path.exists(rows[0].path(best["weights"]))


def test_too_little_room_for_snapshots_is_said_before_training(project, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(chain.ChainError, match="two snapshots in runs/tiny/step2_scheme3 need about .*: make room first"):
        run(project, [2])


def test_status(project):
    entries = {entry["step"]: entry for entry in status.collect(TINY, root=project) if entry["net"] == "gnet"}
    assert [entries[step]["state"] for step in (1, 2, 3, 4)] == ["done", "missing", "missing", "missing"]
    assert entries[2]["command"] == "make step2 NET=gnet PROFILE=tiny"
    run(project, [2])
    entry = next(entry for entry in status.collect(TINY, root=project) if entry["net"] == "gnet" and entry["step"] == 2)
    assert (entry["state"], entry["iteration"]) == ("done", 6) and entry["accuracy"] is not None
    lines = status.table(list(entries.values())).splitlines()
    assert len({line.index("-") for line in lines[2:]}) == 1  # aligned


@pytest.mark.parametrize("arguments, message", [
    (["--step", "5"], "invalid choice"),
    (["--step", "2", "--batch", "0"], "not a positive number"),
    (["--step", "2", "--weights", "none"], "needs --variant"),
    (["--step", "2", "--net", "fnet"], "gnet"),
    (["--step", "2", "--max-iter", "2147483648"], "1 to 2147483647"),
    (["--step", "2", "--seed", "-1"], "not a seed"),
    (["--step", "2", "--base-lr", "1e-50"], "not a positive number"),
    (["--step", "2", "--gpu", "-1"], "is below 0"),
    (["--step", "2", "--engine", "caffe", "--deterministic"], "real Caffe has no deterministic mode"),
    (["--step", "2", "--engine", "caffe", "--compile"], "real Caffe cannot be compiled"),
    (["--step", "4", "--variant", "../x"], "no part of a file's name"),
])
def test_wrong_use_ends_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        train.main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_crops_of_another_size_are_refused_before_training(project):
    row, = chain.rows(replace(TINY, crop_size=TINY.crop_size + 8), ["gnet"], [2], root=project)
    with pytest.raises(chain.ChainError, match=r"holds crops of \d+ x \d+ pixels, profile tiny takes .* make lmdb"):
        train.run([row], FAKE, say=print)


def test_status_of_a_running_step_tells_speed_and_time_left(project):
    row, = chain.rows(TINY, ["gnet"], [2], root=project)
    os.makedirs(row.path(row.folder))
    files.write_json(row.path(f"{row.folder}/run.json"), {"inputs": {"batch size": "8"}, "max_iter": 6000, "finished": False})
    lines = [f"{iteration},0.1,0.5,,,{2.5 * iteration / 20}," for iteration in range(0, 2001, 20)]
    files.write_text(row.path(f"{row.folder}/metrics.csv"), "\n".join([",".join(metrics.COLUMNS), *lines]) + "\n")
    with runs.only_one(row):
        entry = status.describe(row)
        assert (entry["state"], entry["iteration"]) == ("running", 2000)
        assert (entry["images_per_second"], entry["seconds_left"]) == (64.0, 500)
        assert status.table([entry]).splitlines()[-1].endswith("64 images/s, 8 min 20 s left")


@pytest.mark.parametrize("start", [None, "weights/elsewhere/a_long_folder/my_start.caffemodel"])
def test_the_plan_fits_a_terminal(project, start):
    """At the paper's numbers, with its longest names; what begins elsewhere is named whole."""
    rows = chain.rows(replace(recipe.PAPER, name="tiny"), recipe.PIPELINE_NETS, [2, 3, 4], root=project)
    rows = [replace(row, start=start) for row in rows]
    text = train.plan(rows, engine.interpreter("torch"))
    assert max(map(len, text.splitlines())) <= (100 if start is None else 130)
    assert "weights: weights/tiny/NAME.caffemodel" in text and (start or "step2_scheme3") in text
