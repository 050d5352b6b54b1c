"""Make the project's environment: .venv with the locked packages, the project itself, and the detector's weights.

    make setup                                # or: python3 tools/make_environment.py
    make setup TORCH=cpu                      # PyTorch's CPU build, a tenth of the download
    make setup TORCH=cu126                    # its build for CUDA 12.6, for older drivers and GPUs

Standard library only, and no syntax newer than Python 3.8, so that an old Python gets a sentence.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(ENVIRONMENT, "bin", "python")
READY = os.path.join(ENVIRONMENT, "ready")  # the Makefile's sign of a finished set-up
OLDEST_PYTHON = (3, 10)
TORCH_BUILDS = "https://download.pytorch.org/whl/"  # PyTorch's own, an index for each build: see its installation page


class SetupError(Exception):
    """The environment cannot be made; the message says what to type."""


def torch_build(text):
    """A build of PyTorch as its indexes are called, as an argument's type."""
    if not re.match(r"(cpu|xpu|cu\d+|rocm\d+(\.\d+)*)$", text):
        raise argparse.ArgumentTypeError("%r is no build of PyTorch: cpu, cu126, cu128, cu130 or another of %s"
                                         % (text, "https://pytorch.org/get-started"))
    return text


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=torch_build, metavar="BUILD",
                        help="build of PyTorch: cpu, cu126, cu128, cu130 ... (default: what pip finds)")
    return parser


def check_python():
    """Raise SetupError for a Python that is too old; install the part of it that makes environments where we may."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError("Python %d.%d or newer is needed, %s is %d.%d; give another one: make setup PYTHON=python3.12"
                         % (OLDEST_PYTHON + (sys.executable,) + tuple(sys.version_info[:2])))
    if can_make_environments():
        return
    package = "python%d.%d-venv" % tuple(sys.version_info[:2])
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        tool = "sudo apt-get" if shutil.which("apt-get") else "apt-get"
        raise SetupError("%s cannot make environments; type: %s install %s" % (sys.executable, tool, package))
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    run(["apt-get", "update", "-qq"], env=quiet)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], env=quiet)
    importlib.invalidate_caches()
    if not can_make_environments():
        raise SetupError("%s still cannot make environments although %s is installed" % (sys.executable, package))


def can_make_environments():
    """Whether venv and ensurepip are there; Debian and Ubuntu split them off."""
    return all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip"))


def make_environment():
    """A fresh .venv, unless there is one with this version of Python."""
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        found = subprocess.check_output([PYTHON, "-c", version], stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        found = ""
    if found.strip() != "%d.%d" % tuple(sys.version_info[:2]):
        run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT])


def install(torch=None):
    """Install the locked packages and the project itself, editable, into .venv."""
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--constraint", "requirements.lock"]
    # The project is built with the environment's own setuptools: no second one is fetched for it.
    run(pip + ["--quiet", "setuptools"])
    if torch:
        # Another build of the same version counts as newer or older by its name: without the old one pip takes the new one.
        run([PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "--disable-pip-version-check", "torch"])
        run(pip + ["--extra-index-url", TORCH_BUILDS + torch, "torch"])
    run(pip + ["--no-build-isolation", "--editable", ".[test]"])


def run(command, env=None):
    """Run a command in the project's folder; raise SetupError when it fails."""
    print("+ " + " ".join(command), flush=True)
    try:
        status = subprocess.call(command, cwd=ROOT, env=env)
    except OSError as error:
        raise SetupError("%s: %s" % (command[0], error.strerror)) from None
    if status:
        raise SetupError("failed (status %d): %s" % (status, " ".join(command)))


def main(argv=None):
    """Return 0 when the environment is ready, 1 when it could not be made."""
    options = get_parser().parse_args(argv)
    try:
        check_python()
        if os.path.exists(READY):
            os.remove(READY)
        make_environment()
        install(options.torch)
        run([PYTHON, "-m", "detector.convert"])
    except SetupError as error:
        sys.stderr.write("setup: %s\n" % error)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nsetup: stopped; type make setup to resume\n")
        return 130
    with open(READY, "w") as stream:
        stream.write((options.torch or "") + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
