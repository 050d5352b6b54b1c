"""Find an interpreter that has the project's packages before a tool imports any of them.

A tool calls `ensure()` first. Standard library only, and no syntax newer than Python 3.8, so that an old Python gets a
sentence instead of a SyntaxError.
"""

import importlib.util
import os
import shlex
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST_PYTHON = (3, 10)
PACKAGES = ("numpy", "cv2", "lmdb", "google.protobuf")
ENGINES = ("torch", "caffe")  # one of them is enough
GUARD = "GENDER_SMILE_ENVIRONMENT"  # set before the tool runs itself again: once, never in a circle


def ensure():
    """Return when this interpreter can run the project's tools; else run the same command under `.venv`.

    Without an environment to turn to, prints one line that says what to type and exits with status 2.
    """
    reason = unsuitable()
    if not reason:
        import torchcaffe  # noqa: F401  sets how threads wait, which is read when torch is loaded

        return
    environment = os.path.join(ROOT, ".venv")
    python = os.path.join(environment, "bin", "python")
    inside = os.path.realpath(sys.prefix) == os.path.realpath(environment)
    if os.path.exists(python) and not inside and GUARD not in os.environ:
        os.environ[GUARD] = sys.executable
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execv(python, [python] + _arguments())
        except OSError as error:
            reason = "%s does not start (%s)" % (python, error.strerror)
    sys.stderr.write("%s: %s; type: make -C %s setup\n" % (os.path.basename(sys.argv[0]), reason, _quoted(ROOT)))
    sys.exit(2)


def unsuitable():
    """Why this interpreter cannot run the tools, as a phrase; "" where it can. Imports none of the packages."""
    if sys.version_info < OLDEST_PYTHON:
        return "Python %d.%d or newer is needed, this is %d.%d" % (OLDEST_PYTHON + tuple(sys.version_info[:2]))
    missing = [name for name in PACKAGES if not _installed(name)]
    if not any(_installed(name) for name in ENGINES):
        missing.append(ENGINES[0])
    return "%s lacks %s" % (sys.executable, ", ".join(missing)) if missing else ""


def as_typed(arguments):
    """The running Python with `arguments`, as one types it in the project's folder."""
    inside = sys.executable.startswith(ROOT + os.sep)
    python = os.path.relpath(sys.executable, ROOT) if inside else sys.executable
    return " ".join(shlex.quote(word) for word in [python] + list(arguments))


def _installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent package is missing; a module without a spec
        return False


def _arguments():
    """What followed the interpreter on the command line: its own options (-m, -X ...), the script and the arguments."""
    original = getattr(sys, "orig_argv", None)  # since Python 3.10
    return original[1:] if original else [os.path.abspath(sys.argv[0])] + sys.argv[1:]


def _quoted(path):
    return "'%s'" % path if " " in path else path
