"""What tools/solve.py's process is made of: signals in, events and log lines out, and the ranks of a training.

The standard library only, and Python 3.9, as tools/solve.py.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback


class Failed(Exception):
    """The run cannot go on; the message is for the user."""


class Alone:
    """The only process of a training. tools/ranks.py has Together, for one of several."""

    rank = 0

    def agree(self, count, stop):
        """(iterations of the next call of step, True to stop instead)."""
        return count, stop

    def mean(self, value):
        return value

    def alone(self, work):
        work()

    def equalize(self, solver):
        pass

    def leave(self):
        pass

    def account(self, error, message):
        """What to say of a failure."""
        if not isinstance(error, Failed):
            traceback.print_exc()  # the whole story goes into the log, one line to whoever reads the events
        return message


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
    """One line on stderr, prefixed as Caffe's are; GLOG_minloglevel silences it as it does Caffe's."""
    if os.environ.get("GLOG_minloglevel", "0") != "0":
        return
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    sys.stderr.write("I%s.%06d %5d solve.py:%d] %s\n" % (
        stamp, int(now % 1 * 1e6), os.getpid(), sys._getframe(1).f_lineno, message))
    sys.stderr.flush()
