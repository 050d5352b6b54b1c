"""Dictionaries by the names of a net's blobs or layers: a name that is not there is an error that suggests the near ones."""

from __future__ import annotations

from collections import OrderedDict

from torchcaffe.core.names import counted, listed, one_line, suggestion


class UnknownName(KeyError):
    """KeyError of a net's dictionary; `args` is the name alone, as in every KeyError."""

    def __init__(self, name, what: str = 'name "{}"', known: tuple = ()):
        super().__init__(name)
        self.what, self.known = what, known

    def __str__(self):  # not before somebody reads it: scripts catch KeyErrors by the thousand
        name = one_line(str(self.args[0]))
        return f"the net has no {self.what.format(name)}; {suggestion(name, map(one_line, map(str, self.known)))}"


class Named(OrderedDict):
    """Layer name -> anything."""

    what = 'layer "{}"'

    def __missing__(self, name):
        raise UnknownName(name, self.what, tuple(self))

    def _ipython_key_completions_(self):
        return list(self)


class NamedByBlob(Named):
    """Blob name -> anything."""

    what = 'blob "{}"'


class Blobs(NamedByBlob):
    """Blob name -> Blob."""

    def __repr__(self):
        return f"<{counted(len(self), 'blob')}: {one_line(listed(self))}>"


class Params(Named):
    """Layer name -> list of its learnable blobs."""

    what = 'layer "{}" with parameters'

    def __repr__(self):
        return f"<{counted(len(self), 'layer')} with parameters: {one_line(listed(self))}>"
