"""torchcaffe installed by itself: what its wheel holds, and what it does where only its own dependencies are installed."""

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest

from torchcaffe.core import extras
from torchcaffe.proto import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
NET = """
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "faces_lmdb" batch_size: 16 backend: LMDB }
        transform_param { scale: 0.00390625 mirror: true } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 8 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
        inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 40 display: 20
snapshot_prefix: "lenet" solver_mode: CPU random_seed: 1"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that `pip wheel .` builds of a copy of the checkout, the toolkit beside torchcaffe as in the original."""
    folder = tmp_path_factory.mktemp("wheel")
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {"torchcaffe", "tools", "gender_smile"} <= packages
    for name in packages:
        shutil.copytree(ROOT / name, folder / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md", "recipe.py"):
        shutil.copy(ROOT / name, folder / "copy")
    subprocess.run([*PIP, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder,
                    folder / "copy"], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory) -> Path:
    """bin/ of an environment that has this wheel, and of our packages only those that the wheel asks for."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    subprocess.run([*PIP, "--python", folder / "bin/python", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, target in required(wheel).items():
        (site / name).symlink_to(target)
    return folder / "bin"


def requirements(metadata) -> list:
    """Names of the packages that are needed without an extra."""
    lines = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    return [re.match(r"[\w.-]+", line)[0].lower() for line in lines]


def required(wheel: Path) -> dict:
    """{entry of site-packages: path} of all that the wheel needs, as this Python has it."""
    entries, seen = {}, set()
    waiting = requirements(wheel_metadata(wheel))
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        tops = {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}
        entries.update({top: distribution.locate_file(top) for top in tops})
        waiting += requirements(distribution.metadata)
    return entries


def wheel_metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_packages_that_are_looked_for_are_in_the_extras():
    text = (ROOT / "pyproject.toml").read_text()
    for package, extra, _ in extras.PACKAGES.values():
        assert re.search(rf'^{extra} = \[\n(    .*\n)*?    "{package}[<>=]', text, re.M), package


@pytest.mark.slow
def test_the_wheel_holds_torchcaffe_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"torchcaffe", "torchcaffe-0.1.0.dist-info"}
    sources = {path for end in ("*.py", "*.pyi", "*.proto", "py.typed") for path in (ROOT / "torchcaffe").rglob(end)}
    assert {str(path.relative_to(ROOT)) for path in sources} == {name for name in names if name.startswith("torchcaffe/")}
    assert sorted(requirements(wheel_metadata(wheel))) == ["lmdb", "numpy", "protobuf", "torch"]


@pytest.mark.slow
def test_a_net_is_trained_by_the_command(bin_folder, tmp_path):
    def run(*command):
        return subprocess.run([bin_folder / command[0], *command[1:]], cwd=tmp_path, env={**os.environ, "GLOG_minloglevel": "0"},
                              capture_output=True, text=True, timeout=300)

    random = np.random.default_rng(0)
    with lmdb.open(str(tmp_path / "faces_lmdb")) as database, database.begin(write=True) as transaction:
        for index in range(64):  # the upper or the lower half is brighter
            image, label = random.integers(0, 128, (1, 28, 28), np.uint8), index % 2
            image[:, 14 * label : 14 * label + 14] += 64
            datum = caffe_pb2.Datum(channels=1, height=28, width=28, data=image.tobytes(), label=label)
            transaction.put(f"{index:08}".encode(), datum.SerializeToString())
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)

    absent = run("python", "-c", "import importlib.util as u; print([name for name in ('cv2', 'h5py', 'PIL', 'scipy', 'tools',"
                 " 'recipe', 'common', 'gender_smile', 'benchmarks') if u.find_spec(name)])")
    assert absent.stdout == "[]\n", absent
    trained = run("torchcaffe", "train", "-solver", "solver.prototxt")
    assert trained.returncode == 0 and "Optimization Done." in trained.stderr, trained.stderr
    assert (tmp_path / "lenet_iter_40.caffemodel").stat().st_size > 4 * 18_690  # its weights
    tested = run("torchcaffe", "test", "-model", "net.prototxt", "-weights", "lenet_iter_40.caffemodel", "-iterations", "4")
    assert float(re.search(r"\] accuracy = (\S+)", tested.stderr)[1]) > 0.95, tested.stderr
    assert run("torchcaffe", "--help").stdout.startswith("usage: torchcaffe <command> <args>\n")
    assert run("python", "-m", "torchcaffe", "train", "-help").stdout.startswith("usage: python -m torchcaffe train [FLAGS]\n")

    (tmp_path / "list.txt").write_text("image.png 0\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    failed = run("torchcaffe", "convert_imageset", "./", "list.txt", "images_lmdb")
    assert failed.returncode == 1 and "type: pip install opencv-python-headless" in failed.stderr, failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("torchcaffe convert_imageset: ") and "Traceback" not in failed.stderr
