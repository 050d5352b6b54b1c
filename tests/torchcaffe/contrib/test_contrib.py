"""How torchcaffe.contrib is switched on, and what is said where it was not."""

import os
import subprocess
import sys

import pytest

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


def torchcaffe(root, folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(root), "GLOG_minloglevel": "2"}
    return subprocess.run(
        [sys.executable, "-m", "torchcaffe", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("settings", ["", "norm_param { across_spatial: false }"])
def test_the_error_names_the_remedy_and_the_flag_is_it(root, tmp_path, settings):
    (tmp_path / "net").write_text(NET.replace("SETTINGS", settings))
    done = torchcaffe(root, tmp_path, "summary", "net")
    assert done.returncode == 1
    what = "LayerParameter has no field 'norm_param'" if settings else 'layer "norm": unknown layer type "Normalize"'
    name = "norm_param" if settings else "Normalize"
    assert what in done.stderr and "did you mean" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"{name} is in torchcaffe.contrib: import torchcaffe.contrib before the net is read, or give --contrib to the command "
        "torchcaffe (docs/contrib.md)"
    )
    done = torchcaffe(root, tmp_path, "summary", "--contrib", "net")
    assert done.returncode == 0 and "Normalize" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "command", [["time", "-model", "net", "-iterations", "1"], ["upgrade_net_proto_text", "net", "new"]]
)
def test_the_flag_of_other_commands(root, tmp_path, command):
    (tmp_path / "net").write_text(NET.replace("SETTINGS", "norm_param { }"))
    done = torchcaffe(root, tmp_path, *command)
    assert done.returncode == 1 and "--contrib" in done.stderr
    done = torchcaffe(root, tmp_path, *command, "-contrib")
    assert done.returncode == 0, done.stderr


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
