"""Imports go down the floors of docs/architecture.md only, and no two modules import each other."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("recipe", "torchcaffe", "common", "detector", "lmdb_builders", "gender_smile", "tools", "benchmarks")  # lowest first


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for floor in FLOORS for path in
           [*ROOT.glob(f"{floor}.py"), *(ROOT / floor).rglob("*.py")] if path.name != "caffe_pb2.py"}


def imported(name: str) -> set:
    """Modules of ours that `name` imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [full if full in MODULES else node.module for full in submodules]
        found.update(full for full in names if full in MODULES and full != name)
    return found


IMPORTS = {name: imported(name) for name in MODULES}


def floor(name: str) -> int:
    return FLOORS.index(name.split(".")[0])


def test_there_is_something_to_read():
    assert len(MODULES) > 150 and sum(map(len, IMPORTS.values())) > 500
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_imports_go_down_only(name):
    up = [f"{module} imports {other}" for module in MODULES if module.split(".")[0] == name
          for other in IMPORTS[module] if floor(other) > floor(module)]
    assert not up


def test_the_engine_stands_alone():
    assert not [(name, other) for name in MODULES if name.startswith("torchcaffe") for other in IMPORTS[name]
                if not other.startswith("torchcaffe")]


def test_no_two_modules_import_each_other():
    pairs = [(a, b) for a, b in itertools.combinations(sorted(MODULES), 2) if b in IMPORTS[a] and a in IMPORTS[b]]
    assert not pairs


def test_commands_do_not_import_each_other():
    commands = [name for name in MODULES if name.startswith("tools.")]
    assert not [(name, other) for name in commands for other in IMPORTS[name] if other in commands]
    assert len(commands) <= 20


def test_only_pycaffes_names_lie_flat_in_the_engine():
    flat = {path.stem for path in (ROOT / "torchcaffe").glob("*.py")}
    assert flat == {"__init__", "__main__", "_caffe", "aliases", "classifier", "coord_map", "detector", "draw", "io", "net_spec",
                    "pycaffe"}
