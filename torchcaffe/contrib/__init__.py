"""Layers of well-known published nets that Caffe 1.0 does not have; importing this package registers them.

    import torchcaffe.contrib

or `--contrib` of the command `torchcaffe`. docs/contrib.md lists the types, their papers and their settings.

A new layer needs its class in a module here, its name in `__all__` below and in `plugins.CONTRIBUTED` (so that an error
about an unknown type names this package where it was not imported), and a row in docs/contrib.md.
"""

from torchcaffe.contrib.normalize import Normalize

__all__ = [
    "Normalize",
]
