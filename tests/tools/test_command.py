"""How commands end: one line instead of a traceback, and the status that is documented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tools import command


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
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); from tools import command\n"
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


TOOLS = ("predict.py", "export.py", "groups.py", "explain_report.py", "weights.py", "draw_faces.py")


@pytest.mark.parametrize("tool", TOOLS)
def test_ctrl_c_in_every_tool(root, tool, tmp_path):
    """A tool whose work waits is interrupted: no traceback, status 130."""
    work = {"predict.py": "answer", "export.py": "export_all", "groups.py": "measure", "explain_report.py": "explain_all",
            "weights.py": "take", "draw_faces.py": "draw"}[tool]
    arguments = {"predict.py": ["a.jpg"], "groups.py": ["--fotw", "."]}.get(tool, [])
    code = (f"import sys, time; sys.path.insert(0, {str(root)!r})\n"
            f"from tools import {tool[:-3]} as tool\n"
            f"tool.{work} = lambda *arguments: print('ready', flush=True) or time.sleep(60)\n"
            f"sys.exit(tool.main({arguments!r}))")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=tmp_path)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)  # into the sleep
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in errors
