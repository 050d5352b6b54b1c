"""No finished result is lost: other settings are refused or go under another name, and FORCE=1 replaces at the end only."""


from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shlex
import shutil
import subprocess
import threading

import pytest
from fake_chain import FAKE, made, no_curves, project, record, run  # noqa: F401 (fixtures)
from tiny_project import TINY

import recipe
from common import engine, files
from gender_smile.pages import report as report_page
from gender_smile.training import chain, fingerprints, run_files, runs, status
from tools import train
from torchcaffe.formats import files as caffe_files

ROOT = recipe.ROOT


def tree(root, *names):
    """{path: bytes' digest} of all files below `names` in the project, of weights and runs where none are given."""
    found = {}
    for name in names or ("weights", "runs"):
        for folder, _, inside in os.walk(os.path.join(root, name)):
            for path in (os.path.join(folder, each) for each in inside):
                with open(path, "rb") as stream:
                    found[os.path.relpath(path, root)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def unlocked(found):
    return {path: digest for path, digest in found.items() if not path.endswith(".lock")}


@pytest.fixture
def command(project, monkeypatch):
    """tools/train.py's main in the project, with the fake engine."""
    monkeypatch.setattr(recipe, "ROOT", project)
    monkeypatch.chdir(project)
    monkeypatch.setitem(recipe.PROFILES, "tiny", TINY)
    monkeypatch.setattr(engine, "interpreter", lambda name: FAKE)

    def call(step, *words):
        return train.main(["--step", str(step), "--net", "gnet", "--profile", "tiny", *words])
    return call


def typed(line):
    """What follows `tools.train` where make is given `line`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # of make test
    printed = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, env=clean, text=True, capture_output=True, check=True).stdout
    words = shlex.split(printed.replace("\\\n", " ").strip().splitlines()[-1].lstrip("@"))
    return words[words.index("tools.train") + 1:]


def interrupt(project, monkeypatch, steps, **options):
    """A run that ends in iteration 5, with snapshots of 2 and 4."""
    monkeypatch.setenv("FAKE_ABORT", "5")
    with pytest.raises(chain.ChainError, match="snapshot of iteration 4 is kept"):
        run(project, steps, **options)
    monkeypatch.delenv("FAKE_ABORT")


# ------------------------------------------------------------------------------------------ refused, or under another name
@pytest.mark.parametrize("options, sentence", [
    ({"max_iter": 2}, "solver's max_iter was 6, is 2"),
    ({"batch": 4}, "batch size was 8, is 4"),
    ({"base_lr": 0.0007}, "solver's base_lr was 0.0001, is 0.0007"),
    ({"seed": 7}, "solver's random_seed was 2016, is 7"),
    ({"precision": "bf16"}, "solver's precision was not set, is bf16"),
])
def test_a_finished_step_never_trains_over_its_result(project, options, sentence):
    run(project, [2])
    before = unlocked(tree(project))
    with pytest.raises(chain.ChainError) as error:
        run(project, [2], **options)
    assert sentence in str(error.value) and "FORCE=1" in str(error.value) and "VARIANT=name" in str(error.value)
    assert unlocked(tree(project)) == before


def test_a_changed_prototxt_or_lmdb_is_refused_too(project):
    _, row = run(project, [2])
    before = unlocked(tree(project))
    with open(row.path(row.definition)) as stream:
        text = stream.read()
    with open(row.path(row.definition), "w") as stream:
        stream.write(text.replace("dropout_ratio: 0.5", "dropout_ratio: 0.4", 1))
    with pytest.raises(chain.ChainError, match="net has changed .compare runs/tiny/step2_scheme3/net.prototxt with"):
        run(project, [2])
    assert unlocked(tree(project)) == before


def test_step_1_from_another_file_is_refused_until_it_is_forced(project):
    row, = chain.rows(TINY, ["gnet"], [1], root=project)
    old = record(row)["sha256"]
    run(project, [2])
    shutil.copyfile(row.path(row.weights_in), row.path("weights/tiny/other.caffemodel"))
    with pytest.raises(chain.ChainError, match=r"step1.caffemodel is finished, with other .*other.caffemodel is new"):
        run(project, [1], start="weights/tiny/other.caffemodel")
    assert record(row)["sha256"] == old
    run(project, [1], start="weights/tiny/other.caffemodel", force=True)
    assert "weights/tiny/other.caffemodel" in record(row)["inputs"]


def test_overrides_go_under_a_name_of_their_own_and_leave_the_finished_step_as_it_was(project, command, capsys):
    run(project, [2])
    before = unlocked(tree(project))
    assert command(2, "--batch", "4", "--max-iter", "2") == 0
    after = unlocked(tree(project))
    assert {path: after[path] for path in before} == before
    new = set(after) - set(before)
    assert new and all(path.startswith(("weights/tiny/step2_scheme3-batch4-iter2.", "runs/tiny/step2_scheme3-batch4-iter2/"))
                       for path in new)
    capsys.readouterr()
    assert command(3, "--batch", "4", "--max-iter", "2") == 0  # typed again: from the same variant
    assert "step2_scheme3-batch4-iter2 (2)" in capsys.readouterr().out
    found = files.read_json(os.path.join(project, "weights/tiny/step3_gnet-batch4-iter2.caffemodel.json"))
    assert found["start"] == {"file": "weights/tiny/step2_scheme3-batch4-iter2.caffemodel", "iteration": 2,
                              "variant": "batch4-iter2"}
    assert command(3) == 0
    found = files.read_json(os.path.join(project, "weights/tiny/step3_gnet.caffemodel.json"))
    assert found["start"] == {"file": "weights/tiny/step2_scheme3.caffemodel", "iteration": 6, "variant": ""}


def test_a_variant_starts_from_the_chains_own_where_it_has_no_step_before(project, command):
    run(project, [2])
    assert command(3, "--seed", "7") == 0
    found = files.read_json(os.path.join(project, "weights/tiny/step3_gnet-seed7.caffemodel.json"))
    assert found["start"]["file"] == "weights/tiny/step2_scheme3.caffemodel" and found["variant"] == "seed7"


def test_names_of_overrides():
    assert chain.variant_of(recipe.PAPER, max_iter=2, batch=8) == "batch8-iter2"
    assert chain.variant_of(recipe.PAPER, seed=7, share=0.05, precision="bf16") == "seed7-5percent-bf16"
    assert chain.variant_of(recipe.PAPER, seed=2016, batch=120, max_iter=110_000) == ""
    names = {chain.variant_of(recipe.PAPER, base_lr=rate) for rate in (1e-5, 0.01, 0.010000001, 0.0100001)}
    assert names == {"rate1e-05", "rate0.01", "rate0.010000001", "rate0.0100001"}
    # of a step's own iterations all steps of a command have one name
    assert {row.variant for row in chain.rows(recipe.DEMO, ["gnet"], [2, 3, 4], max_iter=400, variant=chain.variant_of(
        recipe.DEMO, max_iter=400))} == {"iter400"}


def test_none_is_the_chains_own_name(project, command, capsys):
    assert command(2, "--max-iter", "2", "--variant", "none") == 0
    assert os.path.exists(os.path.join(project, "weights/tiny/step2_scheme3.caffemodel"))
    assert command(2) == 1 and "max_iter was 2, is 6" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ where a step starts
def test_weights_of_fewer_iterations_are_no_start_unless_they_are_asked_for(project, command, capsys):
    assert command(2, "--max-iter", "2", "--variant", "none") == 0
    assert command(3) == 1
    told = capsys.readouterr().err
    assert "have 2 of 6 iterations" in told and "START=weights/tiny/step2_scheme3.caffemodel VARIANT=none" in told
    assert command(3, "--seed", "5") == 1  # nor for a variant, which would fall back to it
    assert command(3, "--weights", os.path.join(project, "weights/tiny/step2_scheme3.caffemodel"), "--variant", "none") == 0
    assert command(3, "--max-iter", "2", "--variant", "none", "--force") == 0  # the demo's way: all of it shorter


def test_a_finished_step_is_told_whatever_it_would_start_from(project, command, capsys):
    """As after `make demo`, whose steps are shorter than the recipe's."""
    for step in (2, 3):
        assert command(step, "--max-iter", "2", "--variant", "none") == 0
    capsys.readouterr()
    assert command(3) == 1
    told = capsys.readouterr().err
    assert "is finished, with other settings: solver's max_iter was 2, is 6" in told and "would start" not in told
    assert command(3, "--force") == 1 and "have 2 of 6 iterations" in capsys.readouterr().err  # where it would train
    assert command(3, "--force", "--weights", os.path.join(project, "weights/tiny/step2_scheme3.caffemodel"),
                   "--variant", "none") == 0
    capsys.readouterr()
    assert command(3) == 0 and "step 3, GNet: done" in capsys.readouterr().out


def test_a_start_of_another_variant_is_refused(project, command, capsys):
    run(project, [2])
    path = os.path.join(project, "weights/tiny/step2_scheme3.caffemodel.json")
    files.write_json(path, {**files.read_json(path), "variant": "seed9"})  # copied here by hand
    assert command(3) == 1 and "which are of variant seed9" in capsys.readouterr().err


def test_an_interrupted_start_is_named_with_the_command_that_resumes_it(project, monkeypatch):
    interrupt(project, monkeypatch, [2], batch=4, variant="batch4")
    with pytest.raises(chain.ChainError, match="stopped at iteration 4, and resumes with make step2 .* BATCH=4"):
        run(project, [3], batch=4, variant="batch4")


# ------------------------------------------------------------------------------------------ FORCE=1
def test_a_forced_run_that_fails_loses_nothing_and_is_resumed(project, monkeypatch):
    _, row = run(project, [2])
    before = tree(project, "weights", row.folder)
    monkeypatch.setenv("FAKE_ABORT", "1")
    with pytest.raises(chain.ChainError):
        run(project, [2], force=True, seed=7)
    assert tree(project, "weights", row.folder) == before
    interrupt(project, monkeypatch, [2], force=True, seed=7)
    assert tree(project, "weights", row.folder) == before
    said, _ = run(project, [2], seed=7)
    assert "resumes from iteration 4" in said[0]
    assert record(row)["seed"] == 7 and glob.glob(row.path(row.place) + ".*") == [row.path(row.place) + ".lock"]
    solver = caffe_files.read_solver(row.path(f"{row.place}/solver.prototxt"))
    assert solver.net == f"{row.place}/net.prototxt" and solver.snapshot_prefix == f"{row.place}/snapshot"
    assert os.path.exists(row.path(record(row)["best"]["weights"]))


def test_a_forced_run_that_cannot_start_loses_nothing(project, monkeypatch):
    """As with GPU=0 where there is no GPU."""
    _, row = run(project, [2])
    before = tree(project, "weights", row.folder)
    broken = engine.Interpreter("no_such_engine", "none", FAKE.command, FAKE.environment)
    with pytest.raises(chain.ChainError):
        train.run([row], broken, force=True, say=print)
    assert tree(project, "weights", row.folder) == before


@pytest.mark.parametrize("module, name", [(runs, "place"), (files, "write_json"), (run_files, "rename_in_files"), (os, "rename"),
                                          (shutil, "rmtree")])
@pytest.mark.parametrize("number", range(4))
def test_a_forced_run_that_is_killed_at_its_end_is_completed(project, monkeypatch, module, name, number):
    """Ended before the call of this number, from the last event on: result and run are the old ones or the new ones."""
    _, row = run(project, [2])
    old = record(row)
    real, calls = getattr(module, name), []

    class Killed(BaseException):
        pass

    def killed(*words, **more):
        calls.append(words)
        if len(calls) == number + 1:
            raise Killed
        return real(*words, **more)

    finish = runs._finish

    def watched(*words, **more):
        monkeypatch.setattr(module, name, killed)
        return finish(*words, **more)
    monkeypatch.setattr(runs, "_finish", watched)
    try:
        run(project, [2], force=True, seed=7)
    except Killed:
        pass
    monkeypatch.setattr(module, name, real)
    monkeypatch.setattr(runs, "_finish", finish)
    found = record(row)
    assert found is None or (found["sha256"] == files.sha256_of(row.path(row.weights_out))) or found == old
    run(project, [2], seed=7)
    assert record(row)["seed"] == 7 and record(row)["sha256"] == files.sha256_of(row.path(row.weights_out))
    assert report_page.is_run_of(record(row), row.path(row.place))
    assert glob.glob(row.path(row.place) + ".*") == [row.path(row.place) + ".lock"]


# ------------------------------------------------------------------------------------------ interrupted runs
def test_status_prints_the_command_that_resumes_a_run_with_its_own_overrides(project, command, monkeypatch, capsys):
    """As a forced run of 3,000 iterations that was shown with a command that did nothing."""
    run(project, [2])
    interrupt(project, monkeypatch, [2], force=True, max_iter=3000, batch=4, base_lr=0.0007, seed=7)
    entry = next(entry for entry in status.collect(TINY, root=project) if entry["net"] == "gnet" and entry["step"] == 2)
    assert (entry["state"], entry["iteration"], entry["max_iter"]) == ("stopped", 4, 3000)
    assert entry["command"] == (
        "make step2 NET=gnet PROFILE=tiny BATCH=4 MAX_ITER=3000 BASE_LR=0.0007 SEED=7 VARIANT=none")
    assert entry["command"] in status.table([entry])
    monkeypatch.setenv("FAKE_ABORT", "8")
    assert train.main(typed(entry["command"])) == 1
    assert "resumes from iteration 4" in capsys.readouterr().out


def test_an_interrupted_variant_is_resumed_by_what_status_prints(project, command, monkeypatch, capsys):
    run(project, [2])
    interrupt(project, monkeypatch, [3], seed=7, variant="seed7")
    run(project, [2], seed=7, variant="seed7")  # since then another start would be found
    entry, = (entry for entry in status.collect(TINY, root=project) if entry["variant"] == "seed7" and entry["step"] == 3)
    assert train.main(typed(entry["command"])) == 0
    assert "resumes from iteration 4" in capsys.readouterr().out


def test_an_interrupted_run_of_other_settings_is_told_and_not_lost(project, monkeypatch):
    interrupt(project, monkeypatch, [2], max_iter=9)
    before = unlocked(tree(project))
    said = []
    with pytest.raises(chain.ChainError, match="FORCE=1 .*VARIANT=name"):
        train.run(chain.rows(TINY, ["gnet"], [2], root=project), FAKE, say=said.append)
    assert "interrupted at iteration 4" in said[0] and "max_iter was 9, is 6" in said[0]
    assert "make step2 NET=gnet PROFILE=tiny MAX_ITER=9 VARIANT=none" in said[0]
    assert unlocked(tree(project)) == before
    said, row = run(project, [2], force=True)
    assert record(row)["iteration"] == 6
    aside, = glob.glob(row.path(row.folder) + ".2*")
    assert os.path.exists(os.path.join(aside, "snapshot_iter_4.caffemodel"))
    assert os.path.basename(aside) in said[0]


def test_a_finished_step_stays_done_beside_an_interrupted_run_of_other_settings(project, monkeypatch):
    run(project, [2])
    interrupt(project, monkeypatch, [2], force=True, max_iter=9)
    said, row = run(project, [2])
    assert "MAX_ITER=9" in said[0] and "done" in said[1] and record(row)["iteration"] == 6


def test_the_report_has_no_curve_of_another_run_than_the_weights(project, monkeypatch):
    monkeypatch.setattr(recipe, "ROOT", project)
    _, row = run(project, [2])
    trained = [found for found in report_page.trainings("tiny") if found["number"] == 2]
    assert [line["iteration"] for line in trained[0]["metrics"]] == list(range(7))
    path = row.path(f"{row.place}/run.json")
    files.write_json(path, {**files.read_json(path), "run": "another"})
    trained = [found for found in report_page.trainings("tiny") if found["number"] == 2]
    assert trained[0]["metrics"] == []


# ------------------------------------------------------------------------------------------ fingerprints of meaning
def inputs_of(project, step=2):
    row, = chain.rows(TINY, ["gnet"], [step], root=project)
    return fingerprints.fingerprints(row, *run_files.definitions(row))


def test_the_test_phase_and_validation_faces_do_not_count(project):
    said, row = run(project, [2])
    before = inputs_of(project)
    path = row.path(row.definition)
    with open(path) as stream:
        text = stream.read()
    net = caffe_files.parse_net(text)
    for layer in net.layer:
        if any(rule.phase == 1 for rule in layer.include):
            layer.name = "other_" + layer.name
    net.name = "another name"
    from google.protobuf import text_format

    with open(path, "w") as stream:
        stream.write(text_format.MessageToString(net))
    for part in ("val", "val_labels"):
        shutil.rmtree(row.path(row.databases[part]))
        shutil.copytree(row.path(row.databases[part.replace("val", "train")]), row.path(row.databases[part]))
    assert inputs_of(project) == before
    said, _ = run(project, [2])
    assert "done" in said[0] and "validation faces have changed since" in said[1]


def test_a_nets_fingerprint_is_of_the_wire_formats_bytes():
    """Written here by hand: field 100 (layer) with fields 1 (name), 2 (type) and 107 (data_param: source)."""
    net = caffe_files.parse_net('''name: "a" layer { name: "x" type: "Data" include { phase: TRAIN } data_param { batch_size: 5 prefetch: 9
        source: "s" } } layer { name: "x" type: "Data" include { phase: TEST } data_param { batch_size: 6 source: "t" } }''')
    rule = bytes([8 << 3 | 2, 2, 1 << 3, 0])
    data = bytes([0xDA, 0x06, 3, 1 << 3 | 2, 1]) + b"s"  # 107 << 3 | 2
    inside = bytes([1 << 3 | 2, 1]) + b"x" + bytes([2 << 3 | 2, 4]) + b"Data" + rule + data
    wire = bytes([0xA2, 0x06, len(inside)]) + inside  # 100 << 3 | 2
    assert fingerprints.training_net(net) == (hashlib.sha256(wire).hexdigest(), 5)


def test_solver_values_are_as_one_writes_them(project):
    found = inputs_of(project)
    assert found["solver's base_lr"] == "0.0001" and found["solver's weight_decay"] == "0.0005"
    assert found["solver's gamma"] == "0.1" and found["solver's max_iter"] == "6" and found["batch size"] == "8"
    assert not [name for name in found if "test" in name or "snapshot" in name or "val" in name]


def test_facts_of_another_split_do_not_count(project):
    path = os.path.join(project, "data/tiny/scheme3/celeba_train")
    entry = {"facts": {"seed": 1}, "split_facts": {"train": {"rows": "a"}, "val": {"rows": "b"}},
             "images": {"celeba_train": 24, "celeba_train_labels": 24, "celeba_val": 10}}

    def fingerprint(name="celeba_train"):
        files.write_json(os.path.join(os.path.dirname(path), "manifest.json"), {"celeba": entry})
        return fingerprints.database_fingerprint(os.path.join(os.path.dirname(path), name))

    before, labels, val = fingerprint(), fingerprint("celeba_train_labels"), fingerprint("celeba_val")
    entry["split_facts"]["test"] = {"rows": "c"}
    entry["images"]["celeba_test"] = 7
    assert (fingerprint(), fingerprint("celeba_train_labels"), fingerprint("celeba_val")) == (before, labels, val)
    entry["split_facts"]["val"]["rows"] = "d"
    assert fingerprint() == before and fingerprint("celeba_val") != val
    entry["split_facts"]["train"]["rows"] = "e"
    assert fingerprint() != before and fingerprint("celeba_train_labels") != labels


def test_a_record_of_another_form_is_refused_until_it_is_forced(project, command, capsys):
    assert command(2) == 0
    row = chain.Row(TINY, "gnet", 2, root=project)
    content = record(row)
    content["inputs"].pop(fingerprints.FORM)
    files.write_json(row.path(row.weights_out) + ".json", content)
    assert command(2) == 1
    assert "made by another version of this project" in (told := capsys.readouterr().err) and "FORCE=1" in told
    assert command(2, "--force") == 0 and record(row)["inputs"][fingerprints.FORM] == fingerprints.CURRENT_FORM


# ------------------------------------------------------------------------------------------ the lock, and status
@pytest.fixture
def before_the_lock(monkeypatch):
    """Call what is given, 0.3 seconds after a trainer has begun to look at its inputs."""
    def set_up(call):
        monkeypatch.setattr(chain, "check_inputs", lambda row: threading.Timer(0.3, call).start())
    return set_up


def test_whoever_looks_makes_no_trainer_fail(project, before_the_lock):
    row, = chain.rows(TINY, ["gnet"], [2], root=project)
    os.makedirs(row.path("runs/tiny"), exist_ok=True)
    with open(row.path(row.place) + ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)  # as make status has for an instant
        before_the_lock(lambda: fcntl.flock(stream, fcntl.LOCK_UN))
        run(project, [2])
    assert record(row)["iteration"] == 6


def test_a_run_that_ends_meanwhile_is_not_trained_again(project, made, tmp_path, before_the_lock):
    """The state is read once no other trains: here another ends between the start of the command and the lock."""
    other = shutil.copytree(made, tmp_path / "other", symlinks=True).__str__()
    _, row = run(other, [2])
    lock = os.path.join(project, row.place + ".lock")
    os.makedirs(os.path.dirname(lock), exist_ok=True)

    def end():
        shutil.copytree(os.path.join(other, "weights"), os.path.join(project, "weights"), dirs_exist_ok=True)
        shutil.copytree(os.path.join(other, row.place), os.path.join(project, row.place))
        fcntl.flock(stream, fcntl.LOCK_UN)

    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        before_the_lock(end)
        said, _ = run(project, [2])
    assert len(said) == 1 and "done" in said[0]


def test_the_command_that_resumes_names_the_gpu(project, monkeypatch):
    """The fake engine has none: what a run with more settings notes is put into another run's record."""
    interrupt(project, monkeypatch, [2])
    row, = chain.rows(TINY, ["gnet"], [2], root=project)
    path = row.path(f"{row.folder}/run.json")
    files.write_json(path, {**files.read_json(path), "machine": run_files.machine(1, None, True, 4, False)})
    assert chain.interrupted_run(row).command == "make step2 NET=gnet PROFILE=tiny GPU=1 DETERMINISTIC=1 ITER_SIZE=4 COMPILE=0"


def test_status_shows_variants(project, monkeypatch):
    run(project, [2, 3], seed=7, variant="seed7")
    interrupt(project, monkeypatch, [4], seed=7, variant="seed7", after="seed7")
    run(project, [2], seed=7, variant="seed7", force=True)
    found = {(entry["net"], entry["step"]): entry for entry in status.collect(TINY, root=project) if entry["variant"]}
    assert {key: entry["state"] for key, entry in found.items()} == {
        ("gnet", 2): "done", ("gnet", 3): "done", ("gnet", 4): "stopped"}
    assert "GNet, seed7" in status.table(list(found.values()))
    assert found["gnet", 4]["command"] == "make step4 NET=gnet PROFILE=tiny SEED=7"


def test_make_hands_variants_on():
    words = typed("make step3 NET=gnet START=some/file.caffemodel VARIANT=mine")
    options = train.get_parser().parse_args(words)
    assert (options.weights, options.variant) == ("some/file.caffemodel", "mine")
    assert train.get_parser().parse_args(typed("make step3 VARIANT=none")).variant == ""
    for words, expected in (("", None), ("COMPILE=1", True), ("COMPILE=0", False)):
        assert train.get_parser().parse_args(typed(f"make step3 {words}".strip())).compile is expected
