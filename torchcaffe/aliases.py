"""torchcaffe under the name `caffe`, for code that was written for pycaffe.

`torchcaffe.install()`, or `sys.modules["caffe"] = torchcaffe`, is enough: `import caffe.io`, `from caffe import layers`
and `from caffe.proto import caffe_pb2` then give torchcaffe's own modules, each of them once. Without the finder below
Python would find these files by torchcaffe's folder and load them a second time, with other classes of the same name.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

ALIAS = "caffe"
# Paths that scripts and the documentation import -> the module's own place in this package.
ALIASES = {
    "errors": "core.errors", "export": "formats.export", "files": "formats.files", "log": "core.log",
    "parallel": "distributed.parallel", "rng": "core.rng",
}


def install(python_layers: bool | None = None) -> ModuleType:
    """Make `import caffe` give torchcaffe, submodules included; returns torchcaffe.

    Args:
        python_layers: True or False as for allow_python_layers; None leaves it as it is.
    Raises:
        ImportError: real Caffe is already imported in this process.
    """
    torchcaffe = sys.modules["torchcaffe"]  # which imports this module
    present = sys.modules.get(ALIAS)
    if present not in (None, torchcaffe):
        raise ImportError(
            f"`caffe` is already imported from {getattr(present, '__file__', 'elsewhere')}; "
            "call torchcaffe.install() before the first `import caffe`"
        )
    sys.modules[ALIAS] = torchcaffe
    if python_layers is not None:
        torchcaffe.allow_python_layers(python_layers)
    return torchcaffe


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchcaffe.X of ALIASES in its room, and caffe.X as torchcaffe.X while sys.modules["caffe"] is torchcaffe."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, rest = fullname.partition(".")
        if package == "torchcaffe":
            return importlib.machinery.ModuleSpec(fullname, self) if rest in ALIASES else None
        if package != ALIAS or sys.modules.get(ALIAS) is not sys.modules.get("torchcaffe"):
            return None
        if importlib.util.find_spec(f"torchcaffe.{rest}") is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec):
        rest = spec.name.partition(".")[2]
        module = importlib.import_module(f"torchcaffe.{ALIASES.get(rest, rest)}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module):
        """The module has run under its own name; give it back the spec that the import system has just replaced."""
        module.__spec__ = module.__spec__.loader_state


def watch() -> None:
    """Put the finder in place, once; torchcaffe does it when it is imported."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
