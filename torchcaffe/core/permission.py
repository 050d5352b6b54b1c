"""Whether Python layers are allowed: off by default, because a prototxt can name any module to import."""

from __future__ import annotations

import os

VARIABLE = "TORCHCAFFE_PYTHON_LAYERS"  # of the environment: 1 allows
REMEDY = (
    "where you trust this net and that module, call torchcaffe.allow_python_layers() first (or "
    f"torchcaffe.install(python_layers=True)), give --python_layers to python -m torchcaffe, or set {VARIABLE}=1"
)
_said = None  # by the program; None: the environment decides


def allow_python_layers(allow: bool = True) -> None:
    """Let nets that are built from now on in this process import the modules that their Python layers name.

    Off unless this is called or the environment has TORCHCAFFE_PYTHON_LAYERS=1. `allow=False` switches it off whatever
    the environment says.
    """
    global _said
    _said = bool(allow)


def python_layers_allowed() -> bool:
    return os.environ.get(VARIABLE, "") not in ("", "0") if _said is None else _said
