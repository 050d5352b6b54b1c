"""Asking pycaffe a question and keeping its answer as JSON; the part of pycaffe_probe.py that all questions use.

The engine is chosen here: `--torchcaffe ROOT` on the command line makes `caffe` torchcaffe, else it is real Caffe.
"""

import os
import re
import sys

os.environ.setdefault("GLOG_minloglevel", "2")
if "--torchcaffe" in sys.argv:
    position = sys.argv.index("--torchcaffe")
    sys.path.insert(0, sys.argv[position + 1])
    del sys.argv[position : position + 2]
    import torchcaffe

    torchcaffe.install()

import caffe  # noqa: E402
import numpy as np  # noqa: E402

ANSWERS = {}


def plain(value):
    """Anything as JSON; arrays as shape and rounded numbers."""
    if isinstance(value, np.ndarray):
        return ["array", str(value.dtype), list(value.shape), [float("%.4g" % v) for v in value.reshape(-1).tolist()]]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return float("%.4g" % value)
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return [plain(item) for item in value]
    return type(value).__name__


def ask(name, question):
    """Record the answer, or the kind of exception and, for the documented ones, its first words."""
    try:
        ANSWERS[name] = plain(question())
    except Exception as error:
        kinds = [
            kind
            for kind in (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError)
            if isinstance(error, kind)
        ]
        ANSWERS[name] = ["raises", kinds[0].__name__ if kinds else "Exception"]


def run(statement, **names):
    """Question made of statements, for what is no expression."""

    def question():
        scope = dict(caffe=caffe, np=np, numbers=numbers, **names)
        exec(statement, scope)
        return scope.get("answer")

    return question


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def numbers(*shape):
    """Fixed values in [-1, 1)."""
    count = int(np.prod(shape))
    return ((np.arange(count, dtype=np.float32) * 37 % 101) / 50.5 - 1).reshape(shape)


def fill(net):
    for index, blobs in enumerate(net.params.values()):
        for blob in blobs:
            blob.data[...] = numbers(*blob.data.shape) * 0.3 + 0.01 * index
    return net


def members(thing, names):
    return [name for name in names.split() if hasattr(thing, name)]


def text(spec):
    """The prototxt; protobuf's versions differ in how they print 1.0."""
    return re.sub(r"(\d)\.0\b", r"\1", str(spec.to_proto()))
