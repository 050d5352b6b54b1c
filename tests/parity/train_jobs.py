"""Train in one engine: `python train_jobs.py JOBS.json RESULTS caffe|torchcaffe`; the losses are in its log.

JOBS.json is a list of {"name", "solver", "iterations"} and of what `start` looks for. Of each job, RESULTS gets the
weights after training, and under "moved" how far they went: the norm of their change as a share of their norm
(BatchNorm's statistics aside). A job with "trace", a folder, takes a snapshot after every iteration there; one with
"follow", such a folder, starts every iteration from the other engine's snapshot, and RESULTS gets under "followed" how
far apart the two are after it, in weights and in momentum.
Run by both engines' Python as a script. Python 3.9.
"""

import sys

import numpy as np  # noqa: E402
from keeping import parameters, path_of, run_jobs

MARK = "== job "


def train(caffe, job, results):
    # Python's stderr and the engine's log share one file: flushed, so that the lines keep their order.
    print(MARK + job["name"], file=sys.stderr, flush=True)
    solver = caffe.get_solver(job["solver"])
    start(caffe, solver.net, job)
    if "follow" in job:
        return follow(solver, job, results)
    before = {name: np.array(blob.data) for name, blob in parameters(solver.net)}
    for _ in range(job["iterations"] if "trace" in job else 0):
        solver.step(1)
        solver.snapshot()
    if "trace" not in job:
        solver.step(job["iterations"])
    statistics = {name for name, layer in zip(solver.net._layer_names, solver.net.layers) if layer.type == "BatchNorm"}
    change, size = 0.0, 0.0
    for name, blob in parameters(solver.net):
        np.save(path_of(results, job["name"], "weights", name), blob.data)
        if name.split("[")[0] not in statistics:
            change += float(np.square(blob.data - before[name]).sum())
            size += float(np.square(before[name]).sum())
    np.save(path_of(results, job["name"], "moved", "all"), (change / size) ** 0.5)


def follow(solver, job, results):
    """One iteration at a time, each from the other engine's weights and momentum; all random draws go on as they come."""
    from comparison import difference

    found = {"weights": [], "history": []}
    for iteration in range(1, job["iterations"] + 1):
        solver.step(1)
        ours = {"weights": [np.array(blob.data) for _, blob in parameters(solver.net)]}
        ours["history"] = [history.numpy().copy() for history in solver.history]
        solver.restore("%s/snapshot_iter_%d.solverstate" % (job["follow"], iteration))
        theirs = {"weights": [blob.data for _, blob in parameters(solver.net)]}
        theirs["history"] = [history.numpy() for history in solver.history]
        for what, numbers in found.items():
            numbers.append(max(difference(a, b) for a, b in zip(theirs[what], ours[what])))
    for what, numbers in found.items():
        np.save(path_of(results, job["name"], "followed", what), np.array(numbers))


def start(caffe, net, job):
    """The same numbers in both engines: "weights" (a caffemodel) for the layers in it, made up here for "fresh"."""
    if job.get("weights"):
        net.copy_from(job["weights"])
        random = np.random.RandomState(5)
        for layer in job["fresh"]:  # what the file has no weights for, and what Gaussian fillers drew
            weight, bias = net.params[layer]
            weight.data[...] = random.normal(0, 0.01, weight.data.shape)
            bias.data[...] = 0
        caffe.set_random_seed(job["seed"])


if __name__ == "__main__":
    raise SystemExit(run_jobs(train))
