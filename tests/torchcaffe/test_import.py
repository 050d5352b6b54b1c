"""What importing torchcaffe does: it loads neither torch nor numpy, and sets how their threads wait."""

import os
import re
import subprocess
import sys

import pytest


def python(root, code, **variables):
    """(stdout, stderr) of a Python with these variables, and without ours."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={**clean, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_importing_loads_neither_torch_nor_numpy(root):
    code = ("import sys, torchcaffe, torchcaffe.commands.cli as cli; cli.usage('train'); "
            "print([name for name in ('torch', 'numpy', 'google.protobuf', 'cv2') if name in sys.modules])")
    assert python(root, code)[0] == "[]\n"


@pytest.mark.parametrize("start", ["import torchcaffe, torch", "import torchcaffe.core.net", "import torchcaffe.commands.cli, torch"])
def test_threads_spin_briefly(root, start):
    """As GNU's OpenMP, which PyTorch's Linux builds have, reports its settings when it is loaded."""
    assert spins(root, start) == {4000}


def test_how_threads_wait_is_the_users_choice(root):
    assert min(spins(root, "import torchcaffe, torch", OMP_WAIT_POLICY="ACTIVE")) > 4000
    assert spins(root, "import torchcaffe, torch", GOMP_SPINCOUNT="7") == {7}


def spins(root, start, **variables):
    """How often a waiting thread looks before it sleeps."""
    _, report = python(root, start, OMP_DISPLAY_ENV="verbose", **variables)
    found = {int(number) for number in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", report)}
    return found or pytest.skip("this PyTorch has another OpenMP than GNU's")
