"""Where scripts of either engine keep arrays for engine_runs.Run. Python 3.9."""

import os
from urllib.parse import quote


def path_of(results, job, kind, name):
    return os.path.join(results, quote("%s/%s/%s" % (job, kind, name), safe=" []") + ".npy")


def parameters(net):
    """[("layer[index]", blob)] of a net."""
    return [("%s[%d]" % (name, i), blob) for name, blobs in net.params.items() for i, blob in enumerate(blobs)]
