"""The loop that trains, in a process of its own: pycaffe's names only, so that real Caffe and torchcaffe both run it.

    python -m gender_smile.training.solve runs/demo/step4_gnet/job.json    # tools/train.py writes the job and starts this
    python -m gender_smile.training.solve --follow 0 folder                # another rank's part in job 0 (ranks.py)

Needs only the standard library, numpy and the engine, and keeps to Python 2.7 and 3.5, for which a Caffe of one's own may be
built (CAFFE_PYTHON=). What happens goes to
stdout as JSON, one object a line ("event": start, weights, step, warning, test, snapshot, end); the engine's log, and the lines
of our own test passes in Caffe's format, go to stderr. SIGINT, SIGTERM and SIGUSR1 finish the iteration, take a
snapshot and stop; SIGHUP takes a snapshot. Exit status: 0 done, 1 failed, 130 stopped.

A job has
    module              "caffe" or "torchcaffe"
    precision           "float32", or torchcaffe's "tf32" or "bf16"
    deterministic       true: torchcaffe gives the same bits from run to run on a GPU, too
    compile             whether torchcaffe compiles the training pass; null: on a GPU
    gpu                 number of a GPU, or null for the CPU; of several ranks each takes its own (LOCAL_RANK)
    turn                only where several ranks train: number of this job among those that they do
    solver              solver prototxt, its own testing and snapshots turned off
    weights, expected   caffemodel to start from (or null), and the layers that it has to fill
    resume              solverstate to resume from (or null)
    max_iter, display, snapshot, test_interval, test_iter       as in a solver prototxt
    batch               images of an iteration, to tell the speed
    snapshot_prefix, title      as the solver has it; the net's name for the log
All paths are relative to the folder in which this runs.
"""

from __future__ import division, print_function

import importlib
import json
import os
import platform
import sys
import time

BEGAN = time.time()  # before the slow imports

import numpy as np  # noqa: E402

from gender_smile.training.protocol import (  # noqa: E402
    STOPPED, Clock, Events, Failed, GradientWatch, SingleProcess, Stop, log, native, write_record,
)
from torchcaffe.solvers.snapshots import snapshot_paths  # noqa: E402

STUCK_LOSS = 87.3365  # -log(FLT_MIN): what Caffe's softmax loss shows when a probability has become zero
STUCK_ITERATIONS = 20
CALL_SECONDS = 1.0  # of training between two looks at signals and loss


def run(job, events, stop, join):
    """Do `job`; return the process's exit status. `join()`: the ranks to do it with, once the GPU is chosen."""
    caffe = importlib.import_module(job["module"])
    if job.get("deterministic"):
        caffe.set_deterministic()
    gpu = int(os.environ["LOCAL_RANK"]) if job.get("gpu") is not None and "turn" in job else job.get("gpu")
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        try:
            caffe.set_device(gpu)
            caffe.set_mode_gpu()
        except RuntimeError as error:
            reason = getattr(error, "reason", None)  # of torchcaffe's NoGPUError
            if reason is None:
                raise
            raise Failed("%s; leave out GPU= (--gpu) to compute on the CPU" % reason)  # noqa: B904  2.7 has no `from`
    versions = versions_of(caffe, gpu)
    log(", ".join("%s %s" % item for item in sorted(versions.items())))
    if job.get("precision", "float32") != "float32":
        caffe.set_precision(job["precision"])
    if hasattr(caffe, "set_compile"):
        caffe.set_compile(gpu is not None if job.get("compile") is None else job["compile"])
    training = Training(caffe, job, events, stop, join())
    events("start", iteration=training.iteration, versions=versions)
    return training.run()


def versions_of(caffe, gpu=None):
    """Versions of the engine `caffe` (a module) and of what its results depend on, for logs and records."""
    versions = {"engine": "%s %s" % (caffe.__name__, getattr(caffe, "__version__", "")),
                "numpy": np.__version__, "python": platform.python_version()}
    if caffe.__name__ == "torchcaffe":  # the same PyTorch and number of threads give the same bits
        import torch

        versions.update(torch=torch.__version__, threads=torch.get_num_threads())
        if gpu is not None:
            versions["device"] = torch.cuda.get_device_name(gpu)
    return versions


class Training(object):
    """One solver with what the loop needs to know about its nets."""

    def __init__(self, caffe, job, events, stop, ranks):
        self.job, self.events, self.stop, self.ranks = job, events, stop, ranks
        self.solver = caffe.get_solver(job["solver"])
        self.solver.keep_diffs, self.solver.watch_gradients = False, True  # attributes that real Caffe does not read
        self.gradients = GradientWatch()
        self.net = self.solver.net
        self.losses = _loss_weights(self.net)
        if ranks.rank == 0:
            self._load()
        ranks.broadcast(self.solver)
        self.first = self.iteration
        self.test_net = self.solver.test_nets[0]
        self.test_net.share_with(self.net)  # Caffe itself does so only in its own test pass
        self.window = []  # (iterations, sum of their losses, seconds) of the calls since the last row of metrics
        self.clock = Clock()
        self.behind = None  # snapshot that is being written while training continues
        self.saved = None  # iteration of the newest snapshot
        self.stuck = 0  # iterations
        self.pace = CALL_SECONDS  # seconds an iteration takes, guessed at first

    @property
    def iteration(self):
        """Number of updates done."""
        return int(self.solver.iter)

    def _load(self):
        if self.job.get("resume"):
            self.solver.restore(self.job["resume"])
            log("Resuming from %s" % self.job["resume"])
        elif self.job.get("weights"):
            self._fill(self.job["weights"], self.job["expected"])

    def _fill(self, weights, expected):
        """Copy `weights` by layer name, and see from the numbers themselves which layers it filled."""
        log("Finetuning from %s" % weights)
        before = {name: _samples(blobs) for name, blobs in self.net.params.items()}
        self.net.copy_from(weights)
        copied, left = [], []
        for name, blobs in self.net.params.items():
            same = all(np.array_equal(old, new) for old, new in zip(before[name], _samples(blobs)))
            (left if same else copied).append(name)
        report = getattr(self.net, "copy_report", None)
        self.events("weights", file=weights, copied=copied, left=left,
                    ignored=[str(name) for name in getattr(report, "ignored", ())])
        missing = [name for name in expected if name not in copied]
        if missing:
            raise Failed("%s does not fill layer %s: it holds no such layer, so the net would start there "
                         "from random numbers" % (weights, ", ".join(missing)))

    # ---- the loop
    def run(self):
        """Train to max_iter; return the exit status."""
        last = self.job["max_iter"]
        self.clock.seconds["start"] = time.time() - BEGAN
        log("Solving %s" % self.job["title"])  # where Caffe's log parsers start to count seconds
        if not self.job.get("resume") or self.iteration >= last:
            self.ranks.on_rank0(self._test)
        while self.iteration < last:
            count, request = self.ranks.agree(self._count(), self.stop.request)
            if request == Stop.STOP:
                break
            self._step(count)
            self._settle()
            if self._due("snapshot") or self.iteration == last or request == Stop.SNAPSHOT:
                if request:
                    self.stop.request = Stop.NOTHING if self.stop.request == request else self.stop.request
                self.ranks.on_rank0(self._snapshot)
            if self._due("test_interval") or self.iteration == last:
                self.ranks.on_rank0(self._test)
        if self.iteration < last:
            self.ranks.on_rank0(self._snapshot)
        log(self.clock.text(self.job.get("batch")))
        self.events("end", status="done" if self.iteration >= last else "stopped", iteration=self.iteration,
                    timing=dict(self.clock.seconds, iterations=self.clock.iterations))
        return 0 if self.iteration >= last else STOPPED

    def _count(self):
        """Iterations up to the next row of metrics, test or snapshot, but of at most about a second.

        Few, so that a signal and a broken loss are noticed soon; not one by one, as an engine may do more for the
        last iteration of a call, whose gradients anyone may look at.
        """
        intervals = [self.job[name] for name in ("display", "test_interval", "snapshot") if self.job[name] > 0]
        ends = [self.job["max_iter"]] + [(self.iteration // every + 1) * every for every in intervals]
        return max(1, min(min(ends) - self.iteration, int(CALL_SECONDS / self.pace)))

    def _step(self, count):
        """Train `count` iterations and look at the loss."""
        rate, began = float(getattr(self.solver, "lr", 0.0)), time.time()  # forks of before Caffe 1.0 have none
        if hasattr(self.solver, "mean_loss"):  # torchcaffe adds the losses up where they are
            self.solver.step(count)
            mean = self.solver.mean_loss
        else:  # real Caffe shows the last loss only; it has waited for it, so that single steps cost nothing
            losses = []
            for _ in range(count):
                self.solver.step(1)
                losses.append(self._loss())
            mean = sum(losses) / count
        seconds = time.time() - began
        self.pace = max(1e-6, seconds / count)
        self._count_time(count, seconds)
        self._look_at_loss(count, mean, rate, seconds)
        self._look_at_gradients(rate)

    def _count_time(self, count, seconds):
        """The first call of step is of one iteration (see _count), and takes longer than those after it."""
        if not self.clock.seconds["first iteration"]:
            self.clock.seconds["first iteration"] = seconds
            log("First iteration done, %.1f s after the start" % (time.time() - BEGAN))
        else:
            self.clock.seconds["training"] += seconds
            self.clock.iterations += count

    def _due(self, interval):
        every = self.job[interval]
        return every > 0 and self.iteration % every == 0

    def _loss(self):
        """Loss of the last iteration."""
        return sum(weight * float(self.net.blobs[name].data.sum()) for name, weight in self.losses.items())

    def _look_at_loss(self, count, mean, rate, seconds):
        """Report the loss of the last iteration, and the mean since the last row; raise Failed where it has
        diverged.

        mean, seconds: of this rank's losses in the `count` iterations since the last look, and what they took.
        """
        loss, mean = self.ranks.means([self._loss(), mean])
        self.stuck = self.stuck + count if abs(loss - STUCK_LOSS) < 0.01 else 0
        if not np.isfinite(loss):
            raise Failed("iteration %d: the loss is %s; most likely the learning rate %g is too high for these weights"
                         % (self.iteration - 1, loss, rate))
        if self.stuck >= STUCK_ITERATIONS:
            raise Failed("iteration %d: the loss has been 87.3365 (the logarithm of the smallest number) for %d "
                         "iterations, so the net has saturated; most likely the learning rate %g is too high"
                         % (self.iteration - 1, self.stuck, rate))
        self.window.append((count, count * mean, seconds))
        row = self._due("display") or self._due("test_interval") or self.iteration == self.job["max_iter"]
        steps, total, taken = (sum(numbers) for numbers in zip(*self.window))
        self.events("step", iteration=self.iteration, loss=loss, rate=rate, row=row, mean_loss=total / steps,
                    iterations=steps, seconds=taken)
        if row:
            self.window = []

    def _look_at_gradients(self, rate):
        """Warn where gradients explode. Real Caffe's diffs are the updates by now, which grow as they do."""
        norms = getattr(self.solver, "gradient_norms", None)
        if norms is None:
            norms = {name: np.sqrt(sum(float(np.vdot(blob.diff, blob.diff)) for blob in blobs))
                     for name, blobs in self.net.params.items()}
        explosion = self.gradients.look(norms)
        if explosion:
            message = "iteration %d: %s; most likely the learning rate %g is too high (--base-lr, BASE_LR= of make)" % (
                self.iteration - 1, explosion, rate)
            log(message)
            self.events("warning", message=message)

    # ---- testing
    def _test(self):
        with self.clock.measure("validation"):
            self._validate()

    def _validate(self):
        """Mean of the test net's outputs over test_iter batches, logged as Caffe logs it."""
        log("Iteration %d, Testing net (#0)" % self.iteration)
        began, sums = time.time(), {}
        for _ in range(self.job["test_iter"]):
            if self.stop.requested:
                return
            for name, value in self.test_net.forward().items():
                sums[name] = sums.get(name, 0.0) + np.array(value, np.float64)
        means = {name: value / self.job["test_iter"] for name, value in sums.items()}
        weights = _loss_weights(self.test_net)
        number = 0
        for name, value in sorted(means.items()):
            for scalar in value.reshape(-1):
                weighted = " (* %g = %g loss)" % (weights[name], weights[name] * scalar) if name in weights else ""
                log("    Test net output #%d: %s = %g%s" % (number, name, scalar, weighted))
                number += 1
        loss = sum(weight * float(means[name].sum()) for name, weight in weights.items())
        if not np.isfinite(loss):
            raise Failed("iteration %d: the validation loss is %s; most likely the learning rate is too high for these "
                         "weights" % (self.iteration, loss))
        accuracies = {name: float(value) for name, value in means.items() if name.startswith("accuracy")}
        mean = sum(accuracies.values()) / len(accuracies) if accuracies else None
        self.events("test", iteration=self.iteration, loss=loss, accuracy=mean, accuracies=accuracies,
                    seconds=time.time() - began)

    # ---- snapshots
    def _snapshot(self):
        with self.clock.measure("snapshots"):
            self._save()

    def _save(self):
        """Snapshot of this iteration; torchcaffe writes it while training continues, unless the training ends here."""
        if self.iteration == self.first:
            return
        bad = self._not_finite()
        if bad:
            raise Failed("iteration %d: layer %s holds numbers that are not finite; most likely the learning rate is too high"
                         % (self.iteration, bad))
        self._settle(wait=True)
        if self.saved == self.iteration:
            return
        snapshot = snapshot_paths(self.job["snapshot_prefix"], self.iteration)
        self.saved = self.iteration
        if hasattr(self.solver, "snapshot_behind") and self.iteration < self.job["max_iter"] and not self.stop.requested:
            self.solver.snapshot_behind()
            self.behind = snapshot
        else:
            self.solver.snapshot()
            self._tell(snapshot)

    def _not_finite(self):
        """Name of the first layer whose weights are not all finite, or ""."""
        found = getattr(self.solver, "not_finite", None)  # torchcaffe looks on the GPU, where they are
        if found is not None:
            return found
        bad = (name for name, blobs in self.net.params.items() if not all(np.isfinite(blob.data).all() for blob in blobs))
        return next(bad, "")

    def _settle(self, wait=False):
        """Tell of the snapshot that was being written, once it is whole; `wait`: return only then."""
        if self.behind is None or not wait and self.solver.background.busy:
            return
        snapshot, self.behind = self.behind, None
        self.solver.background.wait()
        self._tell(snapshot)

    def _tell(self, snapshot):
        """Tell of a snapshot that is written, with its record, which says that it is whole.

        torchcaffe writes the record itself (torchcaffe/solvers/resume.py), with more in it; beside real Caffe's we do.
        """
        record = snapshot.record
        if not os.path.exists(record) or os.path.getmtime(record) < os.path.getmtime(snapshot.state):
            write_record(snapshot)
        self.events("snapshot", iteration=snapshot.iteration)


def _samples(blobs):
    """Copies of evenly spaced values of each blob, enough to tell whether a layer was filled."""
    return [blob.data.reshape(-1)[::max(1, blob.data.size // 10000)].copy() for blob in blobs]


def _loss_weights(net):
    """Output blob -> its weight in the total loss, for those that have one."""
    weights = dict(net.blob_loss_weights)
    return {name: float(weights[name]) for name in net.outputs if weights.get(name)}


def main(argv=None):
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if len(arguments) == 3 and arguments[0] == "--follow":
        from gender_smile.training import ranks

        job = ranks.followed(int(arguments[1]), arguments[2])
        return ranks.NO_MORE if job is None else solve(job)
    if len(arguments) != 1:
        print(__doc__)
        return 2
    with open(arguments[0]) as stream:
        return solve(native(json.load(stream)))


def solve(job):
    """Do `job` and report what happens; return the process's exit status."""
    stop = Stop()
    events = Events(stop)
    ranks = [SingleProcess()]

    def join():
        if "turn" in job:
            from gender_smile.training.ranks import RankGroup

            ranks.append(RankGroup(lambda message: events("end", status="failed", message=message)))
            ranks[-1].meet("turn %d" % job["turn"])
        return ranks[-1]

    try:
        status = run(job, events, stop, join)
    except Exception as error:
        message = ranks[-1].first_failure(error, "%s" % error or type(error).__name__)
        log(message)
        events("end", status="failed", message=message)
        status = 1
    ranks[-1].leave(status)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
