"""Dictionaries by the names of a net's blobs or layers: a name that is not there is an error that suggests the near ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from torchcaffe.core.blob import Blob, BlobVec
from torchcaffe.core.names import counted, listed, one_line, suggestion

Value = TypeVar("Value")


class UnknownName(KeyError):
    """KeyError of a net's dictionary; `args` is the name alone, as in every KeyError."""

    def __init__(self, name, what: str = 'name "{}"', known: tuple = ()):
        super().__init__(name)
        self.what, self.known = what, known

    def __str__(self):  # not before somebody reads it: scripts catch KeyErrors by the thousand
        name = one_line(str(self.args[0]))
        return f"the net has no {self.what.format(name)}; {suggestion(name, map(one_line, map(str, self.known)))}"


class Named(OrderedDict[str, Value]):
    """Layer name -> anything."""

    what = 'layer "{}"'

    def __missing__(self, name: str) -> Value:
        raise UnknownName(name, self.what, tuple(self))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)


class NamedByBlob(Named[Value]):
    """Blob name -> anything."""

    what = 'blob "{}"'


class Blobs(NamedByBlob[Blob]):
    """Blob name -> Blob."""

    def __repr__(self):
        return f"<{counted(len(self), 'blob')}: {one_line(listed(self))}>"


class Params(Named[BlobVec]):
    """Layer name -> its learnable blobs."""

    what = 'layer "{}" with parameters'

    def __repr__(self):
        return f"<{counted(len(self), 'layer')} with parameters: {one_line(listed(self))}>"
