"""Where scripts of either engine keep arrays for engine_runs.Run. Python 3.9."""

import importlib
import json
import os
import sys
from urllib.parse import quote


def path_of(results, job, kind, name):
    return os.path.join(results, quote("%s/%s/%s" % (job, kind, name), safe=" []") + ".npy")


def parameters(net):
    """[("layer[index]", blob)] of a net."""
    return [("%s[%d]" % (name, i), blob) for name, blobs in net.params.items() for i, blob in enumerate(blobs)]


def run_jobs(work):
    """Body of a script's main(): work(caffe, job, RESULTS, *what else was given) for each job of JOBS.json."""
    jobs, results, engine = sys.argv[1:4]
    caffe = importlib.import_module(engine)
    caffe.set_mode_cpu()
    with open(jobs) as file:
        for job in json.load(file):
            work(caffe, job, results, *sys.argv[4:])
    return 0
