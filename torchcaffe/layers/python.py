"""Layers written in Python: caffe.Layer, the base of the user's classes, and the engine's layer that runs one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from torchcaffe.aliases import ALIAS, install
from torchcaffe.core import names, plugins
from torchcaffe.core.blob import BlobVec
from torchcaffe.core.errors import NetError
from torchcaffe.layers import base
from torchcaffe.core.permission import REMEDY, python_layers_allowed


class Layer:
    """Base class for layers in Python; the prototxt names module and class in python_param.

    Write setup(bottom, top), reshape(bottom, top), forward(bottom, top) and, where something below or in the layer learns,
    backward(top, propagate_down, bottom);
    `bottom` and `top` are lists of Blob. `param_str` and `phase` are there from setup on, and learnable blobs are added
    in setup with self.blobs.add_blob(*shape). reshape is called once after setup and before every forward. A loss layer
    needs loss_weight in the prototxt and multiplies its gradient by top[0].diff itself.
    """

    type = "Python"
    param_str = ""
    phase = base.TRAIN

    blobs: BlobVec
    layer_param: Any

    def __init__(self, param: Any = None) -> None:
        """`param`: LayerParameter, or None."""
        self.layer_param = param
        if "blobs" not in self.__dict__:
            self.blobs = BlobVec()

    def __repr__(self) -> str:
        numbers = ", ".join(str(tuple(blob.shape)) for blob in getattr(self, "blobs", ())) or "no parameters"
        name = getattr(getattr(self, "layer_param", None), "name", "")
        return f'<{type(self).__name__}, a Python layer, "{names.one_line(name)}": {numbers}>'


def installed(module: str) -> bool:
    """Whether the package that a module is in can be imported; nothing is imported."""
    package = module.split(".")[0]
    return package in sys.modules or importlib.util.find_spec(package) is not None


@base.register
class Python(base.Layer):
    """Runs an object of the user's class, where that is allowed. Its exceptions are not caught."""

    type = "Python"
    bottoms = (0, None)
    tops = (0, None)
    works_on_blobs = True
    shown = None  # the object of the user's class

    def __init__(self, param, phase, context):
        super().__init__(param, phase, context)
        cls = self.user_class(param.python_param)
        self.shown = cls.__new__(cls)
        self.shown.blobs = self.blobs
        self.shown.param_str, self.shown.phase = param.python_param.param_str, phase
        self.shown.__init__(param)
        self.blobs = self.shown.blobs

    @classmethod
    def chosen(cls, param):
        """A registered layer that does the same, where the user does not have the module."""
        p = param.python_param
        stand_in = base.STAND_INS.get((p.module, p.layer))
        return cls if stand_in is None or installed(p.module) else stand_in

    def user_class(self, p):
        self.check(p.module and p.layer, "python_param needs module and layer")
        contributed = (p.module, p.layer) in plugins.PYTHON_LAYERS and not installed(p.module)
        where = plugins.where_contributed(f"A layer that does the work of {p.layer}")
        self.check(not contributed, f'no module "{p.module}"\n{where}')
        self.check(python_layers_allowed(), f'would import and run the module "{p.module}": {REMEDY}')
        module = self.user_module(p.module)
        cls = getattr(module, p.layer, None)
        self.check(cls is not None, f'module "{p.module}" has no class "{p.layer}"')
        self.check(
            isinstance(cls, type) and issubclass(cls, Layer), f"{p.module}.{p.layer} must derive from caffe.Layer"
        )
        for method in ("setup", "reshape", "forward"):
            self.check(callable(getattr(cls, method, None)), f"{p.module}.{p.layer} needs a method {method}")
        return cls

    def user_module(self, name):
        """The user's module, whose `import caffe` gives torchcaffe unless real Caffe is in this process already."""
        if ALIAS not in sys.modules:
            install()
        try:
            return importlib.import_module(name)
        except Exception as problem:
            if isinstance(problem, ModuleNotFoundError) and problem.name in (name, name.split(".")[0]):
                message = f'no module "{name}"; put its folder on PYTHONPATH or sys.path'
            else:
                message = f'importing the module "{name}" failed: {type(problem).__name__}: {problem}'
            raise NetError(f'layer "{self.name}" (Python): {message}') from problem

    def setup(self, bottom, top):
        self.shown.setup(bottom, top)
        self.blobs = self.shown.blobs

    def reshape(self, bottom, top):
        self.shown.reshape(bottom, top)

    def forward_blobs(self, bottom, top):
        self.shown.forward(bottom, top)

    def backward_blobs(self, top, propagate_down, bottom):
        name = type(self.shown).__name__
        self.check(hasattr(self.shown, "backward"), f"{name} needs a method backward for the layers below to learn")
        self.shown.backward(top, propagate_down, bottom)
