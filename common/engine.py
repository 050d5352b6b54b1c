"""Which engine speaks pycaffe: the only place that knows.

    from common import engine
    caffe = engine.resolve("auto")             # a module with pycaffe's names, in this process
    interpreter = engine.interpreter("caffe")  # a Python that imports it, for work in a process of its own

auto   real Caffe where this Python imports it, else torchcaffe; one that is there and broken is named on stderr
caffe  real Caffe: of the Python that CAFFE_PYTHON names; else where this Python imports it; else Debian's in .caffe/ (`make
       caffe`), which has its own Python 3.9
torch  torchcaffe, pycaffe on PyTorch
opencv for answering photos on the CPU, which "auto" then prefers to torchcaffe: OpenCV's DNN module (common/opencv.py)
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field

import recipe

NAMES = ("auto", "caffe", "torch")
PREDICTING = (*NAMES, "opencv")  # of what answers photos
DEBIAN = ".caffe"  # Debian 11's packages unpacked under the project's folder
OWN = "CAFFE_PYTHON"  # variable: path of a Python, 2.7 or later, that imports a Caffe of the user's own


class EngineError(RuntimeError):
    """No engine of that name can run here; the message names the remedy."""


@dataclass(frozen=True)
class Interpreter:
    """A Python whose `module` speaks pycaffe: `command` + arguments starts it, with `environment` added to ours."""

    module: str
    title: str
    command: tuple
    environment: dict = field(default_factory=dict)

    def environ(self) -> dict:
        """The whole environment of a process of this interpreter."""
        return {**os.environ, **self.environment}


def resolve(name: str = "auto", predicting: bool = False):
    """Module that speaks pycaffe (Net, get_solver, set_mode_gpu ...) in the running Python.

    predicting: it will answer photos on the CPU, for which common.opencv will do. Raises EngineError for an unknown name, and
    for "caffe" where this Python cannot import it.
    """
    if predicting and (name == "opencv" or name == "auto" and module_name(name) == "torchcaffe"):
        return importlib.import_module("common.opencv")
    module = module_name(name)
    if name == "caffe" and os.environ.get(OWN):
        raise EngineError(f"the Caffe of {OWN} has a Python of its own and cannot be imported into Python "
                          f"{sys.version.split()[0]}: use ENGINE=torch here (training does run with ENGINE=caffe)")
    if module == "caffe" and not _importable("caffe"):
        if os.path.isdir(recipe.absolute(DEBIAN)):
            raise EngineError(f"real Caffe is in {DEBIAN}/ with a Python of its own and cannot be imported into Python "
                              f"{sys.version.split()[0]}: use ENGINE=torch here (training does run with ENGINE=caffe)")
        raise EngineError(_no_caffe())
    return importlib.import_module(module)


def interpreter(name: str = "auto") -> Interpreter:
    """The Python in which engine `name` runs as a child process. Raises EngineError where there is none."""
    module = module_name(name)
    if name == "caffe" and os.environ.get(OWN):
        python = os.path.expanduser(os.environ[OWN])
        return _own(os.path.abspath(python) if os.sep in python else python)
    if module == "caffe" and not _importable("caffe"):
        return _debian(recipe.absolute(DEBIAN))
    title = "torchcaffe" if module == "torchcaffe" else "Caffe"
    path = _joined(recipe.ROOT, os.environ.get("PYTHONPATH"))
    return Interpreter(module, title, (sys.executable,), {"PYTHONPATH": path})


def module_name(name: str) -> str:
    """"caffe" or "torchcaffe": what engine `name` is here. Raises EngineError for another name."""
    if name == "opencv":
        raise EngineError("engine opencv only answers photos (tools/predict.py, tools/web.py), on the CPU: use ENGINE=torch, or "
                          "leave out --gpu (GPU=) there")
    if name not in NAMES:
        raise EngineError(f"unknown engine {name!r}: one of {', '.join(NAMES)}")
    if name == "auto":
        return "caffe" if _importable("caffe") else "torchcaffe"
    return {"caffe": "caffe", "torch": "torchcaffe"}[name]


@functools.lru_cache(maxsize=None)
def _importable(module: str) -> bool:
    """True where this Python imports `module` and it has a Net. One that is there but fails is named on stderr.

    It is tried in a process of its own: a broken binary module may end the process that imports it.
    """
    try:
        if module in sys.modules:  # a Python layer makes torchcaffe answer to the name caffe, which no child would have
            return sys.modules[module] not in (None, sys.modules.get("torchcaffe"))
        if importlib.util.find_spec(module) is None:  # the usual case, which needs no process
            return False
    except (ImportError, ValueError):
        return False
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    reason = _failure(sys.executable, f"from {module} import Net", {**os.environ, "PYTHONPATH": path})
    if not reason:
        return True
    print(f"ignored a Python module {module} that cannot be imported ({reason})", file=sys.stderr)
    return False


@functools.lru_cache(maxsize=None)
def _own(python: str) -> Interpreter:
    """The Python that CAFFE_PYTHON names, once it has imported its Caffe."""
    environment = {"PYTHONPATH": _joined(recipe.ROOT, os.environ.get("PYTHONPATH")), "PYTHONDONTWRITEBYTECODE": "1"}
    found = Interpreter("caffe", f"Caffe of {python}", (python,), environment)
    try:
        reason = _failure(python, "import numpy; from caffe import Net, get_solver", found.environ())
    except OSError as error:
        raise EngineError(f"{OWN}={python}: {error.strerror}; give the path of a Python whose `import caffe` works") from error
    if reason:
        raise EngineError(f"{OWN}={python}: import caffe fails there ({reason}); it needs Caffe's python folder in "
                          "PYTHONPATH, and numpy")
    return found


def _failure(python: str, code: str, environment: dict) -> str:
    """Why `code`, which imports, fails in a process of `python`; "" where it does not. Raises OSError for no Python."""
    tried = subprocess.run([python, "-c", code], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           errors="replace")
    said = tried.stderr.strip().splitlines()
    return "" if tried.returncode == 0 else said[-1] if said else f"its import ends the process with status {tried.returncode}"


def _debian(folder: str) -> Interpreter:
    """Debian's Python 3.9 and Caffe, by the launcher that tools/install_caffe.py wrote."""
    launcher = os.path.join(folder, "python")
    if not os.path.exists(launcher):
        raise EngineError(_no_caffe())
    environment = {"PYTHONPATH": recipe.ROOT, "PYTHONDONTWRITEBYTECODE": "1"}
    return Interpreter("caffe", f"Caffe in {DEBIAN}", (launcher,), environment)


def _joined(*paths) -> str:
    return os.pathsep.join(path for path in paths if path)


def _no_caffe() -> str:
    return ("real Caffe is not here: make caffe (puts Debian 11's Caffe 1.0 into .caffe/), CAFFE_PYTHON=path of a Python that "
            "imports yours, or ENGINE=torch")


def debian_tool(name: str) -> list:
    """Command that runs one of Caffe's programs of `make caffe`, such as "convert_imageset"; arguments follow."""
    debian = recipe.absolute(DEBIAN)
    libraries, system = (os.path.join(debian, *parts, "lib", "x86_64-linux-gnu") for parts in (["usr"], []))
    path = [os.path.join(libraries, part) for part in ("openblas-pthread", "blas", "lapack", "hdf5/serial", ".")]
    path += [os.path.join(debian, "usr", "lib"), system]
    loader = [os.path.join(system, "ld-linux-x86-64.so.2"), "--library-path", ":".join(path)]
    return [*loader, os.path.join(debian, "usr", "bin", name)]
