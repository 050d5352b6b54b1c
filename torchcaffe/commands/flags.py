"""Command-line flags as gflags reads them: -f v, --f v, -f=v, --f=v; --flag and --noflag for switches."""

from __future__ import annotations

from types import SimpleNamespace

from torchcaffe.core.names import suggestion

# glog's own, which every one of Caffe's programs takes
_GLOG = {
    "log_dir": ("", "also write the log to files in this folder"),
    "minloglevel": (0, "0: all lines, 1: warnings and errors, 2: errors"),
    "stderrthreshold": (0, "lines of this level and above go to stderr"),
    "logtostderr": (True, "as in glog; the log always goes to stderr"),
    "alsologtostderr": (True, "as in glog; the log always goes to stderr"),
    "v": (0, "as in glog; there are no verbose lines"),
}


class UsageError(Exception):
    """A command line that cannot be understood; the message is for the user."""


def parse(words, flags):
    """(values as attributes, list of the other words) of a command line.

    Args:
        words: the command line without the program's name.
        flags: {name: (default, help)}; the default's type (bool, int, str) is the flag's.
    Raises:
        UsageError: unknown flag, missing or ill-formed value.
    """
    known = {**_GLOG, **flags}
    values = {name: default for name, (default, _) in known.items()}
    given, others, words = set(), [], list(words)
    while words:
        word = words.pop(0)
        if word == "--":
            others += words
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, equals, text = word.lstrip("-").partition("=")
        negated = name.startswith("no") and name not in known and isinstance(values.get(name[2:]), bool)
        name = name[2:] if negated else name
        if name not in known:
            raise UsageError(f"unknown command line flag '{name}'; {suggestion(name, sorted(flags), 'the flags are')}")
        if isinstance(known[name][0], bool):
            values[name] = _switch(name, text) if equals else not negated
        elif not equals and not words:
            raise UsageError(f"flag '-{name}' is missing its value")
        else:
            values[name] = _value(name, known[name][0], text if equals else words.pop(0))
        given.add(name)
    _set_log(values, given)
    return SimpleNamespace(**values), others


def _switch(name, text):
    if text.lower() in ("1", "t", "true", "y", "yes"):
        return True
    if text.lower() in ("0", "f", "false", "n", "no"):
        return False
    raise UsageError(f"flag '-{name}' is true or false, not '{text}'")


def _value(name, default, text):
    if not isinstance(default, int):
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"flag '-{name}' takes a whole number, not '{text}'") from None


def _set_log(values, given):
    from torchcaffe.core.log import Settings

    for name in ("log_dir", "minloglevel", "stderrthreshold"):
        if name in given:
            setattr(Settings, name, values[name])


def describe(flags) -> str:
    """The flags with their defaults, a line each."""
    return "\n".join(f"  -{name:<15} {text} (default: {default!r})" for name, (default, text) in flags.items())
