"""Layers in Python that the cases name; the same file runs under both engines."""

try:
    import caffe  # noqa: E402
except ImportError:
    import torchcaffe as caffe

import numpy as np  # noqa: E402


class Affine(caffe.Layer):
    """y = factor * x + phase; the factor is param_str."""

    def setup(self, bottom, top):
        self.factor = float(self.param_str)
        assert len(bottom) == len(top) == 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data + self.phase

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * top[0].diff


class Learned(caffe.Layer):
    """y = x * w with one learned factor a column."""

    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs.add_blob(1)
        self.name = self.param = self.context = "a layer's own attributes do not disturb the engine"

    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].num, bottom[0].channels)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        self.blobs[1].diff[...] += top[0].diff.sum()
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data


class Distance(caffe.Layer):
    """A loss on two bottoms, as in Caffe's own example."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("two bottoms needed")

    def reshape(self, bottom, top):
        self.difference = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for index, sign in ((0, 1), (1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * self.difference / bottom[index].num * top[0].diff[0]


class Counter(caffe.Layer):
    """A source of data whose size grows."""

    def setup(self, bottom, top):
        self.count = int(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(self.count, 2)
        top[1].reshape(self.count)

    def forward(self, bottom, top):
        top[0].data[...] = np.arange(2 * self.count).reshape(self.count, 2)
        top[1].data[...] = self.count
        self.count += 1

    def backward(self, top, propagate_down, bottom):
        pass
