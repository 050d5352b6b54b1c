"""make setup and the Makefile: what they run, and what they say where they cannot."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools import make_environment

ROOT = Path(make_environment.ROOT)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list:
    """What set-up would run, in a project folder of its own."""
    ran = []
    monkeypatch.setattr(make_environment, "run", lambda command, env=None: ran.append(" ".join(command)))
    for name, value in (("ROOT", tmp_path), ("ENVIRONMENT", tmp_path / ".venv"),
                        ("PYTHON", tmp_path / ".venv" / "bin" / "python"), ("READY", tmp_path / ".venv" / "ready")):
        monkeypatch.setattr(make_environment, name, str(value))
    (tmp_path / ".venv").mkdir()
    return ran


def test_installs_locked_versions_without_a_second_setuptools(commands: list) -> None:
    assert make_environment.main([]) == 0
    environment, setuptools, project, detector = commands
    assert environment.endswith(f"-m venv --clear {make_environment.ENVIRONMENT}")
    assert all("--constraint requirements.lock" in command for command in (setuptools, project))
    assert setuptools.endswith(" setuptools")
    assert project.endswith("--no-build-isolation --editable .[test]")
    assert detector.endswith("-m detector.convert")
    assert Path(make_environment.READY).read_text() == "\n"


@pytest.mark.parametrize("build", ["cpu", "cu126", "cu130", "rocm6.4"])
def test_builds_of_pytorch(commands: list, build: str) -> None:
    """The build that is there is removed first: of one version, pip keeps what it takes for the newest."""
    assert make_environment.main(["--torch", build]) == 0
    removed, installed = [command for command in commands if command.endswith(" torch")]
    assert " uninstall " in removed and installed.endswith(f"/whl/{build} torch")
    assert commands.index(removed) < commands.index(installed) < len(commands) - 2
    assert Path(make_environment.READY).read_text() == f"{build}\n"


@pytest.mark.parametrize("build", ["cuda", "12.6", "cu126/../x", "gpu"])
def test_no_build_of_pytorch(commands: list, capsys: pytest.CaptureFixture, build: str) -> None:
    with pytest.raises(SystemExit):
        make_environment.main(["--torch", build])
    assert "is no build of PyTorch: cpu, cu126" in capsys.readouterr().err and commands == []


def test_old_python(commands: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    assert make_environment.main([]) == 1
    assert commands == []
    assert re.search(r"Python 3.10 or newer is needed, .* is 3.9; .*PYTHON=", capsys.readouterr().err)


@pytest.mark.parametrize("user, works", [(0, True), (1000, False)], ids=["root", "user"])
def test_python_without_venv(commands: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, user: int,
                             works: bool) -> None:
    package = "python%d.%d-venv" % sys.version_info[:2]
    monkeypatch.setattr(make_environment, "can_make_environments",
                        lambda: any(command.endswith(package) for command in commands))
    monkeypatch.setattr(make_environment.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert make_environment.main([]) == (0 if works else 1)
    if works:
        assert commands[0] == "apt-get update -qq" and commands[1].endswith(f" {package}")
    else:
        assert commands == []
        assert f"type: sudo apt-get install {package}\n" in capsys.readouterr().err


def test_failed_step_leaves_no_sign_of_success(commands: list, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    Path(make_environment.READY).write_text("\n")

    def fail(command, env=None):
        raise make_environment.SetupError("failed (status 1): pip")
    monkeypatch.setattr(make_environment, "run", fail)
    assert make_environment.main([]) == 1
    assert not Path(make_environment.READY).exists()
    assert capsys.readouterr().err == "setup: failed (status 1): pip\n"


def test_source_is_understood_by_old_pythons() -> None:
    ast.parse(Path(make_environment.__file__).read_text(), feature_version=(3, 8))


def test_lock_holds_an_exact_version_of_each_dependency() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9a-z.]+( ; .+)?", line) for line in lines)
    locked = {line.split("==")[0] for line in lines}
    declared = re.findall(r'^    "([a-z0-9-]+)[=<>]', (ROOT / "pyproject.toml").read_text(), re.M)
    assert len(declared) > 10 and set(declared) <= locked


# ------------------------------------------------------------------------------------------------ Makefile
def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run(["make", "-C", str(ROOT), "--no-print-directory", *arguments], env={**clean, **environment},
                          capture_output=True, text=True, timeout=60)


def would_run(*arguments: str, **environment: str) -> str:
    """The command of a target that is ready to run, its spaces made single."""
    result = make("-n", "-o", ".venv/ready", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return " ".join(result.stdout.replace("\\\n", " ").split())


def test_make_alone_lists_targets_and_variables() -> None:
    text = make().stdout
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert {"setup", "demo", "test", "weights", "lmdb", "step1", "step4", "status"} <= targets
    for target in targets:
        assert len(re.findall(rf"^  make {target} +\S.*$", text, re.M)) == 1, target
    for name in ("NET", "PROFILE", "ENGINE", "GPU", "CROP", "CELEBA", "FOTW", "VGG_FACE", "BATCH", "MAX_ITER", "FORCE",
                 "CHANNELS", "ENCODE", "PYTHON", "TORCH"):
        assert re.search(rf"^  {name} +\S", text, re.M), name


@pytest.mark.parametrize("arguments, command", [
    (["test"], ".venv/bin/python -m pytest -n 3 --dist loadfile"),
    (["test-all"], '.venv/bin/python -m pytest -m "" -n 2 --dist loadfile'),
    (["step2"], ".venv/bin/python -m tools.train --step 2"),
    (["step4", "NET=gnet", "PROFILE=demo", "ENGINE=caffe", "GPU=0", "BATCH=8", "MAX_ITER=2", "FORCE=1"],
     ".venv/bin/python -m tools.train --step 4 --net gnet --profile demo --engine caffe --gpu 0 --batch 8 --max-iter 2 "
     "--force"),
    (["step3", "FORCE=0"], ".venv/bin/python -m tools.train --step 3"),
    (["lmdb", "CROP=scheme5", "CELEBA=/data/my CelebA", "FOTW=~/FotW", "ENCODE=jpg", "PROFILE=paper"],
     ".venv/bin/python -m lmdb_builders.build --profile paper --crop scheme5 --celeba '/data/my CelebA' "
     "--fotw '/home/me/FotW' --encode jpg"),
    (["weights", "VGG_FACE=my file.tar.gz"], ".venv/bin/python -m tools.weights --file 'my file.tar.gz'"),
    (["weights", "VGG_FACE=~/port.safetensors", "CHANNELS=rgb"],
     ".venv/bin/python -m tools.weights --file '/home/me/port.safetensors' --channels rgb"),
    (["export", "NET=gnet", "PROFILE=demo"], ".venv/bin/python -m tools.export --net gnet --profile demo"),
    (["predict", "IMAGE=a b.jpg"], ".venv/bin/python -m tools.predict 'a b.jpg'"),
    (["demo", "CELEBA=../c", "FOTW=../f"], ".venv/bin/python -m tools.demo --celeba '../c' --fotw '../f'"),
])
def test_targets(arguments: list, command: str) -> None:
    assert shlex.split(would_run(*arguments, HOME="/home/me")) == shlex.split(command)


@pytest.mark.parametrize("folder", ["it's mine", "two  spaces ", 'a"b;c', "~/x", "x~/y"])
def test_folders_reach_the_tool_as_they_are(folder: str) -> None:
    command = make("-n", "-o", ".venv/ready", "lmdb", f"FOTW={folder}", HOME="/home/me").stdout.replace("\\\n", "")
    assert shlex.split(command)[-1] == folder.replace("~/x", "/home/me/x")


def test_variables_from_the_environment() -> None:
    words = shlex.split(would_run("step2", NET="snet1", PROFILE="demo"))
    assert words[-6:] == ["--step", "2", "--net", "snet1", "--profile", "demo"]


def test_photo_is_asked_for() -> None:
    result = make("-n", "-o", ".venv/ready", "predict")
    assert result.returncode == 2 and "IMAGE=photo.jpg" in result.stderr


def test_flags_exist() -> None:
    """Each flag that the Makefile passes is one of the tool's."""
    for target, module in (("step2", "tools.train"), ("lmdb", "lmdb_builders.build"), ("weights", "tools.weights"),
                           ("demo", "tools.demo"), ("evaluate", "tools.evaluate"), ("status", "tools.status"),
                           ("export", "tools.export")):
        everything = [f"{name}=1" for name in ("NET", "PROFILE", "ENGINE", "GPU", "CROP", "CELEBA", "FOTW", "VGG_FACE",
                                               "CHANNELS", "BATCH", "MAX_ITER", "FORCE", "ENCODE")]
        known = subprocess.check_output([sys.executable, "-m", module, "--help"], cwd=ROOT, text=True)
        for flag in re.findall(r" (--[a-z-]+)", would_run(target, *everything)):
            assert flag in known, f"{module} has no {flag}"
