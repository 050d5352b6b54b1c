"""Caffe's protobuf messages: `from torchcaffe.proto import caffe_pb2`. The schema is caffe.proto beside this file."""
