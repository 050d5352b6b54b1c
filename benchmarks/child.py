"""Work in a process of its own, one call for each "go" on its stdin.

An engine that cannot be imported here (real Caffe has a Python of its own) can so be measured in turns with what runs
here, and memory is counted from a fresh start. Both engines speak pycaffe, so both are given the same function:

    def forwards(caffe, definition):                 # in benchmarks/inference.py; runs in the child
        net = caffe.Net(definition, caffe.TEST)
        return lambda: net.forward() and None        # what "go" runs; its value, JSON, comes back

    with Child("caffe", "benchmarks.inference:forwards", definition="…") as caffe:
        side_by_side({"ours": ours, "caffe": caffe})

Modules whose functions run under real Caffe keep to Python 3.9 and import torch and OpenCV only where they need them.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path


class Child:
    """A process of an engine in which `function` ("module:name") was called with the engine's pycaffe and `arguments`.

    engine: "caffe" (real Caffe) or "torch". environment: variables in addition to ours; OpenBLAS gets all cores unless told
    otherwise. Calling the object lets the child make one call of what `function` returned, and gives its value.
    Raises RuntimeError where the child stops; what it wrote on stderr is then seen above.
    """

    def __init__(self, engine: str, function: str, environment=None, **arguments):
        from common.engine import interpreter

        self.what = f"{function} in {engine}"
        python = interpreter(engine)
        command = [*python.command, "-m", "benchmarks.child", python.module, function, json.dumps(arguments)]
        variables = {"OPENBLAS_NUM_THREADS": str(os.cpu_count()), "GLOG_minloglevel": "2", **(environment or {})}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
            env={**python.environ(), **variables},
        )  # fmt: skip
        self.started = self._reply()  # `seconds` of importing and of the function, `peak` MB, as after each call
        self.last = None  # the reply to the last call: `value`, `seconds` (without the way to the child), `peak`, `rss`

    def __call__(self):
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.last = self._reply()
        return self.last["value"]

    def _reply(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.what} stopped with status {self._process.wait()}")
        return json.loads(line)

    def close(self):
        """End the process (at the end of its stdin)."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.close()


def memory() -> dict:
    """Memory of this process in MB (2**20 bytes): `rss` now and `peak` so far, mapped files included."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = {name: int(status[key].split()[0]) for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))}
    return {name: value / 1024 for name, value in kilobytes.items()}


def serve(engine: str, function: str, arguments: str, requests, replies):
    """The child: call `function`, then what it returned at each line of `requests`, with a line of JSON after each."""
    module, name = function.split(":")

    def answer(start, value=None):
        replies.write(json.dumps({"value": value, "seconds": time.perf_counter() - start, **memory()}) + "\n")
        replies.flush()

    start = time.perf_counter()
    caffe = importlib.import_module(engine)
    call = getattr(importlib.import_module(module), name)(caffe, **json.loads(arguments))
    answer(start)
    for _ in requests:
        start = time.perf_counter()
        answer(start, call())


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    serve(*sys.argv[1:4], sys.stdin, replies)
