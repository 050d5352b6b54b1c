"""Train in one engine: `python train_jobs.py JOBS.json RESULTS.npz caffe|torchcaffe`; the losses are in its log.

JOBS.json is a list of {"name", "solver", "iterations", "weights" (a caffemodel or null)}; RESULTS.npz gets the weights
after training as "name/layer[index]". Run by both engines' Python as a script. Python 3.9.
"""

import importlib
import json
import sys

import numpy as np

MARK = "== job "


def train(caffe, job, arrays):
    # Python's stderr and the engine's log share one file: flushed, so that the lines keep their order.
    print(MARK + job["name"], file=sys.stderr, flush=True)
    solver = caffe.get_solver(job["solver"])
    if job.get("weights"):
        solver.net.copy_from(job["weights"])
        start = np.random.RandomState(5)
        for layer in job["fresh"]:  # what the file has no weights for, and what Gaussian fillers drew
            weight, bias = solver.net.params[layer]
            weight.data[...] = start.normal(0, 0.01, weight.data.shape)
            bias.data[...] = 0
        caffe.set_random_seed(job["seed"])
    solver.step(job["iterations"])
    for layer, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            arrays["%s/%s[%d]" % (job["name"], layer, index)] = np.array(blob.data)


def main():
    jobs, results, engine = sys.argv[1:4]
    caffe = importlib.import_module(engine)
    caffe.set_mode_cpu()
    arrays = {}
    with open(jobs) as file:
        for job in json.load(file):
            train(caffe, job, arrays)
    np.savez(results, **arrays)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
