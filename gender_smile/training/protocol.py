"""How solve.py, in its process, talks with tools/train.py: signals in; events, log lines and snapshot records out.

Python 2.7 and later and the standard library, with the names of snapshot files from torchcaffe, which needs no more
either: a Caffe of one's own may be built for an old Python (CAFFE_PYTHON=).
"""

from __future__ import division, print_function

import collections
import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback

from torchcaffe.solvers.snapshots import new_record


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # as common.command's, which needs a newer Python
STOPPED = 130  # exit status after one of them


class Failed(Exception):
    """The run cannot continue; the message is for the user."""


class SingleProcess(object):
    """The only process of a training. RankGroup of ranks.py is one of several."""

    rank = 0

    def agree(self, count, request):
        """(iterations of the next call of step, the most urgent request of all ranks: one of Stop's)."""
        return count, request

    def means(self, values):
        """The mean over the ranks of each value."""
        return values

    def on_rank0(self, work):
        """Call `work` on rank 0 only; the others wait."""
        work()

    def broadcast(self, solver):
        """Copy rank 0's weights, history and iteration to every rank."""

    def leave(self, status):
        """Called last, with the process's exit status."""

    def first_failure(self, error, message):
        """The message of the failure that came first, of any rank."""
        if not isinstance(error, Failed):
            traceback.print_exc()  # into the log; the events have one line
        return message


class Stop(object):
    """What signals request: SIGHUP a snapshot; STOP_SIGNALS, or a closed events pipe, a stop."""

    NOTHING, SNAPSHOT, STOP = range(3)

    def __init__(self):
        self.request = Stop.NOTHING
        signal.signal(signal.SIGHUP, lambda number, frame: self.add(Stop.SNAPSHOT))
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, frame: self.add(Stop.STOP))

    def add(self, request):
        self.request = max(self.request, request)

    @property
    def requested(self):
        """True when a stop was requested."""
        return self.request == Stop.STOP


class Events(object):
    """JSON lines on stdout. When their reader has gone, the loop stops, so that no training is left behind."""

    def __init__(self, stop):
        self.stop = stop
        self.stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is printed goes to the log

    def __call__(self, event, **values):
        try:
            self.stream.write(json.dumps(dict(values, event=event)) + "\n")
            self.stream.flush()
        except (IOError, ValueError):  # the pipe is broken, or closed
            self.stop.add(Stop.STOP)


class Clock(object):
    """Where the time of a training goes: seconds of each of PARTS, and the iterations after the first one."""

    PARTS = ("start", "first iteration", "training", "validation", "snapshots")

    def __init__(self):
        self.seconds = dict.fromkeys(self.PARTS, 0.0)
        self.iterations = 0  # in "training"

    @contextlib.contextmanager
    def measure(self, part):
        began = time.time()
        try:
            yield
        finally:
            self.seconds[part] += time.time() - began

    def rate(self, batch):
        """Images a second once it runs; None where there was but one iteration."""
        seconds = self.seconds["training"]
        return batch * self.iterations / seconds if batch and self.iterations and seconds else None

    def text(self, batch):
        """One line for the log."""
        parts = ["%s %.1f s" % (part, self.seconds[part]) for part in self.PARTS]
        rate = self.rate(batch)
        return "Time: " + ", ".join(parts) + (", %.1f images/s after the first iteration" % rate if rate else "")


class GradientWatch(object):
    """Detects exploding gradients: a norm of more than TIMES the median of the last LOOKS."""

    TIMES, LOOKS, FEWEST = 100, 50, 10

    def __init__(self):
        self.seen = collections.deque(maxlen=self.LOOKS)

    def look(self, norms):
        """A sentence where `norms`, {layer: L2 norm}, have exploded, else None; once until there is a new median."""
        total = math.sqrt(sum(norm * norm for norm in norms.values()))
        usual = median(self.seen) if len(self.seen) >= self.FEWEST else float("inf")
        self.seen.append(total)
        if total <= self.TIMES * usual:
            return None
        self.seen.clear()
        return "the gradients' norm is %.3g, usual was %.3g; the largest is layer %s's, %.3g" % (
            total, usual, max(norms, key=norms.get), max(norms.values()))


def median(values):
    """The middle of `values`, or the mean of the two in the middle."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def native(value):
    """A value of JSON with texts as Python calls them: 2.7's pycaffe takes no unicode."""
    if isinstance(value, dict):
        return {native(key): native(content) for key, content in value.items()}
    if isinstance(value, list):
        return [native(content) for content in value]
    return value if isinstance(value, str) or not hasattr(value, "encode") else value.encode("utf-8")


def log(message):
    """One line on stderr, prefixed as Caffe's are; GLOG_minloglevel silences it as it does Caffe's."""
    if os.environ.get("GLOG_minloglevel", "0") != "0":
        return
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    sys.stderr.write("I%s.%06d %5d solve.py:%d] %s\n" % (
        stamp, int(now % 1 * 1e6), os.getpid(), sys._getframe(1).f_lineno, message))
    sys.stderr.flush()


def write_record(snapshot):
    """Write the record of a snapshot whose files real Caffe has written, once they are on the disk."""
    for name in (snapshot.model, snapshot.state):
        with open(name, "rb") as stream:
            os.fsync(stream.fileno())
    with open(snapshot.record + ".part", "w") as stream:
        json.dump(new_record(snapshot.iteration, snapshot.model, snapshot.state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(snapshot.record + ".part", snapshot.record)
