"""What type checkers and editors see: the stub of the lazily resolved names, caffe_pb2's, and a user's script under mypy."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.aliases import ALIASES
from torchcaffe.proto import caffe_pb2

PACKAGE = Path(caffe.__file__).parent
NET = """name: "n" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }"""
TRAINED = """layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "data" top: "loss" }"""
# `# R:` is what mypy reveals of the line, without the modules' names; `# E:` a word of the error that it must report there.
RIGHT = '''
import pathlib
import numpy as np
import torchcaffe as caffe
import torchcaffe.log
from torchcaffe import layers as L, params as P
from torchcaffe.errors import NetError
from torchcaffe.proto import caffe_pb2

net = caffe.Net("net.prototxt", caffe.TEST)
caffe.Net(pathlib.Path("net.prototxt"), "net.caffemodel", caffe.TEST)
caffe.Net("net.prototxt", caffe.TRAIN, stages=["deploy"], weights="net.caffemodel")
reveal_type(net.blobs["data"].data)  # R: ndarray[tuple[Any, ...], dtype[floating[_32Bit]]]
reveal_type(net.blobs["data"].data.shape)  # R: tuple[Any, ...]
reveal_type(net.blobs["data"].shape[0])  # R: int
reveal_type(net.params["conv1"][0])  # R: Blob
reveal_type(net.forward(data=np.zeros((1, 1, 28, 28)))["prob"])  # R: ndarray[tuple[Any, ...], dtype[floating[_32Bit]]]
reveal_type(net.inputs)  # R: list[str]
reveal_type(net.top_names["conv1"])  # R: list[str]
net.copy_from(pathlib.Path("net.caffemodel"))
solver = caffe.SGDSolver("solver.prototxt")
reveal_type(solver.iter)  # R: int
reveal_type(solver.net)  # R: Net
reveal_type(solver.test_nets[0])  # R: Net
reveal_type(caffe.get_solver("solver.prototxt"))  # R: SGDSolver
spec = caffe.NetSpec()
spec.data = L.Input(input_param=dict(shape=dict(dim=[1, 3, 4, 4])))
spec.pool = L.Pooling(spec.data, pool=P.Pooling.MAX)
reveal_type(spec.to_proto().layer[0].pooling_param.kernel_size)  # R: int
transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
reveal_type(transformer.preprocess("data", caffe.io.load_image("cat.jpg")))  # R: ndarray[tuple[Any, ...], dtype[floating[_32Bit]]]
reveal_type(caffe.Classifier("net.prototxt", "net.caffemodel").predict([np.zeros((2, 2, 3))]).ndim)  # R: int
reveal_type(caffe.Detector("a", "b").detect_windows([("cat.jpg", [(0, 0, 9, 9)])]))  # R: list[dict[str, Any]]

@caffe.register_layer
class Twice(caffe.TorchLayer):
    type = "Twice"
    settings = {"twice_param": {"factor": (float, 2.0)}}

    def shapes(self, first: tuple) -> list:
        return [first]

    def forward(self, x: object) -> object:
        return self.param.twice_param.factor * x

reveal_type(Twice.type)  # R: str

@caffe.register_layer(replace=True)
class Thrice(Twice):
    type = "Thrice"

class InPython(caffe.Layer):
    def setup(self, bottom: list, top: list) -> None:
        reveal_type(self.blobs)  # R: BlobVec

reveal_type(caffe.proto.caffe_pb2.Datum().label)  # R: int
reveal_type(caffe.io.datum_to_array(caffe_pb2.Datum(label=3)).dtype.name)  # R: str
reveal_type(caffe.draw.draw_net(spec.to_proto(), "LR"))  # R: bytes
reveal_type(caffe.layer_type_list())  # R: list[str]
caffe.log("text")
caffe.log.quiet()
torchcaffe.log.quiet(False)
caffe.set_mode_gpu()
caffe.set_precision("tf32")
raise NetError("x")
'''
WRONG = '''
import torchcaffe as caffe
from torchcaffe.proto import caffe_pb2

caffe.Net("net.prototxt")  # E: overload
caffe.Net("net.prototxt", phase="TEST")  # E: overload
net = caffe.Net("net.prototxt", caffe.TEST)
net.blob["data"]  # E: maybe "blobs"
net.blobs["data"].dat  # E: maybe "data"
net.blobs[0]  # E: Invalid index
net.params["conv1"].data  # E: "BlobVec" has no attribute "data"
net.forward(end=3)  # E: incompatible type "int"
solver = caffe.SGDSolver("solver.prototxt")
solver.step("3")  # E: incompatible type "str"
solver.iter = 4  # E: read-only
caffe.set_device("0")  # E: incompatible type "str"
caffe.set_mode("gpu")  # E: maybe "set_mode_cpu"
caffe.TRAIN = 2  # E: final
caffe.io.load_imag("cat.jpg")  # E: maybe "load_image"
caffe.io.Transformer({"data": (1, 3, 2, 2)}).set_raw_scale("data", "255")  # E: incompatible type "str"
caffe.Classifier("net.prototxt", "net.caffemodel").predict([1])  # E: incompatible type "int"
caffe.NetSpec().to_proto().layers_  # E: has no attribute "layers_"
caffe.register_layer(3)  # E: overload
caffe_pb2.Datum(lable=3)  # E: did you mean "label"
'''


def stub_names() -> dict:
    """{name: module that __init__.pyi takes it from; "" where it is declared there}, private helpers left out."""
    names = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("torchcaffe"):
            assert all(alias.name == alias.asname for alias in node.names), ast.unparse(node)  # else it is no public name
            names.update((alias.name, node.module.partition(".")[2]) for alias in node.names)
        elif isinstance(node, (ast.AnnAssign, ast.FunctionDef)):
            names[node.target.id if isinstance(node, ast.AnnAssign) else node.name] = ""
    return names


def test_the_stub_says_what_the_package_resolves():
    stub = stub_names()
    assert {name: home for name, home in stub.items() if home} == caffe._HOMES
    declared = {"TRAIN", "TEST", "__version__", "layer_type_list", "log"}
    assert {name for name, home in stub.items() if not home} == declared | set(caffe._MODULES) | set(ALIASES)
    for name, home in stub.items():
        there = importlib.import_module(f"torchcaffe.{home}") if home else caffe
        # The package `layers`, once it is loaded, stands in for net_spec's object: its other names are that one's.
        assert getattr(caffe, name) is getattr(there, name) or name == "layers", name
    assert set(dir(caffe)) == set(stub) - {"_caffe"}


def test_documented_paths_of_modules_have_stubs():
    for name, home in ALIASES.items():
        assert (PACKAGE / f"{name}.pyi").read_text() == f"from torchcaffe.{home} import *\n"
    assert {path.stem for path in PACKAGE.glob("*.pyi")} == {"__init__", *ALIASES}


def test_the_messages_stub_has_each_message_enum_and_field():
    """caffe_pb2.pyi against the messages themselves."""
    kinds = {"int": int, "float": float, "bool": bool, "str": str, "bytes": bytes}
    found = {}

    def read(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = {
                    item.target.id: ast.unparse(item.annotation) for item in node.body if isinstance(item, ast.AnnAssign)
                }
                read(node.body, prefix + node.name + ".")

    read(ast.parse((PACKAGE / "proto" / "caffe_pb2.pyi").read_text()).body, "")

    def compare(descriptor, prefix):
        assert set(found) >= {prefix + enum.name for enum in descriptor.enum_types}
        own = found[prefix[:-1]]
        assert {name for name in own if not own[name].startswith("_ClassVar") and name not in values(descriptor)} == {
            field.name for field in descriptor.fields}, prefix
        for field in descriptor.fields:
            told = re.sub(r"^_containers\.Repeated\w+\[(.*)\]$", r"\1", own[field.name])
            assert (told != own[field.name]) == isinstance(field.default_value, list), field.full_name
            if told in kinds and not isinstance(field.default_value, list):
                assert isinstance(field.default_value, kinds[told]), field.full_name
            elif told not in kinds:
                assert told == (field.message_type or field.enum_type).full_name.removeprefix("caffe."), field.full_name
        for nested in descriptor.nested_types:
            compare(nested, f"{prefix}{nested.name}.")

    def values(descriptor):
        return {value.name for enum in descriptor.enum_types for value in enum.values}

    messages = caffe_pb2.DESCRIPTOR.message_types_by_name
    for name, descriptor in messages.items():
        compare(descriptor, f"{name}.")
    assert {name for name in found if "." not in name} == set(messages) | set(caffe_pb2.DESCRIPTOR.enum_types_by_name)
    assert len(messages) > 60


def run_mypy(tmp_path, text) -> dict:
    """{line: what mypy says of it} for a user's script, with torchcaffe as an installed package."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed (pip install mypy types-protobuf)")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "torchcaffe").symlink_to(PACKAGE)
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--disable-error-code=type-arg", "--config-file=",
               f"--cache-dir={PACKAGE.parent / '.mypy_cache' / 'scripts'}", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "MYPYPATH": "packages"}, capture_output=True, text=True)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr + done.stdout
    said = {}
    for line in done.stdout.splitlines():
        match = re.match(r"script\.py:(\d+): (.*)", line)
        assert match or line.startswith(("Found ", "Success")), line  # errors elsewhere are errors of the stubs
        if match:
            said.setdefault(int(match[1]), []).append(match[2])
    return said


@pytest.mark.slow
def test_mypy_knows_the_types_of_a_script(tmp_path):
    said = run_mypy(tmp_path, RIGHT)
    expected = {}
    for number, line in enumerate(RIGHT.splitlines(), 1):
        if "  # R: " in line:
            expected[number] = [f'note: Revealed type is "{line.partition("  # R: ")[2]}"']
    assert len(expected) > 15
    plain = {number: [re.sub(r"[\w.]+\.(\w+)", r"\1", text) for text in texts] for number, texts in said.items()}
    # numpy 2.2, which Python 3.10 has, says of the shape what later ones leave open.
    assert {number: [text.replace("tuple[int, ...]", "tuple[Any, ...]") for text in texts] for number, texts in plain.items()} == expected


@pytest.mark.slow
def test_mypy_finds_wrong_uses(tmp_path):
    said = run_mypy(tmp_path, WRONG)
    expected = {number: line.partition("  # E: ")[2] for number, line in enumerate(WRONG.splitlines(), 1) if "  # E: " in line}
    assert set(said) == set(expected) and len(expected) > 15
    for number, word in expected.items():
        assert word in said[number][0], (WRONG.splitlines()[number - 1], said[number])


def test_files_may_be_named_by_paths(tmp_path):
    """As the types say: str or os.PathLike."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "trained.prototxt").write_text(TRAINED)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/trained.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "{tmp_path}/s"')
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = 3
    net.save(tmp_path / "net.caffemodel")
    net.save_hdf5(tmp_path / "net.h5")
    for weights in ("net.caffemodel", "net.h5"):
        assert caffe.Net(tmp_path / "net.prototxt", tmp_path / weights, caffe.TEST).params["ip"][0].data.min() == 3
    solver = caffe.get_solver(tmp_path / "solver.prototxt")
    solver.solve()
    again = caffe.SGDSolver(tmp_path / "solver.prototxt")
    again.restore(tmp_path / "s_iter_2.solverstate")
    assert again.iter == 2
    np.testing.assert_array_equal(again.net.params["ip"][0].data, solver.net.params["ip"][0].data)
    assert caffe.Classifier(tmp_path / "net.prototxt", tmp_path / "net.caffemodel").predict([np.ones((4, 4, 1), np.float32)]).shape == (1, 2)
