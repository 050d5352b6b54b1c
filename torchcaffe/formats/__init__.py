"""Caffe's file formats."""
