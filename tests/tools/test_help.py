"""Every command explains itself from any folder, without an engine and without a file left behind, and wrong numbers in words."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import options

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = sorted(path for path in (ROOT / "tools").glob("*.py") if "def get_parser(" in path.read_text(encoding="utf-8"))
HEAVY = ("torch", "caffe", "numpy", "cv2", "matplotlib", "skimage", "h5py", "google.protobuf.message")
MOST_FLAGS = 19  # train.py's; more are a sign that a tool does too much
# Runs a tool as a script would be run, then tells on stderr which heavy packages it has imported.
PROBE = """
import runpy, sys
tool = sys.argv[1]
sys.argv = sys.argv[1:]
try:
    runpy.run_path(tool, run_name="__main__")
finally:
    print("imported:", [name for name in {heavy} if name in sys.modules], file=sys.stderr)
""".format(heavy=HEAVY)


def probe(tool: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-B", "-c", PROBE, str(tool), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "COLUMNS": "120"})


def test_there_are_tools() -> None:
    names = {path.name for path in TOOLS}
    assert {"train.py", "predict.py", "evaluate.py", "status.py", "make_nets.py", "weights.py", "demo.py"} <= names


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_help(tool: Path, tmp_path: Path) -> None:
    result = probe(tool, tmp_path, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ")
    assert result.stderr.strip() == "imported: []"
    assert list(tmp_path.iterdir()) == []
    flags = set(re.findall(r"^  (?:-\w, )?--([\w-]+)", result.stdout, re.M)) - {"help"}
    assert len(flags) <= MOST_FLAGS, flags


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_unknown_flag(tool: Path, tmp_path: Path) -> None:
    result = probe(tool, tmp_path, "--no-such-flag")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and "usage: " in result.stderr


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_example_in_the_docstring(tool: Path) -> None:
    head = tool.read_text(encoding="utf-8").split('"""')[1]
    assert re.search(r"^    (python|make) ", head, re.M), f"{tool.name}: no command to copy in its docstring"


@pytest.mark.parametrize("kind, text", [
    ("positive", "ten"), ("positive", "0"), ("natural", "-1"), ("random_seed", "1e3"), ("positive_real", "abc"),
    ("positive_real", "nan"), ("share", "half"), ("share", "1.5")])
def test_a_wrong_number_is_told_in_words(kind, text):
    """argparse alone would say "invalid positive_real value"."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text}.* is (not a|below)"):
        getattr(options, kind)(text)
