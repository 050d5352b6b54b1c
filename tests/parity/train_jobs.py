"""Train in one engine: `python train_jobs.py JOBS.json RESULTS.npz caffe|torchcaffe`; the losses are in its log.

JOBS.json is a list of {"name", "solver", "iterations", "weights" (a caffemodel or null)}; RESULTS.npz gets the weights
after training as "name/layer[index]". A job with "trace", a folder, takes a snapshot after every iteration there; one
with "follow", such a folder, starts every iteration from the other engine's snapshot, and RESULTS.npz gets how far apart
the two are after it: "name/weights" and "name/history", a number an iteration. Run by both engines' Python as a script.
Python 3.9.
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
    if "follow" in job:
        return follow(solver, job, arrays)
    if "trace" in job:
        for _ in range(job["iterations"]):
            solver.step(1)
            solver.snapshot()
        return None
    solver.step(job["iterations"])
    for layer, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            arrays["%s/%s[%d]" % (job["name"], layer, index)] = np.array(blob.data)


def follow(solver, job, arrays):
    """One iteration at a time, each from the other engine's weights and momentum; all random draws go on as they come."""
    from comparison import difference

    found = {"weights": [], "history": []}
    for iteration in range(1, job["iterations"] + 1):
        solver.step(1)
        ours = {"weights": [np.array(blob.data) for blobs in solver.net.params.values() for blob in blobs]}
        ours["history"] = [history.numpy().copy() for history in solver.history]
        solver.restore("%s/snapshot_iter_%d.solverstate" % (job["follow"], iteration))
        theirs = {"weights": [blob.data for blobs in solver.net.params.values() for blob in blobs]}
        theirs["history"] = [history.numpy() for history in solver.history]
        for what, numbers in found.items():
            numbers.append(max(difference(a, b) for a, b in zip(theirs[what], ours[what])))
    for what, numbers in found.items():
        arrays["%s/%s" % (job["name"], what)] = np.array(numbers)


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
