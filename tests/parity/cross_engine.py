"""Train, save and go on in one engine with the other's files: `python cross_engine.py write|read FOLDER [OTHER]`.

Runs under real Caffe's Python, and by test_files_parity.py under torchcaffe. `write` makes in FOLDER, for each kind of
solver and file, snapshots after N iterations and the weights after 2 N; `read` goes on from OTHER's snapshots.
"""

import os
import sys

import numpy as np  # noqa: E402

N = 4  # iterations; 4 of 4 images are the LMDB's 8 records twice, so that a resumed run sees the same images
KINDS = [
    ("SGD", "BINARYPROTO", "momentum: 0.9 lr_policy: 'multistep' gamma: 0.5 stepvalue: 2 stepvalue: 6"),
    ("SGD", "HDF5", "momentum: 0.9 lr_policy: 'inv' gamma: 0.1 power: 0.75 iter_size: 2"),
    ("Adam", "BINARYPROTO", "momentum: 0.9 momentum2: 0.99 lr_policy: 'fixed'"),
    ("AdaDelta", "HDF5", "momentum: 0.95 delta: 1e-6 lr_policy: 'fixed'"),
]
# No bias before BatchNorm: its gradient is rounding error alone, which Adam would make large.
NET = """name: "cross"
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "DATABASE" batch_size: 4 backend: LMDB }
  transform_param { mean_file: "MEAN" scale: 0.02 } include { phase: TRAIN } }
layer { name: "input" type: "Input" top: "data" top: "label" include { phase: TEST }
  input_param { shape { dim: 4 dim: 3 dim: 12 dim: 12 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 0.5 }
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "steps" type: "Reshape" bottom: "data" top: "steps" reshape_param { shape { dim: 12 dim: 4 dim: 36 } } }
layer { name: "start" type: "DummyData" top: "start" top: "later" dummy_data_param { data_filler { value: 0 }
  data_filler { value: 1 } shape { dim: 1 dim: 4 } shape { dim: 11 dim: 4 } } }
layer { name: "labels" type: "Reshape" bottom: "label" top: "labels" reshape_param { shape { dim: 4 dim: 1 } } }
layer { name: "cont" type: "Concat" bottom: "start" bottom: "later" top: "cont" concat_param { axis: 0 } }
layer { name: "lstm1" type: "LSTM" bottom: "steps" bottom: "cont" top: "lstm1" param { lr_mult: 2 } param { lr_mult: 1 }
  recurrent_param { num_output: 5 } }
layer { name: "lstm2" type: "LSTM" bottom: "lstm1" bottom: "cont" bottom: "labels" top: "lstm2" recurrent_param { num_output: 4 } }
layer { name: "rnn" type: "RNN" bottom: "lstm2" bottom: "cont" top: "rnn" recurrent_param { num_output: 3 } }
layer { name: "last" type: "Reshape" bottom: "rnn" top: "last" reshape_param { shape { dim: 4 dim: -1 } } }
layer { name: "ip2" type: "InnerProduct" bottom: "last" top: "ip2" inner_product_param { num_output: 3 } }
layer { name: "loss2" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss2" }
"""


def weights(net):
    return {
        f"{name}/{index}": blob.data.copy() for name, blobs in net.params.items() for index, blob in enumerate(blobs)
    }


def fill(net):
    """The same start in both engines."""
    random = np.random.RandomState(3)
    for name in ("conv", "ip", "lstm1", "lstm2", "rnn", "ip2"):
        for blob in net.params[name]:
            blob.data[...] = random.uniform(-0.2, 0.2, blob.data.shape)


def solver_file(folder, index, database, mean):
    kind, file_format, settings = KINDS[index]
    net = os.path.join(folder, "net.prototxt")
    with open(net, "w") as file:
        file.write(NET.replace("DATABASE", database).replace("MEAN", mean))
    path = os.path.join(folder, "solver%d.prototxt" % index)
    with open(path, "w") as file:
        file.write(
            'train_net: "%s" type: "%s" snapshot_format: %s base_lr: 0.02 weight_decay: 0.005 max_iter: 100 '
            'snapshot_prefix: "%s" %s' % (net, kind, file_format, os.path.join(folder, "kind%d" % index), settings)
        )
    return path


def write(caffe, folder, database, mean):
    for index in range(len(KINDS)):
        solver = caffe.get_solver(solver_file(folder, index, database, mean))
        fill(solver.net)
        solver.step(N)
        solver.snapshot()
        np.savez(os.path.join(folder, "half%d.npz" % index), **weights(solver.net))
        solver.step(N)
        np.savez(os.path.join(folder, "whole%d.npz" % index), **weights(solver.net))
    net = caffe.Net(os.path.join(folder, "net.prototxt"), caffe.TEST)
    fill(net)
    net.save(os.path.join(folder, "net.caffemodel"))
    net.save_hdf5(os.path.join(folder, "net.caffemodel.h5"))


def read(caffe, folder, database, mean, other):
    """`other` is the folder that the other engine wrote; what comes of it is kept in `folder`."""
    for index, (_, file_format, _) in enumerate(KINDS):
        suffix = ".h5" if file_format == "HDF5" else ""
        solver = caffe.get_solver(solver_file(folder, index, database, mean))
        solver.restore(os.path.join(other, "kind%d_iter_%d.solverstate%s" % (index, N, suffix)))
        np.savez(os.path.join(folder, "restored%d.npz" % index), **weights(solver.net))
        solver.step(N)
        assert solver.iter == 2 * N
        np.savez(os.path.join(folder, "resumed%d.npz" % index), **weights(solver.net))
    for name in ("net.caffemodel", "net.caffemodel.h5", "v1.caffemodel"):
        if os.path.exists(os.path.join(other, name)):
            net = caffe.Net(os.path.join(other, "net.prototxt"), caffe.TEST, weights=os.path.join(other, name))
            np.savez(os.path.join(folder, name + ".npz"), **weights(net))


if __name__ == "__main__":
    import caffe  # noqa: E402

    {"write": write, "read": read}[sys.argv[1]](caffe, *sys.argv[2:])
