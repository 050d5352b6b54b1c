"""`import caffe` gives torchcaffe, submodules included, and each module once."""

import subprocess
import sys

import pytest

BOTH = """
import caffe, caffe.io, caffe.net_spec, caffe.draw, caffe.coord_map
from caffe import layers as L, params as P, NetSpec, to_proto
from caffe.proto import caffe_pb2
from caffe.pycaffe import Net, SGDSolver
import caffe.proto.caffe_pb2 as again
import torchcaffe.io, torchcaffe.proto.caffe_pb2, torchcaffe.core.net
assert caffe is torchcaffe and caffe.io is torchcaffe.io is sys.modules["caffe.io"]
assert caffe.io.__name__ == caffe.io.__spec__.name == "torchcaffe.io"
assert caffe_pb2 is again is torchcaffe.proto.caffe_pb2 is caffe.proto.caffe_pb2
assert Net is caffe.Net is torchcaffe.core.net.Net and SGDSolver is caffe.SGDSolver
assert caffe_pb2.NetParameter is torchcaffe.proto.caffe_pb2.NetParameter
assert to_proto(L.Pooling(L.Input(), pool=P.Pooling.AVE)).layer[1].pooling_param.pool == 1
assert caffe.layers.ReLU and caffe.Layer and callable(caffe.log)
try:
    import caffe.nothing
except ModuleNotFoundError as error:
    assert "caffe.nothing" in str(error)
else:
    raise AssertionError("caffe.nothing was found")
"""


@pytest.mark.parametrize(
    "start",
    [
        "import sys, torchcaffe; torchcaffe.install(); torchcaffe.install()",
        "import sys, torchcaffe; sys.modules['caffe'] = torchcaffe",
    ],
)
def test_caffe_is_torchcaffe(start, root):
    done = subprocess.run([sys.executable, "-c", start + BOTH], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", [
    "import caffe; caffe.proto.caffe_pb2.BlobProto()",
    "import caffe.proto as p; p.caffe_pb2.BlobProto()",
    "import caffe; caffe.io.caffe_pb2.Datum(); caffe.pycaffe.Net; caffe._caffe; caffe.classifier; caffe.detector; caffe.net_spec",
])  # fmt: skip
def test_submodules_are_there_after_import_caffe(code, root):
    command = [sys.executable, "-c", "import torchcaffe; torchcaffe.install(); " + code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_caffe_is_not_replaced(monkeypatch):
    import torchcaffe

    monkeypatch.setitem(sys.modules, "caffe", sys)
    with pytest.raises(ImportError, match="already imported"):
        torchcaffe.install()
    with pytest.raises(ImportError):  # and the finder stays out of it
        import caffe.io  # noqa: F401
    assert sys.modules["caffe"] is sys


def test_importing_torchcaffe_is_cheap(root):
    code = (
        "import sys, torchcaffe; dir(torchcaffe); assert not {'torch', 'google.protobuf', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
