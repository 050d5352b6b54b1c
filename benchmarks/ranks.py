"""Several processes on one training, against one process with the same total batch.

    python -m benchmarks.ranks            # CPU: two ranks of one thread, a net of two convolutions at 64 pixels
    python -m benchmarks.ranks --gpu 0    # the paper's net, batch 120, on 2, 4, 8 of this machine's GPUs
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.child import Child
from benchmarks.measuring import cost, rate, run, side_by_side
from benchmarks.training import SOLVER, write_images, write_job

COMPARED = 20  # iterations after which the weights are compared


# ---- what the children run: see benchmarks/child.py
def trainer(caffe, solver, iterations, gpu=False, precision="float32"):
    """Train by `iterations` a call, as one of several ranks where RANK is set."""
    one = _solver(caffe, solver, gpu, precision)
    one.keep_diffs = False

    def call():
        one.step(iterations)
        if gpu:
            import torch

            torch.cuda.synchronize()

    return call


def learned(caffe, solver):
    """Train COMPARED iterations a call and write the weights to the file {solver}.{rank}.npz."""
    import numpy as np

    one = _solver(caffe, solver)

    def call():
        one.step(COMPARED)
        found = {f"{name} {i}": blob.data for name, blobs in one.net.params.items() for i, blob in enumerate(blobs)}
        np.savez(f"{solver}.{os.environ.get('RANK', 'alone')}.npz", **found)

    return call


def _solver(caffe, solver, gpu=False, precision="float32"):
    from torchcaffe.distributed import parallel

    if gpu:
        caffe.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        caffe.set_mode_gpu()
    if precision != "float32":
        caffe.set_precision(precision)
    if parallel.Environment.read() is not None:
        parallel.join()
    return caffe.get_solver(solver)


class Ranks:
    """`count` children that train together; a call lets each make one."""

    def __init__(self, count, function, environment=None, **arguments):
        import torch.distributed as dist

        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.threads = ThreadPoolExecutor(count)
        common = {
            "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True", **(environment or {}),
        }  # fmt: skip
        ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        start = partial(Child, "torch", function, **arguments)
        self.children = list(self.threads.map(lambda variables: start(environment=variables), ranks))

    def __call__(self):
        list(self.threads.map(Child.__call__, self.children))

    def close(self):
        for child in self.children:
            child.close()
        self.threads.shutdown()


def write_small_job(folder, batch):
    """A net of two convolutions and two inner products, mirror, crops and dropout on; returns the solver's path."""
    from pathlib import Path

    from torchcaffe import layers, net_spec

    net = net_spec.NetSpec()
    fill = dict(weight_filler=dict(type="xavier"), bias_filler=dict(type="constant", value=0.1))
    transform = dict(mirror=True, crop_size=64, mean_value=[127.5], scale=1 / 128)
    data = dict(source=write_images(folder, 72)[0], batch_size=batch, backend=1)
    net.data, net.label = layers.Data(ntop=2, transform_param=transform, data_param=data)
    bottom = net.data
    for index, width in enumerate((32, 64)):
        net[f"conv{index}"] = layers.Convolution(bottom, num_output=width, kernel_size=5, pad=2, **fill)
        net[f"relu{index}"] = layers.ReLU(net[f"conv{index}"], in_place=True)
        net[f"pool{index}"] = bottom = layers.Pooling(net[f"relu{index}"], kernel_size=3, stride=2)
    net.hidden = layers.InnerProduct(bottom, num_output=256, **fill)
    net.drop = layers.Dropout(net.hidden, in_place=True)
    net.score = layers.InnerProduct(net.drop, num_output=2, **fill)
    net.loss = layers.SoftmaxWithLoss(net.score, net.label)
    Path(folder, "net.prototxt").write_text(str(net.to_proto()))
    solver = Path(folder, "solver.prototxt")
    solver.write_text(SOLVER.format(net=Path(folder, "net.prototxt")))
    return str(solver)


def rows(options):
    with tempfile.TemporaryDirectory() as folder:
        return cpu_rows(folder) if options.gpu is None else gpu_rows(folder)


def cpu_rows(folder, batch=32, iterations=5):
    solver = write_small_job(folder, batch)
    job = {"solver": solver, "iterations": iterations}
    one = Child("torch", "benchmarks.ranks:trainer", {"OMP_NUM_THREADS": "2"}, **job)
    two = Ranks(2, "benchmarks.ranks:trainer", {"OMP_NUM_THREADS": "1"}, **job)
    speed = _speeds({"one": one, "two": two}, batch * iterations)
    what = f"training two convolutions at 64 pixels, total batch {batch}, in two processes of one thread"
    compared = difference(solver)
    return [
        rate(what, speed["two"], speed["one"], "one process of two threads", "images/s", 0.75),
        cost(f"weights after {COMPARED} iterations, largest difference over a blob's largest weight", compared, 1e-5,
             "limit", "", 1.0, "mirror, crops and dropout on"),
    ]  # fmt: skip


def difference(solver) -> float:
    """Of what one process and two ranks have learned after COMPARED iterations."""
    import numpy as np

    for contender in (Child("torch", "benchmarks.ranks:learned", solver=solver),
                      Ranks(2, "benchmarks.ranks:learned", solver=solver)):  # fmt: skip
        contender()
        contender.close()
    alone, *ranks = (np.load(f"{solver}.{name}.npz") for name in ("alone", "0", "1"))
    pairs = [(rank[name], alone[name]) for rank in ranks for name in alone]
    return max(float(np.abs(found - expected).max() / np.abs(expected).max()) for found, expected in pairs)


def gpu_rows(folder, batch=120, iterations=20, precision="bf16"):
    import torch

    visible, found = torch.cuda.device_count(), []
    counts = [count for count in (2, 4, 8) if count <= visible]
    if not counts:
        print(f"nothing to measure: this needs two GPUs, and PyTorch can use {visible} here")
    for count in counts:
        for total, kind in ((batch, "the batch split"), (batch * count, "a batch each")):
            common = {"iterations": iterations, "gpu": True, "precision": precision}
            speed = {}
            for name, make, size in (("one", partial(Ranks, 1), batch), ("all", partial(Ranks, count), total)):
                place = tempfile.mkdtemp(dir=folder)
                contender = {name: make("benchmarks.ranks:trainer", solver=write_job(place, size), **common)}
                speed.update(_speeds(contender, size * iterations))
            what = f"VGG-16 at 224 pixels on {count} GPUs, {kind} (total {total}), {precision}"
            found.append(rate(what, speed["all"], speed["one"], f"one GPU, batch {batch}", "images/s", 0.8 * count))
    return found


def _speeds(contenders, images):
    """Images a second of each contender, {name: callable with close()}, `images` a call."""
    try:
        seconds = side_by_side(contenders, rounds=5)
    finally:
        for contender in contenders.values():
            contender.close()
    return {name: images / taken for name, taken in seconds.items()}


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
