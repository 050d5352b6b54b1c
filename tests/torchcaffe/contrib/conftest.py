"""The layers of torchcaffe.contrib, for these tests only: others register layers of the same names."""

import importlib

import pytest

from torchcaffe.core import plugins
from torchcaffe.layers import base
from torchcaffe.proto import extensions


@pytest.fixture(autouse=True)
def contrib(monkeypatch):
    """torchcaffe.contrib, registered until the end of the test."""
    others = {name: cls for name, cls in base._REGISTRY.items() if name not in plugins.CONTRIBUTED}
    monkeypatch.setattr(base, "_REGISTRY", others)
    monkeypatch.setattr(extensions, "OWNERS", dict(extensions.OWNERS))
    monkeypatch.setattr(base, "STAND_INS", dict(base.STAND_INS))
    module = importlib.import_module("torchcaffe.contrib")
    for name in module.__all__:  # as the import does it the first time
        base.register_layer(getattr(module, name))
    return module
