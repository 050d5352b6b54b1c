"""Caffe's protobuf messages: `from torchcaffe.proto import caffe_pb2`. The schema is caffe.proto beside this file."""


def __getattr__(name):
    if name == "caffe_pb2":  # as after pycaffe's own `import caffe`, and only when it is asked for
        import sys

        import torchcaffe.proto.caffe_pb2  # noqa: F401, sets the attribute too

        return sys.modules["torchcaffe.proto.caffe_pb2"]
    raise AttributeError(f"module 'torchcaffe.proto' has no attribute {name!r}")
