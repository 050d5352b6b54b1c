"""The same questions to pycaffe and to torchcaffe under the name caffe: the same answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).with_name("pycaffe_probe.py")
MORE_HERE = ("map of Clip", "map of Swish")  # Caffe has the layers, its coord_map does not know them


def equal(real, ours):
    """Equal, numbers to 0.1 %."""
    if isinstance(real, dict) and isinstance(ours, dict):
        return real.keys() == ours.keys() and all(equal(real[key], ours[key]) for key in real)
    if isinstance(real, list) and isinstance(ours, list):
        return len(real) == len(ours) and all(map(equal, real, ours))
    if isinstance(real, float) or isinstance(ours, float):
        return ours == pytest.approx(real, rel=1e-3, abs=1e-3)
    return real == ours


def test_pycaffe_answers_as_caffe_does(real_python, tmp_path, root):
    (tmp_path / "real").mkdir(), (tmp_path / "ours").mkdir()
    real = real_python(PROBE, tmp_path / "real")
    assert real.returncode == 0, real.stderr
    command = [sys.executable, str(PROBE), "--torchcaffe", str(root), str(tmp_path / "ours")]
    ours = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ours.returncode == 0, ours.stderr
    real, ours = (json.loads(process.stdout.splitlines()[-1]) for process in (real, ours))
    assert set(real) == set(ours)
    assert len(ours) > 200
    different = {name: (real[name], ours[name]) for name in ours if not equal(real[name], ours[name])}
    assert sorted(different) == sorted(MORE_HERE), json.dumps(different, indent=1)
