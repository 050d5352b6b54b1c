"""What test_parallel.py lets two ranks do, and one process alone: `ranks_job.py FOLDER cpu|gpu` writes what came out.

The tests compare FOLDER/alone.pickle with FOLDER/rank0.pickle and FOLDER/rank1.pickle.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys

import numpy as np

import torchcaffe as caffe
from torchcaffe.distributed import parallel, reducer
from torchcaffe.data.datasource import Environment
from torchcaffe.core.errors import NetError

RECORDS, BATCH = 26, 8
NET = """name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ mirror: true crop_size: 10 mean_value: 120 scale: 0.02 }}
  data_param {{ source: "{lmdb}" backend: LMDB batch_size: {batch} }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ crop_size: 10 mean_value: 120 scale: 0.02 }}
  data_param {{ source: "{lmdb}" backend: LMDB batch_size: 5 }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" param {{ lr_mult: 0.5 }}
  inner_product_param {{ num_output: 16 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "fc" top: "fc" }}
layer {{ name: "out" type: "InnerProduct" bottom: "fc" top: "out"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss"
  loss_param {{ ignore_label: 3 }} }}
layer {{ name: "sum" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "sum" loss_weight: 0.01
  loss_param {{ normalization: NONE }} include {{ phase: TRAIN }} }}
"""
SOLVER = """net: "{net}" base_lr: 0.005 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" random_seed: 7 {more}
snapshot_prefix: "{folder}/{name}" """
SOURCES = """name: "sources"
layer {{ name: "h" type: "HDF5Data" top: "rows"
  hdf5_data_param {{ source: "{folder}/hdf5.txt" batch_size: 4 shuffle: true }} }}
layer {{ name: "i" type: "ImageData" top: "image" top: "label" transform_param {{ mirror: true }}
  image_data_param {{ source: "{folder}/images.txt" root_folder: "{folder}/" batch_size: 4 shuffle: true }} }}
"""
ROWS = """name: "rows"
layer {{ name: "h" type: "HDF5Data" top: "rows"
  hdf5_data_param {{ source: "{folder}/hdf5.txt" batch_size: 4 shuffle: true }} }}
layer {{ name: "r" type: "Reshape" bottom: "rows" top: "r" reshape_param {{ shape {{ dim: -1 dim: 1 }} }} }}
layer {{ name: "p" type: "Power" bottom: "r" top: "square" power_param {{ power: 2 scale: 0.1 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "r" top: "ip" inner_product_param {{ num_output: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "square" top: "loss" }}
"""
MEMORY = """name: "memory" layer {{ name: "m" type: "MemoryData" top: "d" top: "l"
  memory_data_param {{ batch_size: 4 channels: 1 height: 1 width: 1 }} }}
"""
PLAIN = """name: "plain"
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.01 }}
  data_param {{ source: "{lmdb}" backend: LMDB batch_size: {batch} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 5 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


class Job:
    """One process's run of all that is compared. `rank` is None for a process alone."""

    def __init__(self, folder: str):
        self.folder, self.found = folder, {}
        self.rank = int(os.environ["RANK"]) if "RANK" in os.environ else None

    def write(self, file_name, text, **values):
        path = f"{self.folder}/{file_name}-{self.rank}"
        with open(path, "w") as file:
            file.write(text.format(folder=self.folder, lmdb=f"{self.folder}/lmdb", **values))
        return path

    def solver(self, name, more="", net=NET, batch=BATCH):
        path = self.write(f"{name}.solver", SOLVER, name=name, more=more,
                          net=self.write(f"{name}.net", net, batch=batch))  # fmt: skip
        return caffe.get_solver(path)

    def run(self):
        for what in (self.train, self.compiled, self.shares, self.read_only_ours, self.stop, self.uneven, self.resume):
            if self.rank is not None:
                parallel.join(what.__name__)
            self.found[what.__name__] = what()
            parallel.leave()
        self.found["caffes_way"] = self.caffes_way()
        with open(f"{self.folder}/{'alone' if self.rank is None else f'rank{self.rank}'}.pickle", "wb") as file:
            pickle.dump(self.found, file)

    def train(self):
        """20 iterations with everything on; the log, and whether gradients were sent off during the backward pass."""
        launch, sent = reducer.Bucket.launch, []
        solver = self.solver("train", "display: 5 iter_size: 2 clip_gradients: 10 average_loss: 3 test_iter: 3 "
                             "test_interval: 10 max_iter: 20 snapshot: 8")  # fmt: skip
        if self.rank is not None:
            solver.reducer = reducer.Reducer(solver.net.learnable, 2, bucket_bytes=2000)
            reducer.Bucket.launch = lambda bucket, group: sent.append(solver.reducer.armed) or launch(bucket, group)
        if self.rank == 1:
            for blobs in solver.net.params.values():
                blobs[0].data[...] = 5  # to be replaced by rank 0's
        with self.log() as log:
            solver.solve()
        reducer.Bucket.launch = launch
        return {"weights": weights(solver.net), "log": log.getvalue(), "sent": sent,
                "buckets": len(solver.reducer.buckets) if solver.reducer else 0}  # fmt: skip

    def compiled(self):
        """The same 20 iterations, compiled: the weights, and why they were not."""
        caffe.set_compile(True, "eager")
        solver = self.solver("compiled", "iter_size: 2 clip_gradients: 10 test_iter: 3 test_interval: 10 max_iter: 20 "
                             "snapshot_after_train: false")  # fmt: skip
        caffe.set_compile(False)
        solver.keep_diffs = False
        solver.solve()
        return weights(solver.net), solver.compiled.failed

    @contextlib.contextmanager
    def log(self):
        os.environ["GLOG_minloglevel"] = "0"
        with contextlib.redirect_stderr(io.StringIO()) as text:
            yield text
        os.environ["GLOG_minloglevel"] = "2"

    def shares(self):
        """Five batches of each data layer's items."""
        caffe.set_random_seed(3)
        net = caffe.Net(self.write("data.net", NET, batch=BATCH), caffe.TRAIN)
        others = caffe.Net(self.write("sources.net", SOURCES), caffe.TRAIN)
        memory = caffe.Net(self.write("memory.net", MEMORY), caffe.TRAIN)
        numbers = np.arange(12, dtype=np.float32)
        memory.set_input_arrays(numbers.reshape(12, 1, 1, 1), numbers)
        batches = []
        for _ in range(5):
            for each in (net, others, memory):
                each.forward()
            batches.append([blob.data.copy() for each, names in (
                (net, ("data", "label")), (others, ("rows", "image", "label")), (memory, ("d", "l"))
            ) for blob in map(each.blobs.get, names)])  # fmt: skip
        return batches

    def read_only_ours(self):
        """Keys of the records whose values were read, in order."""
        keys, read = [], Environment.datum
        Environment.datum = lambda environment, key, value: keys.append(bytes(key)) or read(environment, key, value)
        net = caffe.Net(self.write("read.net", NET, batch=BATCH), caffe.TRAIN)
        del keys[:]  # the first record, read for its shape
        for _ in range(3):
            net.forward()
        Environment.datum = read
        return keys

    def stop(self):
        """Rank 1 alone is asked to stop in iteration 3: (iterations done, whether it was so in the log)."""
        solver = self.solver("stop", "max_iter: 50")
        asking = 0 if self.rank is None else 1

        def on_start():
            if solver.iter == 3 and self.rank in (None, asking):
                solver.requested = "stop"

        solver.add_callback(on_start, lambda: None)
        with self.log() as log:
            solver.solve()
        return solver.iter, "stopped early" in log.getvalue()

    def resume(self):
        """Losses of 3 and 3 iterations, snapshot and a new solver between; rank 1 gets it all from rank 0."""
        found = []
        for index, net in enumerate((NET, ROWS)):
            solver = self.solver(f"resume{index}", net=net)
            losses = [self.one(solver) for _ in range(3)]
            solver.ranks.on_rank0(solver.snapshot)
            solver = self.solver(f"resume{index}", net=net)
            if not self.rank:
                solver.restore(f"{self.folder}/resume{index}_iter_3.solverstate")
            found.append(losses + [self.one(solver) for _ in range(3)])
        return found

    @staticmethod
    def one(solver):
        solver.step(1)
        return solver.ranks.means([float(solver.net.blobs["loss"].data)])[0]

    def uneven(self):
        try:
            return self.solver("uneven", batch=7).iter
        except NetError as problem:
            return str(problem)

    def caffes_way(self):
        """caffe.NCCL with batch_size a rank, as a pycaffe script has it."""
        if self.rank is None:
            solver = self.solver("nccl", net=PLAIN, batch=BATCH)
        else:
            caffe.set_solver_count(2)
            caffe.set_solver_rank(self.rank)
            caffe.set_multiprocess(True)
            solver = self.solver("nccl", net=PLAIN, batch=BATCH // 2)
            nccl = caffe.NCCL(solver, self.uid())
            nccl.bcast()
            solver.add_callback(nccl)
            solver.net.after_backward(nccl)
        solver.step(5)
        parallel.leave()
        return weights(solver.net)

    def uid(self):
        """Made by rank 0 as a script's main process would, and given to the other."""
        store = parallel.connect()
        if self.rank == 0:
            rank = os.environ.pop("RANK")
            store.set("uid", caffe.NCCL.new_uid())
            os.environ["RANK"] = rank
        return parallel.wait_for(store, "uid").decode()


def weights(net):
    return {f"{name} {i}": blob.data.copy() for name, blobs in net.params.items() for i, blob in enumerate(blobs)}


if __name__ == "__main__":
    if sys.argv[2] == "gpu":
        caffe.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        caffe.set_mode_gpu()
    Job(sys.argv[1]).run()
