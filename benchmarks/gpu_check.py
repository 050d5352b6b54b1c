"""All that a GPU has to show, in at most 8 minutes: its tests, then its benchmarks: `make gpu-check [GPU=0]`.

    python -m benchmarks.gpu_check                            # GPU 0
    python -m benchmarks.gpu_check --device cpu --quick       # tries this file itself, without a GPU

Each part is a process with a time limit of its own, so that one that hangs costs no other. Weights and images are made on
the spot. A table at the end; all of it in benchmarks-gpu.md and .json, in docs/ or in --output. Any Python with PyTorch
2.11 or newer and the packages runs it: see PYTHON= of make.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import List, Optional

from benchmarks import costs
from benchmarks.measuring import ROOT, Row, machine, text_table
from benchmarks.report import section

BUDGET = 8 * 60.0  # seconds, of all parts
OLDEST_TORCH = (2, 11)
LAST = 25  # lines of a part's output that are kept, beside those that name a failed test
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
SLOW_TESTS = "not whole_nets and not same_bits and not layers"  # of tests/gpu, which a quick check leaves out
QUICK = ("chain", "costs", "detection")  # benchmarks that have --quick
NAME = "benchmarks-gpu"


@dataclass
class Part:
    """A command with a time limit in seconds; a benchmark writes its rows to a file that is added to the command."""

    name: str
    command: List[str]
    limit: float
    benchmark: bool = True
    result: str = ""  # "done", or why not
    seconds: float = 0.0
    rows: List[Row] = field(default_factory=list)
    output: str = ""  # its failures and last lines

    @property
    def passed(self) -> bool:
        return self.result == "done"


def parts(device: str, quick: bool) -> List[Part]:
    """What is run, the most telling first: time may run out before the last."""
    gpu = [] if device == "cpu" else ["--gpu", device]
    python = [sys.executable, "-m"]
    tests = [*python, "pytest", "-m", "gpu", "--device", device, "-v", "-rs", "-p", "no:cacheprovider", "tests/gpu"]
    tests += ["-k", SLOW_TESTS] if quick else ["tests/torchcaffe/test_parallel.py"] if device != "cpu" else []
    if importlib.util.find_spec("xdist") is not None:
        tests += ["-n", str(max(1, min(8, (os.cpu_count() or 1) // 2)))]
    limits = {"chain": 130, "training": 190, "costs": 90, "detection": 60, "inference": 45, "data_layer": 60, "overhead": 30}
    few: List[str] = []
    if quick:  # tries the code, on a machine that may be slow: no part has a limit of its own
        limits, few = dict.fromkeys(QUICK, BUDGET), ["--quick"]
    found = [Part("test-gpu", tests, BUDGET if quick else 150, benchmark=False)]
    return found + [Part(name, [*python, f"benchmarks.{name}", *gpu, *few], limit) for name, limit in limits.items()]


def run_part(part: Part, until: float, folder: Path, say=print):
    """Run a part until its limit, or the monotonic time `until`; its result, rows and last lines are put into it."""
    limit = min(part.limit, until - time.monotonic())
    if limit <= 0:
        part.result = "not run: the time is up"
        return
    say(f"== {part.name}, at most {limit:.0f} s", flush=True)
    rows, log, began = folder / f"{part.name}.json", folder / f"{part.name}.log", time.monotonic()
    command = part.command + (["--json", str(rows)] if part.benchmark else [])
    with open(log, "w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                                   start_new_session=True, env=environment())  # fmt: skip
        try:
            status = process.wait(limit)
            part.result = "done" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            part.result = f"stopped after {limit:.0f} s"
        finally:
            end(process)
    part.seconds = time.monotonic() - began
    lines = log.read_text(errors="replace").splitlines()
    part.output = "\n".join([line for line in lines[:-LAST] if "FAILED" in line or "ERROR" in line] + lines[-LAST:])
    if part.benchmark and rows.exists():
        part.rows = [Row(**row) for row in json.loads(rows.read_text())]
    say(text_table(part.rows) if part.passed and part.benchmark else part.output, flush=True)


def end(process):
    """End a part's process and all that it has started: they share its session."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def environment() -> dict:
    """The tools accept this Python (common/environment.py), whatever it is called."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "GENDER_SMILE_ENVIRONMENT": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def unsuitable(device: str) -> str:
    """Why the check cannot run here, with the remedy; "" where it can."""
    from common import environment as interpreter

    reason = interpreter.unsuitable()
    if reason:
        return f"{reason}; give another Python, make gpu-check PYTHON=path, or type make setup"
    import torch

    found = tuple(int(number) for number in torch.__version__.split("+")[0].split(".")[:2])
    if found < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return f"PyTorch {torch.__version__} is older than {oldest}: make gpu-check PYTHON=path of a Python with a newer one"
    if device == "cpu":
        return ""
    from torchcaffe.core import mode

    return mode.why_no_gpu(int(device))


def make_detector() -> Optional[str]:
    """Make the detector's weights where they are missing, for the tests of prediction; why it failed, or None."""
    if (ROOT / "weights" / "mtcnn" / "det1.caffemodel").exists():
        return None
    done = subprocess.run([sys.executable, "-m", "detector.convert"], cwd=ROOT, env=environment(), capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def table(found: List[Part]) -> str:
    from common.files import align

    return align([("part", "seconds", "result")] + [(part.name, f"{part.seconds:.0f}", part.result) for part in found])


def page(found: List[Part], where: str) -> str:
    """The report as Markdown."""
    lines = [f"# Benchmarks on a GPU\n\n`make gpu-check` wrote this page.\n\nMachine: {where}.\n"]
    lines += ["| part | seconds | result |", "|---|---|---|"]
    lines += [f"| {part.name} | {part.seconds:.0f} | {part.result} |" for part in found]
    return "\n".join(lines) + "\n" + hours(found) + "".join(section(part.name, part.rows) for part in found if part.rows)


def hours(found: List[Part]) -> str:
    """Tables of the paper's run on this card, as Markdown: hours and memory in each precision; "" where not measured."""
    return costs.tables([row for part in found if part.name == "costs" for row in part.rows])


def write(found: List[Part], where: str, folder: Path):
    """benchmarks-gpu.md and .json in `folder`."""
    from common import files

    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(str(folder / f"{NAME}.md"), page(found, where))
    files.write_json(str(folder / f"{NAME}.json"), {"machine": where, "parts": [asdict(part) for part in found]})


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="0", metavar="GPU", help="number of the GPU, or cpu (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few tests and iterations: does it work?")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help="of all parts (default: %(default)g)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for the report (default: docs for a whole check of a "
                        "GPU, else runs/gpu-check)")
    return parser


def main(argv=None) -> int:
    """Return 0 when every part ran to its end, 1 when one did not, 2 where nothing can be measured."""
    options = get_parser().parse_args(argv)
    if options.device != "cpu" and not options.device.isdigit():
        get_parser().error(f"--device {options.device}: give a GPU's number, or cpu")
    reason = unsuitable(options.device)
    if reason:
        print(f"gpu-check: {reason}", file=sys.stderr)
        return 2
    until, whole = time.monotonic() + options.budget, options.device != "cpu" and not options.quick
    output = options.output or ROOT / ("docs" if whole else "runs/gpu-check")
    lacking = make_detector()
    if lacking:
        print(f"no detector, so no test of prediction: {lacking}", flush=True)
    found, where = parts(options.device, options.quick), machine()
    with tempfile.TemporaryDirectory() as folder:
        for part in found:
            run_part(part, until, Path(folder))
            write(found, where, output)  # after each, so that what is known stays
    print(hours(found) + table(found))
    print(f"wrote {output / NAME}.md and .json")
    return 0 if all(part.passed for part in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
