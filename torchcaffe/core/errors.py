"""Exceptions: where Caffe aborts the process (a failed CHECK), these carry its information and the remedy."""


class CaffeError(RuntimeError):
    """Base of all errors of this engine. A RuntimeError, because that is what pycaffe raises where it raises at all.

    Text quoted from a file that a UTF-8 terminal cannot print (invalid bytes, control characters) is escaped.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(printable(value) if isinstance(value, str) else value for value in arguments))


def printable(text: str) -> str:
    """`text` with lone surrogates and control characters other than line feed and tab as backslash escapes."""
    return "".join(character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text)


class PrototxtError(CaffeError):
    """A prototxt, solver or binary protobuf that cannot be read; names file, line and the field's path."""


class NetError(CaffeError):
    """A net that cannot be built: unknown layer type, unknown bottom, duplicate top, bad layer parameter."""


class ShapeError(NetError):
    """Blobs whose shapes do not fit a layer; names the layer and both shapes."""


class WeightsError(CaffeError):
    """A weights or solver-state file that does not fit the net; names the layer, both shapes and the remedy."""


class DataError(CaffeError):
    """A data source that cannot be read: missing or broken LMDB, HDF5, image list, mean file."""


class SolverError(CaffeError):
    """A solver that cannot be set up or run as written."""


class ExportError(CaffeError):
    """A net that cannot be given to another program; names all layers that stand in the way, and the remedy."""
