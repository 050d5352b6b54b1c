"""Run all cases in one engine and keep everything that can be seen of its nets: `python run_cases.py FOLDER RESULTS`.

Run by real Caffe's Python as a script; in torchcaffe's process `run_all` is called. FOLDER holds what files.prepare
made. RESULTS.npz gets the arrays, by "case number/what", and RESULTS.json the rest. Python 3.9.
"""

import json
import os
import sys

os.environ.setdefault("GLOG_minloglevel", "3")
os.environ.setdefault("TORCHCAFFE_PYTHON_LAYERS", "1")  # of python_layers.py, beside this file

import numpy as np  # noqa: E402
from case import values  # noqa: E402
from cases import ABORTS, CASES  # noqa: E402


def run_all(caffe, engine, folder, cases=CASES, run=None, log=sys.stderr):
    """({"number/what": array}, {number: structure}) of all cases; `run(net)` replaces net.forward(); net.backward()."""
    arrays, structures = {}, {}
    for number, case in enumerate(cases):
        if log:  # where a case kills the process, the last line names it
            print(number, case.type, case.layer, file=log, flush=True)
        structures[str(number)] = run_case(caffe, engine, folder, case, number, arrays, run)
    return arrays, structures


def build(caffe, engine, folder, case, number):
    path = os.path.join(str(folder), "%s_case.prototxt" % engine)
    with open(path, "w") as file:
        file.write(case.text(folder=folder, engine=engine))
    caffe.set_random_seed(number + 1)
    return caffe.Net(path, getattr(caffe, case.phase))


def run_case(caffe, engine, folder, case, number, arrays, run=None):
    net = build(caffe, engine, folder, case, number)
    random = np.random.RandomState(number)
    if case.parameters is not None:
        for name in net.params:
            for blob in net.params[name]:
                blob.data[...] = values(case.parameters, blob.data.shape, random)
    if case.arrays:
        held = [values("normal", shape, random) for shape in case.arrays]
        net.set_input_arrays(*held)
    structure = [describe(net)]
    for turn in range(case.passes):
        fill(net, case, turn, random)
        if run is None:
            net.forward()
        else:
            run(net, case, lambda: set_top_diffs(net, case, random))
        if case.backward and run is None:
            set_top_diffs(net, case, random)
            net.backward()
        structure.append(describe(net))
        record(net, "%d/%d" % (number, turn), case, arrays)
    return structure


def fill(net, case, turn, random):
    shapes = case.second if case.second and turn else [shape for shape, _ in case.bottoms]
    for index, ((_, kind), shape) in enumerate(zip(case.bottoms, shapes)):
        blob = net.blobs["b%d" % index]
        if turn and case.second:
            blob.reshape(*shape)
        blob.data[...] = values(kind, shape, random)
    for name in net.inputs:  # inputs that the case's own text names
        if not name.startswith("b") and case.before:
            net.blobs[name].data[...] = values("normal", net.blobs[name].data.shape, random)
    if turn and case.second:
        net.reshape()


def set_top_diffs(net, case, random):
    """Random gradients for tops that are no losses: what a net behind them would send."""
    for name, weight in zip(case.tops, case.weights or []):
        blob = net.blobs[name]
        if weight and not case.type.endswith("Loss") and case.type != "Python":
            blob.diff[...] = random.normal(size=blob.data.shape)


def describe(net):
    """What the net says of itself, as JSON holds it."""
    return {
        "blobs": [[name, list(blob.data.shape)] for name, blob in net.blobs.items()],
        "params": [[name, [list(blob.data.shape) for blob in blobs]] for name, blobs in net.params.items()],
        "inputs": list(net.inputs),
        "outputs": list(net.outputs),
        "layers": list(net._layer_names),
        "types": [layer.type for layer in net.layers],
        "bottoms": [[name, list(names)] for name, names in net.bottom_names.items()],
        "tops": [[name, list(names)] for name, names in net.top_names.items()],
    }


def record(net, prefix, case, arrays):
    for name, blob in net.blobs.items():
        arrays["%s/%s/data" % (prefix, name)] = np.array(blob.data)
        if case.backward:
            arrays["%s/%s/diff" % (prefix, name)] = np.array(blob.diff)
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            arrays["%s/%s[%d]/data" % (prefix, name, index)] = np.array(blob.data)
            if case.backward:
                arrays["%s/%s[%d]/diff" % (prefix, name, index)] = np.array(blob.diff)


def attempt(caffe, engine, folder, abort):
    """Build, and where `abort.run` run, a net that cannot be."""
    net = build(caffe, engine, folder, abort.case, 0)
    if abort.run:
        for _ in range(2):
            net.forward()
            if abort.case.backward:
                net.backward()


def how_it_ends(caffe, folder, abort):
    """ "aborts", "raises" or "runs", tried in a child process."""
    child = os.fork()
    if child == 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            attempt(caffe, "caffe", folder, abort)
        except BaseException:
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return "aborts" if os.WIFSIGNALED(status) else "raises" if os.WEXITSTATUS(status) else "runs"


def main():
    import caffe  # noqa: E402

    folder, results = sys.argv[1:3]
    arrays, structures = run_all(caffe, "caffe", folder)
    np.savez(results + ".npz", **arrays)
    ends = [how_it_ends(caffe, folder, abort) for abort in ABORTS]
    with open(results + ".json", "w") as file:
        json.dump({"structures": structures, "ends": ends}, file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
