"""The loop that trains, in a process of its own: pycaffe's names only, so that real Caffe and torchcaffe both run it.

    python -m tools.solve runs/demo/step4_gnet/job.json      # tools/train.py writes the job and starts this

Needs only the standard library, numpy and the engine, and keeps to Python 3.9 (Debian 11's Caffe). What happens goes to
stdout as JSON, one object a line ("event": start, weights, step, test, snapshot, end); the engine's log, and the lines
of our own test passes in Caffe's format, go to stderr. SIGINT and SIGTERM finish the iteration, take a snapshot and
stop. Exit status: 0 done, 1 failed, 130 stopped.

A job of kind "convert" has module, net, weights, output: it saves `weights` in today's format. One of kind "train" has
    module              "caffe" or "torchcaffe"
    gpu                 number of a GPU, or null for the CPU
    solver              solver prototxt, its own testing turned off
    weights, expected   caffemodel to start from (or null), and the layers that it has to fill
    resume              solverstate to go on from (or null)
    max_iter, display, snapshot, test_interval, test_iter       as in a solver prototxt
    snapshot_prefix, title      as the solver has it; the net's name for the log
All paths are relative to the folder in which this runs.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import signal
import sys
import time
import traceback

import numpy as np

STOPPED = 130
STUCK_LOSS = 87.3365  # -log(FLT_MIN): what Caffe's softmax loss shows when a probability has become zero
STUCK_ITERATIONS = 20
CALL_SECONDS = 1.0  # of training between two looks at signals and loss


class Failed(Exception):
    """The run cannot go on; the message is for the user."""


class Stop:
    """Set by SIGINT or SIGTERM, or when nobody reads our events any more."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number, frame):
        self.asked = True


class Events:
    """JSON lines on stdout. A reader that has gone away asks the loop to stop, so that no training is left behind."""

    def __init__(self, stop):
        self.stop = stop
        self.stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else prints belongs into the log

    def __call__(self, event, **values):
        try:
            self.stream.write(json.dumps(dict(values, event=event)) + "\n")
            self.stream.flush()
        except (BrokenPipeError, ValueError):
            self.stop.asked = True


def log(message):
    """One line on stderr, prefixed as Caffe's are."""
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    sys.stderr.write("I%s.%06d %5d solve.py:%d] %s\n" % (
        stamp, int(now % 1 * 1e6), os.getpid(), sys._getframe(1).f_lineno, message))
    sys.stderr.flush()


def run(job, events, stop):
    """Do `job`; return the process's exit status."""
    caffe = importlib.import_module(job["module"])
    if job.get("gpu") is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(job["gpu"])
        caffe.set_mode_gpu()
    versions = {"engine": "%s %s" % (job["module"], getattr(caffe, "__version__", "")),
                "numpy": np.__version__, "python": platform.python_version()}
    log(", ".join("%s %s" % item for item in sorted(versions.items())))
    if job["kind"] == "convert":
        net = caffe.Net(job["net"], caffe.TEST, weights=job["weights"])
        net.save(job["output"])
        events("end", status="done", iteration=0, versions=versions)
        return 0
    training = Training(caffe, job, events, stop)
    events("start", iteration=training.iteration, versions=versions)
    return training.run()


class Training:
    """One solver with what the loop needs to know about its nets."""

    def __init__(self, caffe, job, events, stop):
        self.job, self.events, self.stop = job, events, stop
        self.solver = caffe.get_solver(job["solver"])
        self.net = self.solver.net
        self.losses = _loss_weights(self.net)
        if job.get("resume"):
            self.solver.restore(job["resume"])
            log("Resuming from %s" % job["resume"])
        elif job.get("weights"):
            self._fill(job["weights"], job["expected"])
        self.first = self.iteration
        self.test_net = self.solver.test_nets[0]
        self.test_net.share_with(self.net)  # Caffe itself does so only in its own test pass
        self.window = []  # losses since the last row of metrics
        self.stuck = 0  # iterations
        self.pace = CALL_SECONDS  # seconds an iteration takes, guessed at first

    @property
    def iteration(self):
        """Number of updates done."""
        return int(self.solver.iter)

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
        log("Solving %s" % self.job["title"])  # where Caffe's log parsers start to count seconds
        if not self.job.get("resume") or self.iteration >= last:
            self._test()
        while self.iteration < last and not self.stop.asked:
            self._step()
            if self._due("snapshot") or self.iteration == last:
                self._snapshot()
            if self._due("test_interval") or self.iteration == last:
                self._test()
        if self.iteration >= last:
            self.events("end", status="done", iteration=self.iteration)
            return 0
        self._snapshot()
        self.events("end", status="stopped", iteration=self.iteration)
        return STOPPED

    def _step(self):
        """Train up to the next row of metrics, test or snapshot, at most about a second long, and look at the loss.

        Short, so that a signal and a broken loss are noticed soon; not one by one, as an engine may do more for the
        last iteration of a call, whose gradients anyone may look at.
        """
        intervals = [self.job[name] for name in ("display", "test_interval", "snapshot") if self.job[name] > 0]
        ends = [self.job["max_iter"]] + [(self.iteration // every + 1) * every for every in intervals]
        count = max(1, min(min(ends) - self.iteration, int(CALL_SECONDS / self.pace)))
        rate, began = float(self.solver.lr), time.time()
        self.solver.step(count)
        self.pace = max(1e-6, (time.time() - began) / count)
        self._look_at_loss(count, rate)

    def _due(self, interval):
        every = self.job[interval]
        return every > 0 and self.iteration % every == 0

    def _look_at_loss(self, count, rate):
        """Report the loss of the last iteration; raise Failed where training on makes no sense."""
        loss = sum(weight * float(self.net.blobs[name].data.sum()) for name, weight in self.losses.items())
        self.stuck = self.stuck + count if abs(loss - STUCK_LOSS) < 0.01 else 0
        if not math.isfinite(loss):
            raise Failed("iteration %d: the loss is %s; most likely the learning rate %g is too high for these weights"
                         % (self.iteration - 1, loss, rate))
        if self.stuck >= STUCK_ITERATIONS:
            raise Failed("iteration %d: the loss has been 87.3365 (the logarithm of the smallest number) for %d "
                         "iterations, so the net has saturated; most likely the learning rate %g is too high"
                         % (self.iteration - 1, self.stuck, rate))
        self.window.append(loss)
        row = self._due("display") or self._due("test_interval") or self.iteration == self.job["max_iter"]
        self.events("step", iteration=self.iteration, loss=loss, mean_loss=sum(self.window) / len(self.window),
                    rate=rate, row=row)
        if row:
            self.window = []

    # ---- testing
    def _test(self):
        """Mean of the test net's outputs over test_iter batches, logged as Caffe logs it."""
        log("Iteration %d, Testing net (#0)" % self.iteration)
        began, sums = time.time(), {}
        for _ in range(self.job["test_iter"]):
            if self.stop.asked:
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
        if not math.isfinite(loss):
            raise Failed("iteration %d: the validation loss is %s; most likely the learning rate is too high for these "
                         "weights" % (self.iteration, loss))
        accuracies = {name: float(value) for name, value in means.items() if name.startswith("accuracy")}
        mean = sum(accuracies.values()) / len(accuracies) if accuracies else None
        self.events("test", iteration=self.iteration, loss=loss, accuracy=mean, accuracies=accuracies,
                    seconds=time.time() - began)

    # ---- snapshots
    def _snapshot(self):
        """Snapshot of this iteration, taken by the solver already or now; a mark beside it says that it is whole."""
        stem = "%s_iter_%d" % (self.job["snapshot_prefix"], self.iteration)
        if self.iteration == self.first:
            return
        for name, blobs in self.net.params.items():
            if not all(np.isfinite(blob.data).all() for blob in blobs):
                raise Failed("iteration %d: layer %s holds numbers that are not finite; most likely the learning rate "
                             "is too high" % (self.iteration, name))
        if not self._due("snapshot"):
            self.solver.snapshot()
        files = {name: os.path.getsize(name) for name in (stem + ".caffemodel", stem + ".solverstate")}
        with open(stem + ".json.part", "w") as stream:
            json.dump({"iteration": self.iteration, "files": files}, stream)
        os.replace(stem + ".json.part", stem + ".json")
        self.events("snapshot", iteration=self.iteration, stem=stem)


def _samples(blobs):
    """Copies of evenly spaced values of each blob, enough to tell whether a layer was filled."""
    return [blob.data.reshape(-1)[::max(1, blob.data.size // 10000)].copy() for blob in blobs]


def _loss_weights(net):
    """Output blob -> its weight in the total loss, for those that have one."""
    weights = dict(net.blob_loss_weights)
    return {name: float(weights[name]) for name in net.outputs if weights.get(name)}


def main(argv=None):
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    stop = Stop()
    events = Events(stop)
    with open(arguments[0]) as stream:
        job = json.load(stream)
    try:
        return run(job, events, stop)
    except Failed as error:
        message = str(error)
    except Exception as error:  # the whole story goes into the log, one line to whoever reads the events
        traceback.print_exc()
        message = "%s" % error or type(error).__name__
    log(message)
    events("end", status="failed", message=message)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
