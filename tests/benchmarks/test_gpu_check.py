"""make gpu-check without a GPU: limits, failures, the report; slow: a quick check of the CPU, from start to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import Part

ROOT = Path(gpu_check.__file__).resolve().parents[1]
MEASURES = """import json, sys
json.dump([{"what": "one image", "ours": 2.0, "other": 1.0, "baseline": "the loop", "unit": "images/s",
            "bar": ["at least", 3.0], "note": ""}], open(sys.argv[sys.argv.index("--json") + 1], "w"))"""
HANGS = """import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print("child", child.pid, flush=True)
time.sleep(100)"""


def python(code: str, limit: float = 60.0, benchmark: bool = True) -> Part:
    return Part(code.split()[0], [sys.executable, "-c", code], limit, benchmark)


def checked(monkeypatch, tmp_path, *parts, **options):
    """(exit status, the JSON report, the page) of a check that has these parts."""
    monkeypatch.setattr(gpu_check, "parts", lambda device, quick: list(parts))
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    status = gpu_check.main(["--device", "cpu", "--output", str(tmp_path / "out"), *words])
    return status, json.loads((tmp_path / "out" / "benchmarks-gpu.json").read_text()), (tmp_path / "out" / "benchmarks-gpu.md").read_text()


def test_a_part_that_hangs_or_fails_costs_only_itself(monkeypatch, tmp_path, capsys):
    began = time.monotonic()
    hanging, failing = python(HANGS, limit=2.0, benchmark=False), python("raise SystemExit('it is broken')")
    measuring = Part("training", [sys.executable, "-c", MEASURES], 60.0)
    status, report, page = checked(monkeypatch, tmp_path, hanging, failing, measuring)
    assert status == 1 and time.monotonic() - began < 40
    assert [part["result"] for part in report["parts"]] == ["stopped after 2 s", "failed with status 1", "done"]
    assert "it is broken" in report["parts"][1]["output"] and report["parts"][2]["rows"][0]["ours"] == 2.0
    assert "| training | " in page and "| one image | 2 images/s | the loop: 1 images/s | 2 | at least 3, **missed** |" in page
    shown = capsys.readouterr().out
    assert "it is broken" in shown and "stopped after 2 s" in shown
    child = int(report["parts"][0]["output"].split()[1])  # what the part has started ends with it
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(child, 0)
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                raise ProcessLookupError
            time.sleep(0.1)


def test_no_part_is_run_when_the_time_is_up(monkeypatch, tmp_path):
    status, report, _ = checked(monkeypatch, tmp_path, python(HANGS), python("print(1)", benchmark=False), budget=1)
    assert status == 1
    assert [part["result"] for part in report["parts"]] == ["stopped after 1 s", "not run: the time is up"]


def test_all_done(monkeypatch, tmp_path):
    status, report, _ = checked(monkeypatch, tmp_path, Part("training", [sys.executable, "-c", MEASURES], 60.0))
    assert status == 0 and "torch" in report["machine"]


def test_the_parts_of_a_whole_check_fit_and_are_commands_that_exist():
    parts = gpu_check.parts("0", quick=False)
    assert [part.name for part in parts][:5] == ["test-gpu", "chain", "training", "costs", "detection"]
    for part in parts:
        assert part.limit <= gpu_check.BUDGET / 2 and "0" in part.command
        if part.benchmark:
            source = (ROOT / part.command[2].replace(".", "/")).with_suffix(".py").read_text()
            assert "def rows(options)" in source and "measuring" in source


def test_where_it_cannot_run(monkeypatch, capsys):
    import torch

    assert gpu_check.main(["--device", "99"]) == 2
    assert "gpu-check: " in capsys.readouterr().err
    monkeypatch.setattr(torch, "__version__", "2.10.1+cu128")
    assert gpu_check.main(["--device", "cpu"]) == 2
    assert "PyTorch 2.10.1+cu128 is older than 2.11: make gpu-check PYTHON=" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, expected", [
    (["GPU=1"], "GENDER_SMILE_ENVIRONMENT=1 .venv/bin/python -m benchmarks.gpu_check --device 1"),
    (["PYTHON=/opt/my python"], "GENDER_SMILE_ENVIRONMENT=1 '/opt/my python' -m benchmarks.gpu_check"),
])
def test_make(arguments, expected):
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    done = subprocess.run(["make", "-n", "-C", str(ROOT), "-o", ".venv/ready", "gpu-check", *arguments], env=clean,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert expected.replace("'", "") in done.stdout.replace("'", "")


@pytest.mark.slow
def test_a_quick_check_of_the_cpu(tmp_path):
    """The same code as on a GPU, a few of its tests, and the command that users type for a few iterations."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--quick", "--budget", "1500",
               "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "benchmarks-gpu.json").read_text())
    assert [part["name"] for part in report["parts"]] == ["test-gpu", "chain", "costs", "detection"]
    assert " passed" in report["parts"][0]["output"] and "failed" not in report["parts"][0]["output"]
    assert any("after the first iteration" in row["what"] for row in report["parts"][1]["rows"])
    assert report["parts"][3]["rows"][1]["ours"] == 100  # the same faces
    page = (tmp_path / "benchmarks-gpu.md").read_text()
    assert "Costs of the demo profile's run" in page and "| both tables" in page and "| both tables" in done.stdout
