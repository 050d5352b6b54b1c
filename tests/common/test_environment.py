"""common/environment.py: a tool started with a bare Python finds the project's environment or says how to make it."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common import environment

TOOL = '''"""A tool that reports which interpreter runs it, with which arguments."""
if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()
    print(os.environ.get("RUN_BY", "outside"), sys.argv[1:])
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's start: common/environment.py and one tool, in a folder with a space in its name."""
    folder = tmp_path / "a project"
    for package in ("tools", "common"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    shutil.copy(environment.__file__, folder / "common" / "environment.py")
    (folder / "tools" / "report.py").write_text(TOOL)
    return folder


def add_environment(project: Path, command: str) -> None:
    """A `.venv/bin/python` that marks itself in RUN_BY and then runs `command` with what it was given."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexport RUN_BY=environment\nexec {command} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)


def start(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the tool as a bare shell would: -S hides every installed package."""
    command = [sys.executable, "-S", "-E", str(project / "tools" / "report.py"), *arguments]
    surroundings = {name: value for name, value in os.environ.items() if name != environment.GUARD}
    return subprocess.run(command, cwd="/", env=surroundings, capture_output=True, text=True, timeout=60)


def test_says_make_setup_without_environment(project: Path) -> None:
    result = start(project)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    for word in ("report.py", "numpy", "torch", f"make -C '{project}' setup"):
        assert word in result.stderr


def test_runs_again_under_the_environment_with_the_same_arguments(project: Path) -> None:
    # "-S" is handed on too: this stand-in drops it, as a real environment has its packages in spite of what came first.
    add_environment(project, f'sh -c \'shift 2; exec {sys.executable} "$@"\' sh')
    result = start(project, "one", "two words", "--three=3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "environment ['one', 'two words', '--three=3']"


def test_never_runs_in_a_circle(project: Path) -> None:
    add_environment(project, sys.executable)  # gets -S again, so it lacks the packages as well
    result = start(project)
    assert result.returncode == 2
    assert "setup" in result.stderr


def test_broken_environment_is_named(project: Path) -> None:
    add_environment(project, "false")
    (project / ".venv" / "bin" / "python").write_text("#!/no/such/interpreter\n")
    result = start(project)
    assert result.returncode == 2
    assert "does not start" in result.stderr and "setup" in result.stderr


def test_complete_interpreter_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("must not run again"))
    assert environment.unsuitable() == ""
    environment.ensure()


def test_old_python_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setattr(environment, "ROOT", "/nowhere")
    with pytest.raises(SystemExit) as stop:
        environment.ensure()
    assert stop.value.code == 2
    assert "Python 3.10 or newer is needed, this is 3.9" in capsys.readouterr().err


def test_source_is_understood_by_old_pythons() -> None:
    ast.parse(Path(environment.__file__).read_text(), feature_version=(3, 8))


def test_real_caffe_stands_in_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_installed", lambda name: name != "torch")
    assert environment.unsuitable() == ""
    monkeypatch.setattr(environment, "_installed", lambda name: name not in ("torch", "caffe"))
    assert environment.unsuitable().endswith("lacks torch")
