"""Feed the project's readers with broken files, by coverage (atheris) or by plain mutation, and keep what comes through.

    make fuzz                                      # every target for a minute
    make fuzz TARGET=weights SECONDS=600
    python tests/fuzz/run.py --plain --runs 200    # without atheris, all targets in one process

A finding is any exception but the reader's documented ones, a crash, more than 10 seconds or more than 512 MB for one
input (of an image, at most 8 megapixels). Findings lie in .fuzz/TARGET/findings, the growing corpus in .fuzz/TARGET/corpus, the account of all runs in
.fuzz/totals.json. A finding is mended in the reader and its file kept in tests/fuzz/cases/TARGET.

Exit status: 0 nothing came through, 1 something did.
"""

from __future__ import annotations

import argparse
import faulthandler
import fcntl
import importlib
import importlib.util
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
WORK = ROOT / ".fuzz"
INSTRUMENTED = ["torchcaffe", "lmdb_builders", "PIL", "google.protobuf.text_format"]

from fuzz_mutation import LIMIT, mutations  # noqa: E402
from fuzz_target import MEGAPIXELS, MEMORY, SECONDS, TARGETS, Target, attempt, cases, signature  # noqa: E402,F401


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="target", help="default: all of them (--list)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--seconds", type=int, default=60, help="for each target, by coverage; default: %(default)s")
    parser.add_argument("--plain", action="store_true", help="mutate without looking at coverage (no atheris needed)")
    parser.add_argument("--runs", type=int, default=100, help="inputs for each target with --plain; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations with --plain; default: %(default)s")
    parser.add_argument("--cover", metavar="TARGET", help=argparse.SUPPRESS)  # the child of one target
    return parser


def main(argv=None) -> int:
    options = get_parser().parse_args(argv)
    os.environ["GLOG_minloglevel"] = "3"
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MEGAPIXELS_LIMIT"] = str(MEGAPIXELS)
    if options.cover:
        return cover(options.cover, options.seconds)
    load_targets()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        print(f"run.py: no target {', '.join(unknown)}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    names = options.targets or list(TARGETS)
    if options.list:
        print("\n".join(names))
        return 0
    if options.plain:
        return plain(names, options.runs, options.seed)
    if importlib.util.find_spec("atheris") is None:
        print("run.py: atheris is not installed: .venv/bin/pip install -c requirements.lock -e '.[fuzz]', or --plain")
        return 2
    return max(start(name, options.seconds) for name in names)


def load_targets(name=None):
    """Import the target modules, which register themselves; given a name, only as far as it takes."""
    for module in ("fuzz_data", "fuzz_engine"):  # the second loads torch
        if name not in TARGETS:
            importlib.import_module(module)


def limit_memory():
    """From here on the process may take MEMORY more address space: what asks for more gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def keep(finding: BaseException, name: str, data: bytes):
    """Store an input with its traceback, once a signature; says so."""
    folder = WORK / name / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / signature(finding)
    if not path.exists():
        path.write_bytes(data)
        trace = "".join(traceback.format_exception(finding))
        path.with_suffix(".txt").write_text(trace, errors="backslashreplace")
        print(f"{name}: FOUND {path.name} ({len(data)} bytes): {finding!r:.300}", flush=True)


# ---- by plain mutation


def plain(names, runs, seed) -> int:
    """The seeds, the kept cases and `runs` mutations of each target, in this process."""
    WORK.mkdir(exist_ok=True)
    current = WORK / f"input-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        prepared = {name: prepare(TARGETS[name], Path(folder)) for name in names}
        found = sum(refused for _, _, refused in prepared.values())
        limit_memory()
        for name, (seeds, work, _) in prepared.items():
            started, endless = time.monotonic(), mutations(seeds, TARGETS[name].tokens, seed)
            inputs = [data for _, data in cases(name)] + list(itertools.islice(endless, runs))
            for data in inputs:
                current.write_bytes(data)  # where the process dies, this is what killed it
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                finding = attempt(TARGETS[name], data, work)
                faulthandler.cancel_dump_traceback_later()
                if finding is not None:
                    found += 1
                    keep(finding, name, data)
            print(f"{name}: {len(inputs)} inputs in {time.monotonic() - started:.1f} s", flush=True)
    current.unlink()
    return 1 if found else 0


def prepare(target, folder: Path):
    """(seeds, folder to work in, findings) of a target, which has run once: what it loads is no input's memory."""
    found = 0
    work = folder / target.name
    work.mkdir()
    (work / "seeds").mkdir()
    seeds = list(target.seeds(work / "seeds"))
    for data in seeds:
        finding = attempt(target, data, work)
        if finding is not None:
            found += 1
            keep(finding, target.name, data)
    return seeds, work, found


# ---- by coverage


def start(name, seconds) -> int:
    """One target in a process of its own, which libFuzzer ends; adds to the account. A second call for it waits."""
    corpus = WORK / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(WORK / name / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = subprocess.run(
            [sys.executable, __file__, "--cover", name, "--seconds", str(seconds)], cwd=ROOT, capture_output=True,
            text=True, errors="replace",
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = re.search(r"Done (\d+) runs in", child.stderr)
    found = [line for line in child.stdout.splitlines() if "FOUND" in line]
    print("\n".join(found), end="\n" if found else "")
    died = child.returncode != 0
    if died:  # a crash, a hang, or an end that libFuzzer did not mean
        print(f"{name}: DIED (status {child.returncode})\n" + child.stderr[-3000:])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    account(name, int(done[1]) if done else 0, spent, len(list(corpus.glob("*"))), len(found) + died)
    return 1 if found or died else 0


def account(name, runs, seconds, corpus, found):
    with open(WORK / "totals.json", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        totals = json.loads(file.read() or "{}")
        entry = totals.setdefault(name, {"inputs": 0, "cpu_seconds": 0.0, "corpus": 0, "findings": 0})
        entry["inputs"] += runs
        entry["cpu_seconds"] = round(entry["cpu_seconds"] + seconds, 1)
        entry["findings"] += found
        entry["corpus"] = corpus
        file.truncate(0)
        file.write(json.dumps(totals, indent=1))
    print(f"{name}: {runs} inputs, {seconds:.0f} s of CPU, corpus {corpus}; in all {entry}", flush=True)


def cover(name, seconds) -> int:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        load_targets(name)
    target, folder = TARGETS[name], WORK / name / "work"
    shutil.rmtree(folder, ignore_errors=True)  # of the last time: libFuzzer ends the process without a word
    folder.mkdir(parents=True)
    seeds, work, _ = prepare(target, folder)
    corpus = WORK / name / "corpus"
    for number, data in enumerate([*seeds, *(data for _, data in cases(name))]):
        (corpus / f"seed-{number:03d}").write_bytes(data)
    words = WORK / name / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in target.tokens))

    def one(data):
        finding = attempt(target, data, work)
        if finding is not None:
            keep(finding, name, data)

    limit_memory()
    arguments = [
        sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-timeout={SECONDS}", "-rss_limit_mb=0",
        f"-max_len={LIMIT}", f"-artifact_prefix={WORK / name}/died-", "-print_final_stats=1", "-verbosity=1",
    ]
    atheris.Setup(arguments + ([f"-dict={words}"] if target.tokens else []), one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
