"""Images a second and memory of training in each precision: what the paper's nine trainings and both tables would take.

    python -m benchmarks.costs --gpu 0
    python -m benchmarks.costs --quick         # the demo's net on the CPU: does it work?

make gpu-check turns the rows into a table of hours and one of memory: tables().
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Dict, List

from benchmarks.child import Child
from benchmarks.measuring import ROOT, Row, figure, get_parser, run

PRECISIONS = ("bf16", "tf32", "float32")
PARTS = (1, 2, 4, 8)  # ITER_SIZE: a batch in so many passes
ITERATIONS = 10
RATE = re.compile(r"(\w+), batch (\d+), (\w+): training")
MEMORY = re.compile(r"(\w+), batch (\d+), (\w+): peak memory in passes of (\d+)")


def write_solvers(folder: str, profile, batches) -> Dict[int, str]:
    """Solvers of a profile's step 4 of GNet on random images, one for each batch size."""
    import recipe
    from benchmarks.training import SOLVER, write_images

    net = (ROOT / recipe.net_prototxt(profile.name, "gnet", 4)).read_text()
    images, labels = write_images(folder, profile.stored_size)
    net = re.sub(r'source: "[^"]*_labels"', f'source: "{labels}"', net)
    net = re.sub(r'source: "(?!/)[^"]*"', f'source: "{images}"', net)
    solvers = {}
    for batch in batches:
        definition, solver = Path(folder, f"net{batch}.prototxt"), Path(folder, f"solver{batch}.prototxt")
        definition.write_text(re.sub(r"batch_size: \d+", f"batch_size: {batch}", net))
        solver.write_text(SOLVER.format(net=definition))
        solvers[batch] = str(solver)
    return solvers


# ---- what the children run: see benchmarks/child.py
def train(caffe, solvers, precision, gpu, iterations):
    """[batch, images a second, peak MB allocated on the GPU] of each solver, the largest batch first; null: not measured.

    Only the largest batch is timed. The others run for two iterations, in which their memory reaches its peak.
    """
    from benchmarks.training import engine

    def measure(batch, path, timed):
        step = engine(caffe, path, precision, gpu, iterations if timed else 2)
        peak, images = step(), None  # memory, and a warm-up of the speed
        if timed:
            start = time.perf_counter()
            peak = step()
            images = batch * iterations / (time.perf_counter() - start)
        return [batch, images, peak]

    def call():
        found = []
        for batch in sorted(map(int, solvers), reverse=True):
            found.append(measure(batch, solvers[str(batch)], not found))
            release(gpu)
        return found

    return call


def release(gpu):
    """Free what the last solver has held, and count the peak anew."""
    import gc

    gc.collect()
    if gpu is not None:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(gpu)


def rows(options) -> List[Row]:
    import recipe

    if options.gpu is None and not options.quick:
        return []  # on a CPU the paper's batch takes minutes: see benchmarks/training.py
    profile = recipe.DEMO if options.quick else recipe.PAPER
    precisions = PRECISIONS if options.gpu is not None else ("float32",)
    iterations = 2 if options.quick else ITERATIONS
    found: List[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        solvers = write_solvers(folder, profile, [profile.batch_size // parts for parts in PARTS])
        for precision in precisions:
            with Child("torch", "benchmarks.costs:train", solvers=solvers, precision=precision, gpu=options.gpu,
                       iterations=iterations) as child:  # fmt: skip
                child()
                found += told(profile, precision, child.last["value"], card(options.gpu))
    return found


def told(profile, precision: str, measured, where: str) -> List[Row]:
    """Rows of what train() has measured of one precision, as RATE and MEMORY read them."""
    what = f"{profile.name}, batch {profile.batch_size}, {precision}"
    found = []
    for batch, images, peak in measured:
        if images is not None:
            found.append(figure(f"{what}: training", images, "images/s", note=where))
        if peak is not None:
            found.append(figure(f"{what}: peak memory in passes of {batch}", peak, "MB", note=where))
    return found


def card(gpu) -> str:
    if gpu is None:
        return "CPU"
    import torch

    return torch.cuda.get_device_name(gpu)


# ---- the tables of make gpu-check
def images_of(profile) -> Dict[str, int]:
    """Images that are trained on, forward and backward: of the steps, of all nets' steps, and of the tables."""
    import recipe
    from gender_smile.training import schemes

    def of(rows):
        return sum(row.profile.max_iter[row.step] for row in rows if row.step > 1) * profile.batch_size

    def of_tables(*tables):
        return of(schemes.trainings(schemes.table_rows(profile, tables, profile.random_seed)))

    nets = [schemes.training_scheme(profile, net, (1, 2, 3), profile.random_seed) for net in recipe.PIPELINE_NETS]
    chains = {row.weights_out: row for rows in nets for row in rows}
    steps = {f"step {step}, one net": profile.max_iter[step] * profile.batch_size for step in sorted(profile.max_iter)}
    return {**steps, f"all {sum(row.step > 1 for row in chains.values())} trainings of the three nets": of(chains.values()),
            "Table 2": of_tables(2), "Table 3": of_tables(3), "both tables, what they share counted once": of_tables(2, 3)}


def tables(rows: List[Row]) -> str:
    """Markdown: hours of training and memory in each precision, on the card that the rows name; "" without rows."""
    import recipe

    rates = [(match, row) for row in rows if (match := RATE.fullmatch(row.what))]
    if not rates:
        return ""
    profile = recipe.PROFILES[rates[0][0][1]]
    speed = {match[3]: row.ours for match, row in rates}
    names = [name for name in reversed(PRECISIONS) if name in speed]
    lines = [f"\n## Costs of the {profile.name} profile's run\n",
             f"Hours on one {rates[0][1].note}, from the images a second of {ITERATIONS} iterations at batch {rates[0][0][2]}. "
             "Validation, snapshots and starts come on top.\n",
             f"| what | million images | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]  # fmt: skip
    lines.append(f"| images a second | | {' | '.join(f'{speed[name]:,.0f}' for name in names)} |")
    for what, images in images_of(profile).items():
        hours = " | ".join(f"{images / speed[name] / 3600:.3g}" for name in names)
        lines.append(f"| {what} | {images / 1e6:.3g} | {hours} |")
    memory: Dict[int, Dict[str, float]] = {}
    for row in rows:
        if match := MEMORY.fullmatch(row.what):
            memory.setdefault(int(match[4]), {})[match[3]] = row.ours
    if memory:
        lines += ["\nPeak memory that PyTorch allocates on the card, in MB (2^20 bytes); the driver takes some hundred more.\n",
                  f"| `ITER_SIZE` | images a pass | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]  # fmt: skip
        for batch in sorted(memory, reverse=True):
            cells = " | ".join(f"{memory[batch][name]:,.0f}" if name in memory[batch] else "" for name in names)
            lines.append(f"| {profile.batch_size // batch} | {batch} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = get_parser(__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the demo's net, few iterations: does it work?")
    raise SystemExit(run(__doc__, rows, parser.parse_args()))
