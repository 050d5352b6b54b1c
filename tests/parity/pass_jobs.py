"""Forward and backward of whole nets in one engine: `python pass_jobs.py JOBS.json RESULTS caffe|torchcaffe [GIVEN]`.

JOBS.json is a list of {"name", "net", "weights", "seed"}. RESULTS gets data and diff of all blobs and the parameters'
gradients. With GIVEN, the RESULTS of another run, backward starts from that run's activations: where an activation is
within rounding of ReLU's kink, or two within a pooling's window of each other, the engines may decide differently and
either gradient is right; from the same activations they cannot. `data` is then still this engine's own.
Run by both engines' Python as a script. Python 3.9.
"""

import sys

import numpy as np  # noqa: E402
from keeping import parameters, path_of, run_jobs


def passes(caffe, job, results, given=None):
    def keep(kind, name, array):
        np.save(path_of(results, job["name"], kind, name), array)

    print(job["name"], file=sys.stderr, flush=True)
    caffe.set_random_seed(job["seed"])  # crops and mirrors
    net = caffe.Net(job["net"], caffe.TRAIN)
    net.copy_from(job["weights"])
    caffe.set_random_seed(job["seed"])  # dropout
    forward(net, keep)
    for name, blob in net.blobs.items():
        keep("data", name, blob.data)
    if given:
        caffe.set_random_seed(job["seed"])
        forward_from(net, lambda kind, name: np.load(path_of(given, job["name"], kind, name)))
    net.backward()
    for name, blob in net.blobs.items():
        keep("diff", name, blob.diff)
    for name, blob in parameters(net):
        keep("gradient", name, blob.diff)


def forward(net, keep):
    """Layer after layer; what a layer overwrites in place is kept as it was."""
    for index, name in enumerate(net._layer_names):
        for bottom in set(net.bottom_names[name]) & set(net.top_names[name]):
            keep("before", name, net.blobs[bottom].data)
        net._forward(index, index)


def forward_from(net, load):
    """All layers but sources, each on the other run's bottoms."""
    for index, name in enumerate(net._layer_names):
        for bottom in net.bottom_names[name]:
            in_place = bottom in net.top_names[name]
            net.blobs[bottom].data[...] = load("before", name) if in_place else load("data", bottom)
        if net.bottom_names[name]:
            net._forward(index, index)


if __name__ == "__main__":
    raise SystemExit(run_jobs(passes))
