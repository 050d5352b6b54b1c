"""How commands end: one line instead of a traceback, and the status that is documented."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from common import command


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


def test_the_status_of_the_work_is_returned(capsys):
    assert [command.run("tool", lambda: status) for status in (0, 1, 3)] == [0, 1, 3]
    assert capsys.readouterr().err == ""


def test_mistakes_are_a_line_and_faults_go_on(capsys):
    assert command.run("tool", raising(KeyError("a")), LookupError, status=1) == 1
    assert command.run("tool", raising(PermissionError(13, "Permission denied", "/x"))) == 2
    assert command.run("tool", raising(OSError("what to do"))) == 2
    assert capsys.readouterr().err == "tool: 'a'\ntool: /x: Permission denied\ntool: what to do\n"
    with pytest.raises(KeyError):
        command.run("tool", raising(KeyError("a")), ValueError)


def test_ctrl_c(capsys):
    assert command.run("tool", raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""
    assert command.run("tool", raising(KeyboardInterrupt()), stopped="go on with make") == 130
    assert capsys.readouterr().err == "\ntool: go on with make\n"


BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}  # what is printed waits, and fails when the process ends


def script(root, work: str) -> list:
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); from common import command\n"
                                  f"sys.exit(command.run('tool', lambda: {work}))"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_below_stdout_is_one_line(root):
    with open("/dev/full", "w") as full:
        done = subprocess.run(script(root, "print('answer') or 0"), stdout=full, stderr=subprocess.PIPE, text=True,
                              env=BUFFERED)
    assert (done.returncode, done.stderr) == (2, "tool: No space left on device\n")


def test_a_reader_that_goes_away_and_streams_that_are_closed(root):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(script(root, "print('answer') or 0"), stdout=write, stderr=subprocess.PIPE, text=True,
                          env=BUFFERED)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *script(root, "print('answer', sys.stdout.isatty(), sys.stderr.isatty()) or 4")]
    assert subprocess.run(shell).returncode == 4


def test_words_that_the_terminals_encoding_lacks_are_escaped(root):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(script(root, "print('\u7b11.png') or 0"), capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "\\u7b11.png\n")


WORK = {"tools.predict": "answer", "tools.export": "export_all", "benchmarks.groups": "measure",
        "benchmarks.heatmap_parts": "explain_all", "tools.weights": "take", "tools.draw_faces": "draw"}  # command: what it does


@pytest.mark.parametrize("tool", WORK)
def test_ctrl_c_in_every_tool(root, tool, tmp_path):
    """A tool whose work waits is interrupted: no traceback, status 130."""
    arguments = {"tools.predict": ["a.jpg"], "benchmarks.groups": ["--fotw", "."]}.get(tool, [])
    code = (f"import sys, time; sys.path.insert(0, {str(root)!r})\n"
            f"import {tool} as tool\n"
            f"tool.{WORK[tool]} = lambda *arguments: print('ready', flush=True) or time.sleep(60)\n"
            f"sys.exit(tool.main({arguments!r}))")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=tmp_path)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)  # into the sleep
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in errors


LASTING = """
import os, sys, time
sys.path.insert(0, {root!r})
from common import command
from common.progress import Progress
def work():
    print("ready", flush=True)
    import warnings
    while not os.path.exists({mark!r} + ".go"):  # until the terminal has gone
        time.sleep(0.02)
    for second in range(3):  # more than a buffer holds
        print("x" * 10000, flush=True)
        print("y" * 10000, file=sys.stderr)
        warnings.warn(f"warning {{second}}")
    progress = Progress("step", 3)
    progress.step(1, 0.5)
    progress.test(2, 0.5, 0.5)
    progress.say("a word")
    progress.close()
    bar.test(2, 0.5, 0.5)
    bar.say("a word")
    bar.close()
    with open({mark!r}, "w") as stream:
        stream.write("done")
    return 7
bar = None
def whole():
    global bar
    bar = Progress("step", 3)
    return work()
sys.exit(command.run("tool", whole, writes=()))
"""


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_a_command_that_writes_files_outlives_its_terminal_and_its_reader(root, tmp_path, where):
    mark = str(tmp_path / "mark")
    ours, theirs = pty.openpty() if where == "terminal" else os.pipe()
    options = {"preexec_fn": lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0)} if where == "terminal" else {}
    process = subprocess.Popen([sys.executable, "-c", LASTING.format(root=str(root), mark=mark)], stdin=subprocess.DEVNULL,
                               stdout=theirs, stderr=theirs, start_new_session=True, **options)
    os.close(theirs)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(ours, 1 << 16)
    os.close(ours)  # SIGHUP, and EIO or EPIPE at every print
    with open(mark + ".go", "w"):
        pass
    assert process.wait(timeout=60) == 7
    assert open(mark).read() == "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_clusters_send_stops_a_command_that_writes_files(number):
    def work() -> int:
        os.kill(os.getpid(), number)
        time.sleep(60)
        return 0

    before = signal.getsignal(number)
    assert command.run("tool", work, writes=()) == 130
    assert signal.getsignal(number) is before


def test_targets_are_tried_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "kept").write_text("kept")
    work = raising(AssertionError("the work has begun"))
    for path, reason in (("file/a.csv", "Not a directory"), ("file/deep/a.csv", "Not a directory"), (".", "Is a directory"),
                         ("n" * 255, "File name too long")):
        assert command.run("tool", work, writes=[str(tmp_path / "kept"), str(tmp_path / path)]) == 2
        assert capsys.readouterr().err == f"tool: {tmp_path / path}: cannot be written: {reason}\n"
    assert command.run("tool", lambda: 0, writes=[str(tmp_path / name) for name in ("kept", "new", "a/b/new")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept"]
    assert (tmp_path / "kept").read_text() == "kept"
