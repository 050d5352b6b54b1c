"""How solve.py, in its process, talks with tools/train.py: signals in; events, log lines and snapshot records out.

Standard library only, Python 3.9, as solve.py.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import os
import signal
import statistics
import sys
import time
import traceback


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # as common.command's, which needs a newer Python
STOPPED = 130  # exit status after one of them


class Failed(Exception):
    """The run cannot go on; the message is for the user."""


class Alone:
    """The only process of a training. gender_smile/training/ranks.py has Together, for one of several."""

    rank = 0

    def agree(self, count, asked):
        """(iterations of the next call of step, what is asked for first: one of Stop's)."""
        return count, asked

    def means(self, values):
        """The mean over the ranks of each value."""
        return values

    def alone(self, work):
        work()

    def equalize(self, solver):
        pass

    def leave(self, status):
        """Called last, with the process's exit status."""

    def account(self, error, message):
        """What to say of a failure."""
        if not isinstance(error, Failed):
            traceback.print_exc()  # the whole story goes into the log, one line to whoever reads the events
        return message


class Stop:
    """What signals ask for: SIGHUP a snapshot; STOP_SIGNALS, or that nobody reads our events any more, a stop."""

    NOTHING, SNAPSHOT, STOP = range(3)

    def __init__(self):
        self.request = Stop.NOTHING
        signal.signal(signal.SIGHUP, lambda number, frame: self.ask(Stop.SNAPSHOT))
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, frame: self.ask(Stop.STOP))

    def ask(self, request):
        self.request = max(self.request, request)

    @property
    def asked(self):
        """True when a stop was asked for."""
        return self.request == Stop.STOP


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
            self.stop.ask(Stop.STOP)


class GradientWatch:
    """Sees when gradients explode: their norm is more than TIMES what was usual in the last looks at them."""

    TIMES, LOOKS, FEWEST = 100, 50, 10

    def __init__(self):
        self.seen = collections.deque(maxlen=self.LOOKS)

    def look(self, norms):
        """Sentence about `norms`, {layer: L2 norm}, where they have exploded, else None; once until there is a new usual."""
        total = math.sqrt(sum(norm * norm for norm in norms.values()))
        usual = statistics.median(self.seen) if len(self.seen) >= self.FEWEST else math.inf
        self.seen.append(total)
        if total <= self.TIMES * usual:
            return None
        self.seen.clear()
        return "the gradients' norm is %.3g, usual was %.3g; the largest is layer %s's, %.3g" % (
            total, usual, max(norms, key=norms.get), max(norms.values()))


def log(message):
    """One line on stderr, prefixed as Caffe's are; GLOG_minloglevel silences it as it does Caffe's."""
    if os.environ.get("GLOG_minloglevel", "0") != "0":
        return
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    sys.stderr.write("I%s.%06d %5d solve.py:%d] %s\n" % (
        stamp, int(now % 1 * 1e6), os.getpid(), sys._getframe(1).f_lineno, message))
    sys.stderr.flush()


def write_record(path, iteration, files):
    """Write a snapshot's record as torchcaffe/solvers/resume.py does: size and SHA-256 of its files, once these are on disk."""
    found = {}
    for name in files:
        digest = hashlib.sha256()
        with open(name, "rb") as stream:
            os.fsync(stream.fileno())
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        found[os.path.basename(name)] = {"size": os.path.getsize(name), "sha256": digest.hexdigest()}
    with open(path + ".part", "w") as stream:
        json.dump({"version": 1, "iteration": iteration, "files": found}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".part", path)
