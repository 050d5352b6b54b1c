"""How much is logged: glog's levels, caffe.log.quiet(), and one line a net in notebooks."""

import os
import re
import subprocess
import sys
import types

import pytest

import torchcaffe as caffe
from torchcaffe.core import log

LOSS = """name: "small" layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "data" top: "loss" }"""
SOLVER = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 2 display: 1 snapshot_after_train: false'
PREFIX = re.compile(r"^[IWE]\d{4} [\d:.]+ +\d+ \w+\.py:\d+\] ")


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch):
    """As in a new process without GLOG_ variables."""
    for name, value in (("minloglevel", None), ("stderrthreshold", None), ("log_dir", None), ("files", {})):
        monkeypatch.setattr(log.Settings, name, value)
    for name in [name for name in os.environ if name.startswith("GLOG_")]:
        monkeypatch.delenv(name)


def shell(*names):
    """An object whose classes have these names, as IPython's shells and Colab's, which derives from one of them."""
    cls = object
    for name in names:
        cls = type(name, (cls,), {})
    return cls()


@pytest.fixture
def in_shell(monkeypatch):
    def enter(*names):
        ipython = types.ModuleType("IPython")
        ipython.get_ipython = lambda: shell(*names) if names else None
        monkeypatch.setitem(sys.modules, "IPython", ipython)

    return enter


def messages(capsys) -> list:
    """The logged lines without their prefixes, which each must have (a message of several lines counts once)."""
    lines = capsys.readouterr().err.splitlines()
    assert not lines or PREFIX.match(lines[0])
    return [PREFIX.sub("", line) for line in lines if PREFIX.match(line)]


def test_a_notebook_gets_one_line_a_net(make_solver, make_net, in_shell, capsys):
    make_net(LOSS, caffe.TEST)
    everywhere = messages(capsys)
    assert everywhere[0] == "Initializing net from parameters: " and "Setting up ip" in everywhere and len(everywhere) > 20

    in_shell("InteractiveShell", "ZMQInteractiveShell")
    make_net(LOSS, caffe.TEST)
    assert messages(capsys) == ['Net "small" (TEST, cpu): 4 layers, 5 blobs, 12 parameters (48 bytes)']

    solver = make_solver(LOSS, SOLVER)
    made = messages(capsys)
    assert len(made) == 3 and made[0].startswith("Creating training net") and made[2] == "Solver scaffolding done."
    assert made[1].startswith('Net "small" (TRAIN, cpu): ')
    solver.solve()
    trained = messages(capsys)
    assert [line for line in trained if re.match(r"Iteration 1 .* loss = ", line)] and trained[-1] == "Optimization Done."


@pytest.mark.parametrize("names, short", [
    (("ZMQInteractiveShell",), True), (("ZMQInteractiveShell", "Shell"), True), (("TerminalInteractiveShell",), False), ((), False),
])  # fmt: skip
def test_notebooks_are_told_from_terminals(in_shell, names, short):
    in_shell(*names)
    assert log.in_notebook() == short


@pytest.mark.parametrize("full", ["environment", "quiet(False)"])
def test_a_notebook_gets_all_where_it_is_asked_for(make_net, in_shell, capsys, monkeypatch, full):
    in_shell("ZMQInteractiveShell")
    if full == "environment":
        monkeypatch.setenv("GLOG_minloglevel", "0")
    else:
        caffe.log.quiet(False)
    make_net(LOSS, caffe.TEST)
    assert "Setting up ip" in messages(capsys)


def test_log_files_get_all_in_notebooks_too(make_net, in_shell, monkeypatch, tmp_path):
    in_shell("ZMQInteractiveShell")
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    make_net(LOSS, caffe.TEST)
    assert "] Setting up ip\n" in (tmp_path / "caffe.INFO").read_text()
    log.Settings.files[0].close()


def test_quiet_leaves_warnings_and_errors(make_net, capsys):
    caffe.log.quiet()
    make_net(LOSS, caffe.TEST)
    caffe.log("information")
    log.warning("look here")
    assert messages(capsys) == ["look here"]
    caffe.log.quiet(False)
    caffe.log("information")
    assert messages(capsys) == ["information"]


@pytest.mark.parametrize("level, letters", [(None, "IWE"), ("0", "IWE"), ("1", "WE"), ("2", "E"), ("3", "")])
def test_levels_of_the_environment_are_glogs(root, level, letters):
    code = ("import torchcaffe as caffe\nfrom torchcaffe.core import log\n"
            "caffe.log('information')\nlog.warning('warning')\nlog.error('error')")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GLOG_")}
    given = {} if level is None else {"GLOG_minloglevel": level}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**clean, **given}, capture_output=True, text=True)
    assert done.returncode == 0 and "".join(line[0] for line in done.stderr.splitlines()) == letters, done.stderr
