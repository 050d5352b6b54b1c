"""Layers written in Python: caffe.Layer, the base of the user's classes, and the engine's layer that runs one."""

from __future__ import annotations

import importlib

from torchcaffe.blob import BlobVec
from torchcaffe.errors import NetError
from torchcaffe.layers import base
from torchcaffe.permission import REMEDY, python_layers_allowed


class Layer:
    """Base class for layers in Python; the prototxt names module and class in python_param.

    Write setup(bottom, top), reshape(bottom, top), forward(bottom, top) and backward(top, propagate_down, bottom);
    `bottom` and `top` are lists of Blob. `param_str` and `phase` are there from setup on, and learnable blobs are added
    in setup with self.blobs.add_blob(*shape). reshape is called once after setup and before every forward. A loss layer
    needs loss_weight in the prototxt and multiplies its gradient by top[0].diff itself.
    """

    type = "Python"
    param_str = ""
    phase = base.TRAIN

    def __init__(self, param=None):
        """`param`: LayerParameter, or None."""
        self.layer_param = param
        if "blobs" not in self.__dict__:
            self.blobs = BlobVec()


@base.register
class Python(base.Layer):
    """Runs an object of the user's class, where that is allowed. Its exceptions come out as they are."""

    type = "Python"
    bottoms = (0, None)
    tops = (0, None)
    works_on_blobs = True

    def __init__(self, param, phase, context):
        super().__init__(param, phase, context)
        cls = self.user_class(param.python_param)
        self.shown = cls.__new__(cls)
        self.shown.blobs = self.blobs
        self.shown.param_str, self.shown.phase = param.python_param.param_str, phase
        self.shown.__init__(param)
        self.blobs = self.shown.blobs

    def user_class(self, p):
        self.check(p.module and p.layer, "python_param needs module and layer")
        self.check(python_layers_allowed(), f'would import and run the module "{p.module}": {REMEDY}')
        try:
            module = importlib.import_module(p.module)
        except ModuleNotFoundError as problem:
            if problem.name != p.module.split(".")[0] and problem.name != p.module:
                raise
            raise NetError(
                f'layer "{self.name}" (Python): no module "{p.module}"; put its folder on PYTHONPATH or sys.path'
            ) from None
        cls = getattr(module, p.layer, None)
        self.check(cls is not None, f'module "{p.module}" has no class "{p.layer}"')
        self.check(
            isinstance(cls, type) and issubclass(cls, Layer), f"{p.module}.{p.layer} must derive from caffe.Layer"
        )
        for method in ("setup", "reshape", "forward", "backward"):
            self.check(callable(getattr(cls, method, None)), f"{p.module}.{p.layer} needs a method {method}")
        return cls

    def setup(self, bottom, top):
        self.shown.setup(bottom, top)
        self.blobs = self.shown.blobs

    def reshape(self, bottom, top):
        self.shown.reshape(bottom, top)

    def forward_blobs(self, bottom, top):
        self.shown.forward(bottom, top)

    def backward_blobs(self, top, propagate_down, bottom):
        self.shown.backward(top, propagate_down, bottom)
