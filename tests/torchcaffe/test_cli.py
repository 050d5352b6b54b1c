"""`python -m torchcaffe`: flags as gflags reads them, Caffe's log lines, signals, and one line for a user's mistake."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.commands.cli import VERBS, main, usage
from torchcaffe.commands.flags import UsageError, parse
from torchcaffe.formats.files import read_net

NET = """name: "small"
layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 6 } shape { dim: 4 } data_filler { type: "uniform" min: -1 max: 1 } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 0.5 }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
layer { name: "extra" type: "Silence" bottom: "ip" include { stage: "extra" } }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "step" gamma: 0.1 stepsize: 3 max_iter: 6 display: 2
test_iter: 2 test_interval: 3 snapshot_prefix: "s" random_seed: 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with net.prototxt and solver.prototxt; the log is on."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLOG_minloglevel", "0")
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """run("train -solver x") -> (exit status, stdout, stderr)."""

    def call(line):
        status = main(line.split())
        return (status, *capsys.readouterr())

    return call


# ---- flags

FLAGS = {"name": ("", "text"), "count": (1, "number"), "fast": (False, "switch"), "safe": (True, "switch")}


@pytest.mark.parametrize(
    "line, expected, others",
    [
        ("-name x -count=3 --fast", ("x", 3, True, True), []),
        ("--name=a=b one -count -2 --nosafe two", ("a=b", -2, False, False), ["one", "two"]),
        ("--fast=false -safe=0 -- -name", ("", 1, False, False), ["-name"]),
        ("-name= -fast=yes", ("", 1, True, True), []),
        ("-name -fast", ("-fast", 1, False, True), []),
    ],
)
def test_flags(line, expected, others):
    values, rest = parse(line.split(), FLAGS)
    assert (values.name, values.count, values.fast, values.safe) == expected and rest == others


@pytest.mark.parametrize(
    "line, words",
    [
        ("-other 1", "unknown command line flag 'other'"),
        ("-count x", "whole number"),
        ("-name", "missing its value"),
        ("-fast=maybe", "true or false"),
        ("-noname", "unknown"),
    ],
)
def test_wrong_flags(line, words):
    with pytest.raises(UsageError, match=words):
        parse(line.split(), FLAGS)


# ---- user's mistakes: one line, exit status 1


@pytest.mark.parametrize(
    "line, words",
    [
        ("fly", "unknown action 'fly'; the actions are train, test"),
        ("trian -solver solver.prototxt", r"unknown action 'trian'; did you mean train\?"),
        ("train -slover solver.prototxt", r"unknown command line flag 'slover'; did you mean solver\?"),
        ("train", "Need a solver definition to train"),
        ("train -solver missing.prototxt", "missing.prototxt"),
        ("train -solver net.prototxt", "line 1: .* is this a net's definition"),
        ("train -solver solver.prototxt -weights a -snapshot b", "not both"),
        ("train -solver solver.prototxt -weights missing.caffemodel", "missing.caffemodel: no such"),
        ("train -solver solver.prototxt -snapshot missing.solverstate", "missing.solverstate: no such"),
        ("train -solver solver.prototxt -sigint_effect explode", 'Invalid signal effect "explode"'),
        ("train -solver solver.prototxt -gpu one", "-gpu"),
        ("test -model net.prototxt", "Need model weights to score"),
        ("test -weights x", "Need a model definition to score"),
        ("test -model net.prototxt -weights solver.prototxt", "solver.prototxt: is text"),
        ("time", "Need a model definition to time"),
        ("time -model net.prototxt -phase NIGHT", "TRAIN"),
        ("time -model net.prototxt -iterations 0", "iterations"),
        ("convert_imageset a b", "usage: .*ROOTFOLDER/ LISTFILE DB_NAME"),
        ("convert_imageset a/ missing.txt db", "missing.txt"),
        ("convert_imageset -backend rocksdb a/ net.prototxt db", "unknown backend rocksdb: lmdb or leveldb"),
        ("compute_image_mean -backend leveldb missing", "missing: no LevelDB there"),
        ("compute_image_mean missing_lmdb", "missing_lmdb: no LMDB there"),
        ("extract_features w net.prototxt ip,data db 2 lmdb", "must be equal"),
        ("upgrade_net_proto_text solver.prototxt out", "a solver has"),
        ("upgrade_net_proto_binary net.prototxt out", "is text"),
        ("draw_net net.prototxt x.png -phase NIGHT", "TRAIN, TEST or ALL"),
        ("summary", "usage: .* summary .*NET_PROTOTXT"),
        ("summary net.prototxt -phase NIGHT", "TRAIN or TEST, not 'NIGHT'"),
        ("summary missing.prototxt", "missing.prototxt: no such"),
        ("summary solver.prototxt", "a solver"),
        ("summary net.prototxt -weights missing.caffemodel", "missing.caffemodel: no such"),
    ],
)
def test_mistakes_are_one_line(run, monkeypatch, line, words):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    status, _, errors = run(line)
    assert status == 1
    assert re.search(words, errors), errors
    assert errors.count("\n") == 1 and errors.startswith("torchcaffe")


def test_help_version_and_usage(run):
    status, out, _ = run("")
    assert status == 0 and all(f"  {verb} " in out for verb in VERBS)
    assert run("train test")[:2] == (0, out)
    assert run("--version")[1] == "caffe version 1.0.0\n"
    assert "-sighup_effect" in run("train -help")[1]
    assert "ROOTFOLDER/" in usage("convert_imageset")


def test_help_loads_no_torch(root):
    code = (
        "import sys; from torchcaffe.commands.cli import main; main(['train', '-help']); main([]); "
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True).returncode == 0


# ---- train, test, time

PREFIX = r"[IWE]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] "
NUMBER = r"[-+.\deE]+"


def parse_log(text):
    """What Caffe's parse_log.py takes from a log: {"train"/"test": {iteration: {name: number}}}, and the start."""
    rows, iteration, start = {"train": {}, "test": {}}, None, None
    for line in text.splitlines():
        if "Solving" in line and start is None:
            start = line.split()[1]
        found = re.search(r"Iteration (\d+)", line)
        iteration = int(found[1]) if found else iteration
        rate = re.search(rf"lr = ({NUMBER})", line)
        if rate:
            rows["train"].setdefault(iteration, {})["lr"] = float(rate[1])
        for which in ("train", "test"):
            found = re.search(rf"{which.title()} net output #(\d+): (\S+) = ({NUMBER})", line)
            if found:
                rows[which].setdefault(iteration, {})[found[2]] = float(found[3])
    return rows, start


def test_train_and_its_log(run, folder):
    status, out, log = run("train --solver=solver.prototxt")
    assert status == 0 and out == ""
    messages = [re.sub("^" + PREFIX, "", line) for line in log.splitlines()]
    order = [
        "Use CPU.",
        "Creating training net from net file: net.prototxt",
        "Solver scaffolding done.",
        "Starting Optimization",
        "Solving small",
        "Learning Rate Policy: step",
        "Iteration 0, Testing net (#0)",
        "Snapshotting to binary proto file s_iter_6.caffemodel",
        "Optimization Done.",
    ]
    positions = [messages.index(message) for message in order]
    assert positions == sorted(positions)
    assert messages.count("Optimization Done.") == 2
    rows, start = parse_log(log)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{6}", start)
    assert sorted(rows["test"]) == [0, 3, 6] and set(rows["test"][0]) == {"acc", "loss"}
    assert sorted(rows["train"]) == [0, 2, 4]
    assert [rows["train"][i]["lr"] for i in (0, 2, 4)] == pytest.approx([0.1, 0.1, 0.01])
    # parse_log.sh takes white-space fields by number, which needs a prefix of exactly four.
    lines = log.splitlines()
    rate = next(line for line in lines if ", lr = " in line).split()
    assert rate[8] == "0.1"
    loss = next(line for line in lines if re.search(r"Iteration 0 .*, loss = ", line))
    assert float(loss.split("=")[1]) > 0
    shown = next(line for line in lines if "Test net output #1" in line)
    assert re.search(rf"{PREFIX}    Test net output #1: loss = {NUMBER} \(\* 0\.5 = {NUMBER} loss\)$", shown)
    assert float(shown.split()[10]) > 0
    assert (folder / "s_iter_6.solverstate").exists()


def test_weights_and_snapshot(run, folder):
    run("train -solver solver.prototxt")
    solver = SOLVER + 'weights: "missing.caffemodel"\n'  # replaced by -weights, dropped by -snapshot
    (folder / "solver.prototxt").write_text(solver.replace("max_iter: 6", "max_iter: 8"))
    status, _, log = run("train -solver solver.prototxt -weights s_iter_6.caffemodel,s_iter_6.caffemodel")
    assert status == 0 and log.count("Finetuning from s_iter_6.caffemodel") == 2
    status, _, log = run("train -solver solver.prototxt -snapshot s_iter_6.solverstate")
    assert status == 0
    assert log.index("Resuming from s_iter_6.solverstate") < log.index("restoring history") < log.index("Starting Opt")
    assert "Iteration 6 (" in log and "Iteration 4 (" not in log


def test_stage_and_level_reach_the_training_net(run):
    _, _, log = run("train -solver solver.prototxt -stage a,extra")
    assert "Creating Layer extra" in log
    assert log.count("Creating Layer extra") == 1


def test_test(run, folder, make_net):
    make_net(NET, caffe.TEST).save(str(folder / "w.caffemodel"))
    status, _, log = run("test -model net.prototxt -weights w.caffemodel -iterations 3")
    lines = [re.sub("^" + PREFIX, "", line) for line in log.splitlines()]
    assert status == 0 and "Running for 3 iterations." in lines
    losses = [float(line.split("= ")[1]) for line in lines if re.match(r"Batch \d, loss = ", line)]
    assert len(losses) == 3
    mean = re.fullmatch(rf"loss = ({NUMBER}) \(\* 0\.5 = ({NUMBER}) loss\)", lines[-1])
    assert float(mean[1]) == pytest.approx(np.mean(losses), rel=1e-4)
    total = next(line for line in lines if line.startswith("Loss: "))
    assert float(total[6:]) == pytest.approx(np.mean(losses) / 2, rel=1e-4)
    assert re.fullmatch(rf"acc = {NUMBER}", lines[-2])


def test_time(run):
    status, _, log = run("time -model net.prototxt -iterations 2")
    assert status == 0
    for pattern in (
        r"\*\*\* Benchmark begins \*\*\*",
        "Testing for 2 iterations.",
        rf"Iteration: 2 forward-backward time: {NUMBER} ms.",
        rf"        ip\tforward: {NUMBER} ms.",
        rf"      loss\tbackward: {NUMBER} ms.",
        rf"Average Forward pass: {NUMBER} ms.",
        rf"Average Forward-Backward: {NUMBER} ms.",
        rf"Total Time: {NUMBER} ms.",
        r"\*\*\* Benchmark ends \*\*\*",
    ):
        assert re.search(f"{PREFIX}{pattern}$", log, re.M), pattern


def test_device_query(run):
    status, _, log = run("device_query")
    assert status == 0 and "Querying GPUs \n" in log


def test_log_dir(run, folder, monkeypatch):
    from torchcaffe.core.log import Settings

    monkeypatch.setattr(Settings, "files", {})
    monkeypatch.setattr(Settings, "log_dir", None)
    run(f"train -solver solver.prototxt -log_dir {folder}")
    assert parse_log((folder / "caffe.INFO").read_text())[1]
    Settings.files[0].close()


def test_draw_net_without_pydot(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    status, _, errors = run("draw_net net.prototxt net.png")
    assert status == 1 and "pip install pydot" in errors and errors.count("\n") == 1


def test_upgraded_files(run, folder):
    (folder / "old").write_text(
        'input: "data" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 '
        'layers { name: "r" type: RELU bottom: "data" top: "data" }'
    )
    status, _, log = run("upgrade_net_proto_text old new")
    assert status == 0 and "Wrote upgraded NetParameter text proto to new" in log
    assert (folder / "new").read_text().startswith("layer {") and read_net("new") == read_net("old")
    status, _, log = run("upgrade_net_proto_text new newer")
    assert status == 0 and "File already in latest proto format: new" in log


# ---- signals


@pytest.mark.parametrize(
    "flags, number, snapshots",
    [("", signal.SIGINT, 1), ("", signal.SIGHUP, 2), ("-sighup_effect=stop -sigint_effect none", signal.SIGHUP, 1)],
)
def test_signals(folder, root, flags, number, snapshots):
    """Stop: a last snapshot and exit status 0. Snapshot: one more, and training goes on (until SIGINT)."""
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 6", "max_iter: 100000000"))
    command = [sys.executable, "-m", "torchcaffe", "train", "-solver", "solver.prototxt", *flags.split()]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    def read_until(words):
        for line in child.stderr:
            if words in line:
                return
        raise AssertionError(f"the log ended before {words!r}")

    try:
        read_until("Iteration 2 (")
        child.send_signal(number)
        read_until("Snapshotting solver state")
        if snapshots == 2:
            read_until(", lr = ")
            child.send_signal(signal.SIGINT)
        read_until("Optimization stopped early.")
        child.stderr.read()
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
    assert len(list(folder.glob("s_iter_*.solverstate"))) == snapshots
