"""Real Caffe as the referee: its Python and tools in .caffe/ (`make caffe`). Without it these tests are skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.engine import debian_tool
from files import prepare

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / ".caffe"


def _environment():
    return {**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1", "OMP_NUM_THREADS": "1"}


def _run(command, **options):
    options = {"capture_output": True, "text": True, "timeout": 120, "env": _environment(), **options}
    return subprocess.run([str(word) for word in command], **options)


@pytest.fixture(scope="session")
def debian():
    """Folder of real Caffe, or skip."""
    if not (DEBIAN / "usr" / "bin" / "caffe").exists():
        pytest.skip("needs real Caffe in .caffe/: type `make caffe`")
    return DEBIAN


@pytest.fixture(scope="session")
def real_python(debian):
    """real_python(script, *arguments) runs a script under real pycaffe."""
    return lambda *arguments, **options: _run([debian / "python", *arguments], **options)


@pytest.fixture(scope="session")
def real_tool(debian):
    """real_tool("convert_imageset", *arguments) runs one of real Caffe's programs."""
    return lambda name, *arguments, **options: _run([*debian_tool(name), *arguments], **options)


@pytest.fixture(scope="session")
def our_tool():
    """our_tool("train", *arguments) runs `python -m torchcaffe train ...`."""
    environment = {**_environment(), "PYTHONPATH": str(ROOT)}
    return lambda *arguments, **options: _run(
        [sys.executable, "-m", "torchcaffe", *arguments], **{"env": environment, **options}
    )


@pytest.fixture(scope="module")
def quiet():
    """No log of nets: there are hundreds of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOG_minloglevel", "3")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the files lie that the cases' layers read."""
    path = tmp_path_factory.mktemp("cases")
    prepare(path)
    return path
