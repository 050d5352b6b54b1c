"""The vectors of pycaffe (LayerVec, StringVec ...): lists under its names; BlobVec and IntVec are blob.py's."""

from __future__ import annotations


class RawBlobVec(list):
    """Bottoms or tops of a layer."""


class LayerVec(list):
    """Layers of a net, in order."""


class NetVec(list):
    """Test nets of a solver, in order."""


class StringVec(list):
    """Names."""


class DtypeVec(list):
    """Floating-point numbers, such as loss weights."""


class BoolVec(list):
    """Flags, such as propagate_down."""


class PublicNames:
    """Mixin: dir() and tab completion show what scripts use: no private name, none of `_internal`."""

    _internal = frozenset()

    def __dir__(self):
        return sorted(name for name in super().__dir__() if not name.startswith("_") and name not in self._internal)


class SetOnce:
    """Mixin: attributes named in `_set_once` cannot be replaced by the user, as pycaffe's cannot."""

    _set_once = frozenset()

    def __setattr__(self, name, value):
        if name in self._set_once and name in self.__dict__:
            raise AttributeError(f"{name} of a {type(self).__name__} cannot be replaced; write into what it holds")
        super().__setattr__(name, value)
