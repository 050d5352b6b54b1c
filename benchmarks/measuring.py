"""What every benchmark shares: timing side by side, rows with a target, and the machine they were measured on.

A benchmark is a module of this folder with `rows(options) -> list[Row]` that can be run by itself
(`python -m benchmarks.NAME`); `make bench` runs all and writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAFFE_PYTHON = ROOT / ".caffe" / "python"


@dataclass
class Row:
    """One measured figure: `ours` in `unit`, alone or against a baseline, and the target ("at least", 1.6).

    The target is for the ratio ours / other, and for `ours` itself where there is no baseline.
    """

    what: str
    ours: float
    other: float | None
    baseline: str  # what `other` is: "real Caffe 1.0", "hand-written torch loop"
    unit: str
    bar: tuple[str, float] | None = None  # None: a figure without a target
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.other is None else self.ours / self.other

    @property
    def reached(self) -> bool:
        if self.bar is None:
            return True
        side, limit = self.bar
        judged = self.ours if self.other is None else self.ratio
        return judged >= limit if side == "at least" else judged <= limit


def rate(what, ours, other, baseline, unit, at_least=None, note=""):
    """Row of two rates (higher is better)."""
    return Row(what, ours, other, baseline, unit, None if at_least is None else ("at least", at_least), note)


def cost(what, ours, other, baseline, unit, at_most=None, note=""):
    """Row of two costs, such as seconds or MB (lower is better)."""
    return Row(what, ours, other, baseline, unit, None if at_most is None else ("at most", at_most), note)


def figure(what, ours, unit, at_least=None, at_most=None, note=""):
    """Row of a figure without a baseline; the target, if any, is in `unit` too."""
    bar = ("at least", at_least) if at_least is not None else ("at most", at_most) if at_most is not None else None
    return Row(what, ours, None, "", unit, bar, note)


def side_by_side(contenders, rounds=5, warm_up=1):
    """Median seconds a call of each contender {name: callable}, taken in turns so that all see the same machine.

    Turns, since a machine's clock and neighbours change over a run; the median, since a hiccup is no property of code.
    """
    times = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, call in contenders.items():
            time.sleep(0.1)  # threads of the one before may spin on: OpenBLAS' do
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def machine() -> str:
    """Processor, cores, memory and the versions that a figure depends on, in one line."""
    import numpy
    import torch

    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{os.cpu_count()} cores of {model}, {int(memory) / 2**20:.0f} GiB{gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {numpy.__version__}, threads {torch.get_num_threads()}"
    )


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def get_parser(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--gpu", type=int, help="number of the GPU to measure on (default: the CPU)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    return parser


def run(module_doc, rows, options=None):
    """Body of a benchmark's main(): measure, print the table, write --json.

    Returns 0; a missed target is printed, not an error.
    """
    if options is None:
        options = get_parser(module_doc.splitlines()[0]).parse_args()
    found = rows(options)
    print(machine())
    print(text_table(found))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in found], indent=1))
    return 0


def text_table(rows) -> str:
    lines = []
    for row in rows:
        bar = "" if row.bar is None else f"  ({row.bar[0]} {row.bar[1]:g}: {'reached' if row.reached else 'MISSED'})"
        note = f"  {row.note}" if row.note else ""
        baseline = "" if row.other is None else f", {row.baseline} {row.other:.4g}: {row.ratio:.3g} x"
        lines.append(f"{row.what}: ours {row.ours:.4g} {row.unit}{baseline}{bar}{note}")
    return "\n".join(lines)
