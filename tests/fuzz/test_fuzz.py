"""Every reader on its kept cases and on files broken by plain mutation, within bounds of time and memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_mutation import mutations
from fuzz_target import CASES, MEMORY, Target, attempt, signature

RUN = Path(__file__).with_name("run.py")
RUNS = 60  # inputs a target; `make fuzz` has the time for more


@pytest.mark.slow
def test_broken_files_get_an_error_and_nothing_else(root):
    """In a process of its own: an input may take 10 s and 512 MB, and a crash would end it."""
    done = subprocess.run(
        [sys.executable, str(RUN), "--plain", "--runs", str(RUNS)], cwd=root, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ran = {line.split(":")[0] for line in done.stdout.splitlines() if " inputs in " in line}
    listed = subprocess.run([sys.executable, str(RUN), "--list"], capture_output=True, text=True)
    assert ran == set(listed.stdout.split()) and {path.name for path in CASES.iterdir()} <= ran


def test_what_is_a_finding(tmp_path):
    def read(data, folder):
        {b"refused": refuse, b"silent": lambda: refuse(""), b"missed": lambda: {}["missed"], b"fine": int}[data]()

    def refuse(text="no weights"):
        raise ValueError(text)

    target = Target("test", read, lambda folder: [], (ValueError,))
    assert attempt(target, b"fine", tmp_path) is None and attempt(target, b"refused", tmp_path) is None
    assert isinstance(attempt(target, b"silent", tmp_path), AssertionError)  # an error without a message
    missed = attempt(target, b"missed", tmp_path)
    assert isinstance(missed, KeyError) and signature(missed).startswith("KeyError-test_fuzz-")


def child(code, root):
    """(exit status, what was printed) of Python code with run.py imported."""
    code = f"import sys; sys.path.insert(0, {str(RUN.parent)!r}); import run\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_bounds_hold(root, tmp_path):
    code = f"run.limit_memory(); bytearray({MEMORY // 2}); bytearray({MEMORY * 2})"
    status, said = child(code, root)
    assert status == 1 and "MemoryError" in said
    code = f"""run.SECONDS = 1; run.WORK = run.Path({str(tmp_path)!r})
run.TARGETS["slow"] = run.Target("slow", lambda data, folder: data and run.time.sleep(60), lambda folder: [b""], ())
sys.exit(run.plain(["slow"], 5, 1))"""
    status, said = child(code, root)
    assert status == 1 and "Timeout" in said and list(tmp_path.glob("input-*"))


def test_mutations_are_the_same_for_the_same_seed():
    seeds, tokens = [b"layer { name: 'a' }", bytes(range(50))], [b"type:"]
    first, again, other = (
        [next(found) for _ in range(200)]
        for found in (mutations(seeds, tokens, 1), mutations(seeds, tokens, 1), mutations(seeds, tokens, 2))
    )
    assert first == again != other and len(set(first)) > 150
