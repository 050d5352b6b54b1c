"""No file is ever executed: the code that reads has no way to, which its syntax trees show.

What is listed as allowed takes a name that the program itself wrote; the one exception, Python layers, is asked for
(tests/torchcaffe/test_layer_catalogue.py).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDERS = ("torchcaffe", "common", "detector", "lmdb_builders", "gender_smile", "tools", "benchmarks")
READERS = ("torchcaffe", "lmdb_builders", "detector")  # what opens other people's files

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code", "runpy", "imp"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
FORBIDDEN_ATTRIBUTES = {  # last name of what is called -> names before it that make it harmless
    "load": {"json"}, "loads": {"json"}, "system": set(), "popen": set(), "fromfile": {"np"}, "import_module": set(),
    "exec_module": set(), "load_module": set(), "find_loader": set(), "read_pickle": set(), "broadcast_object_list": set(),
    "all_gather_object": set(), "gather_object": set(), "scatter_object_list": set(),
}  # fmt: skip
ALLOWED = {  # (file, call): why
    ("torchcaffe/__init__.py", "import_module"): "names of its own table",
    ("torchcaffe/aliases.py", "import_module"): "what the program imports as caffe.X",
    ("torchcaffe/commands/cli.py", "import_module"): "names of its own table",
    ("torchcaffe/core/extras.py", "import_module"): "optional packages of its own table",
    ("torchcaffe/layers/python.py", "import_module"): "a Python layer's, behind permission.python_layers_allowed",
    ("torchcaffe/distributed/parallel.py", "broadcast_object_list"): "from rank 0 of the same training, over its own connections",
    ("lmdb_builders/readers.py", "import_module"): "a reader that recipe.DATASETS names",
    ("detector/mtcnn.py", "import_module"): "the engine's name, from common/engine.py",
    ("common/engine.py", "import_module"): "caffe or torchcaffe",
    ("gender_smile/training/solve.py", "import_module"): "the engine's name, from gender_smile/training/run_files.py and gender_smile/training/ranks.py",
    ("gender_smile/nets/vgg_face_ports.py", "load"): "onnx's, a protobuf message and numbers",
    ("detector/convert.py", "load"): "onnx's, the same, without external data",
    ("detector/batched.py", "eval"): "a torch module's: testing, not training",
    ("lmdb_builders/embeddings.py", "load"): "numpy's, of its own arrays; it unpickles nothing unless told to",
    ("lmdb_builders/teacher.py", "import_module"): "dlib, a literal",
    ("torchcaffe/core/plugins.py", "load"): "entry points of installed packages; a file can only make all of them load",
    ("benchmarks/ranks.py", "load"): "numpy's, of its own arrays; it unpickles nothing unless told to",
    ("benchmarks/child.py", "import_module"): "modules of benchmarks, named by them",
}
LOADERS = {"Pipeline.load", "self.load", "image.load", "extras.load", "plugins.load"}  # ours, and of a Pillow image: its decoding


def files(folders):
    root = Path(__file__).resolve().parents[1]
    for folder in folders:
        yield from ((path.relative_to(root).as_posix(), path) for path in sorted((root / folder).rglob("*.py")))


def dotted(node) -> str:
    """'os.path.join' of the syntax tree of such a name; '' for anything else before the last dot."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def offences(tree):
    """(line, what) of everything in a syntax tree that could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in FORBIDDEN_MODULES:
                    yield node.lineno, name
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        before, _, last = name.rpartition(".")
        if not before and last in FORBIDDEN_NAMES:
            yield node.lineno, last
        if before and last in FORBIDDEN_ATTRIBUTES and before not in FORBIDDEN_ATTRIBUTES[last] and name not in LOADERS:
            yield node.lineno, last
        for keyword in node.keywords:
            if keyword.arg in ("allow_pickle", "shell") and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield node.lineno, keyword.arg


def test_nothing_that_is_read_can_be_run():
    found = {}
    for name, path in files(FOLDERS):
        for line, what in offences(ast.parse(path.read_text())):
            found.setdefault((name, what), []).append(line)
    assert not {place: lines for place, lines in found.items() if place not in ALLOWED}
    assert set(ALLOWED) <= set(found), "allowed, and no longer there"


def test_readers_start_no_program():
    started = {
        name for name, path in files(READERS) for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] in ("subprocess", "pty") for alias in node.names)
        or isinstance(node, ast.Call) and dotted(node.func).startswith(("os.exec", "os.spawn", "os.posix_spawn", "os.fork"))
    }  # fmt: skip
    assert not started


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from yaml import safe_load", "import torch\ntorch.load(f)", "import numpy as np\nnp.load(f)",
        "np.load(f, allow_pickle=True)", "eval(text)", "exec(text)", "importlib.import_module(name)", "os.system(x)",
        "subprocess.run(x, shell=True)", "compile(x, 'f', 'exec')", "__import__(x)", "a.b.loads(x)",
    ],
)
def test_offences_are_seen(code):
    assert list(offences(ast.parse(code)))


@pytest.mark.parametrize("code", ["import json\njson.load(f)", "re.compile(x)", "net.eval()", "subprocess.run(x)"])
def test_what_is_harmless_is_not(code):
    assert not list(offences(ast.parse(code)))
