"""The vectors of pycaffe (LayerVec, StringVec ...): lists under its names; BlobVec and IntVec are blob.py's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchcaffe.core.blob import Blob


class RawBlobVec(list["Blob"]):
    """Bottoms or tops of a layer."""


class LayerVec(list[Any]):
    """Layers of a net, in order."""


class NetVec(list[Any]):
    """Test nets of a solver, in order."""


class StringVec(list[str]):
    """Names."""


class DtypeVec(list[float]):
    """Floating-point numbers, such as loss weights."""


class BoolVec(list[bool]):
    """Flags, such as propagate_down."""


class PublicNames:
    """Mixin: dir() and tab completion show what scripts use: no private name, none of `_internal`."""

    _internal: frozenset = frozenset()

    def __dir__(self) -> list[str]:
        return sorted(name for name in super().__dir__() if not name.startswith("_") and name not in self._internal)


class SetOnce:
    """Mixin: attributes named in `_set_once` cannot be replaced by the user, as pycaffe's cannot."""

    _set_once: frozenset = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._set_once and name in self.__dict__:
            raise AttributeError(f"{name} of a {type(self).__name__} cannot be replaced; write into what it holds")
        super().__setattr__(name, value)
