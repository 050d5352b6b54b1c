"""Run every benchmark on the CPU, each in a process of its own, and write docs/benchmarks.md: `make bench`.

A GPU is measured by gpu_check.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import ROOT, Row, machine

PAGE = ROOT / "docs" / "benchmarks.md"
COSTS = "\n## Costs of the paper's run\n"  # where the part of the page begins that is written by hand


def benchmarks() -> list[str]:
    """Names of the modules that measure something: those of this folder that define rows()."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\ndef rows(" in path.read_text())


def measure(name) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path)]
        print(f"== {name}", flush=True)
        status = subprocess.run(command, cwd=ROOT).returncode
        if status:
            raise SystemExit(f"benchmarks/{name}.py stopped with {status}")
        return [Row(**row) for row in json.loads(path.read_text())]


def section(name, rows) -> str:
    lines = [f"\n## {title(name)}\n", "| measurement | ours | baseline | ratio | target |", "|---|---|---|---|---|"]
    for row in rows:
        target = "" if row.bar is None else f"{row.bar[0]} {row.bar[1]:g}{'' if row.reached else ', **missed**'}"
        what = f"{row.what}; {row.note}" if row.note else row.what
        ours, other, ratio = f"{row.ours:.4g} {row.unit}", "", ""
        if row.other is not None:
            other, ratio = f"{row.baseline}: {row.other:.4g} {row.unit}", f"{row.ratio:.3g}"
        lines.append(f"| {what} | {ours} | {other} | {ratio} | {target} |")
    return "\n".join(lines) + f"\n\n`python -m benchmarks.{name}`\n"


def written_by_hand(page) -> str:
    """The end of the page, from COSTS on: not measured here, so it stays as it is; "" where the page has none."""
    text = page.read_text() if page.exists() else ""
    return text[text.index(COSTS) :] if COSTS in text else ""


def title(name) -> str:
    """First sentence of the benchmark's docstring."""
    source = (Path(__file__).parent / f"{name}.py").read_text()
    return source.split('"""', 2)[1].strip().splitlines()[0].split(": `")[0].rstrip(".")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=benchmarks(), metavar="NAME", help="only these; no page is written")
    options = parser.parse_args()
    sections = {name: measure(name) for name in options.only or benchmarks()}
    if options.only:
        return 0
    head = (
        "# Benchmarks\n\nOurs and baseline were measured alternately in one run. `make bench` wrote the tables.\n"
        f"\nMachine: {machine()}.\n"
    )
    tables = "".join(section(name, rows) for name, rows in sections.items() if rows)
    PAGE.write_text(head + tables + written_by_hand(PAGE))
    missed = [row.what for rows in sections.values() for row in rows if not row.reached]
    print(f"wrote {PAGE.relative_to(ROOT)}; " + (f"missed: {'; '.join(missed)}" if missed else "every target was reached"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
