"""How torchcaffe.contrib is switched on, and what is said where it was not."""

import ast
import os
import subprocess
import sys

from torchcaffe.core import plugins
from torchcaffe.layers import base
from torchcaffe.proto import extensions

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 1 dim: 1 } } }
layer { name: "norm" type: "Normalize" bottom: "data" top: "norm" SETTINGS }
"""


def test_the_list_of_its_layers_is_complete(contrib):
    classes = [getattr(contrib, name) for name in contrib.__all__]
    assert {cls.type: tuple(cls.settings) for cls in classes} == plugins.CONTRIBUTED
    assert [cls.__name__ for cls in classes] == [cls.type for cls in classes] == contrib.__all__
    assert all(base._REGISTRY[cls.type] is cls and cls.type not in base._CATALOGUE for cls in classes)
    assert {name for cls in classes for name in cls.settings} <= set(extensions.DECLARED)


COMMANDS = """
import contextlib, io
from torchcaffe.commands import cli
commands = [["summary", "type"], ["summary", "settings"], ["time", "-model", "settings", "-iterations", "1"],
            ["train", "-solver", "solver"], ["test", "-model", "train", "-weights", "net_iter_2.caffemodel", "-iterations", "1"],
            ["upgrade_net_proto_text", "settings", "new"]]
for flag in ([], ["--contrib"]):
    for words in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main([words[0], *flag, *words[1:]])
        print((words[:2], status, out.getvalue(), err.getvalue()))
"""


def test_errors_name_the_remedy_and_the_flag_is_it(root, tmp_path):
    """Each command fails without it, with the name that is missing and what to do; then each works with --contrib."""
    (tmp_path / "type").write_text(NET.replace("SETTINGS", ""))
    (tmp_path / "settings").write_text(NET.replace("SETTINGS", "norm_param { across_spatial: false }"))
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "norm" bottom: "data" top: "loss" }'
    (tmp_path / "train").write_text(NET.replace("SETTINGS", "norm_param { }") + loss)
    (tmp_path / "solver").write_text('net: "train" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "net"')
    environment = {**os.environ, "PYTHONPATH": str(root), "GLOG_minloglevel": "2"}
    done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    for words, status, _, error in results[:6]:
        assert status == 1, words
        by_type = words == ["summary", "type"]
        what = 'layer "norm": unknown layer type "Normalize"\n' if by_type else "LayerParameter has no field 'norm_param' (in"
        assert what in error and "did you mean" not in error, error
        assert error.splitlines()[-1] == (
            f"{'Normalize' if by_type else 'norm_param'} is in torchcaffe.contrib: import torchcaffe.contrib before the net is "
            "read, or give --contrib to the command torchcaffe (docs/contrib.md)"
        )
    for words, status, _, error in results[6:]:
        assert status == 0, (words, error)
    assert len(results) == 12 and "Normalize" in results[6][2] and "norm_param {" in (tmp_path / "new").read_text()


def python(root, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_torchcaffe_does_not_import_it(root):
    """Nor does an error that names it."""
    code = """
import sys, torchcaffe
from torchcaffe import layers as L
assert "torch" not in sys.modules
spec = torchcaffe.NetSpec()
spec.data = L.Input(shape=dict(dim=[1, 1]))
for settings in (dict(across_spatial=True), dict(norm_param=dict(across_spatial=True))):
    spec.norm = L.Normalize(spec.data, **settings)
    try:
        spec.to_proto()
    except AttributeError as problem:
        print("import torchcaffe.contrib" in str(problem))
print("torchcaffe.contrib" in sys.modules, "Normalize" in torchcaffe.layer_type_list())
import torchcaffe.contrib
spec.to_proto()
print("Normalize" in torchcaffe.layer_type_list())
"""
    assert python(root, code).split() == ["True", "True", "False", "False", "True"]
