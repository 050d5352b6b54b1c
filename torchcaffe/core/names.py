"""Names in messages: short lists, however many names there are, with the most similar ones first."""

from __future__ import annotations

import difflib
import heapq

from torchcaffe.core.errors import printable

MOST = 8  # names in a message
LONGEST = 200  # characters of a name that is compared; comparing takes quadratic time


def similar(name: str, known, most: int = 3) -> list:
    """Up to `most` of the strings `known` that `name` may be a misspelling of, the most similar first."""
    matcher = difflib.SequenceMatcher(b=name[:LONGEST].casefold(), autojunk=False)
    found = []
    for one in known:
        matcher.set_seq1(one[:LONGEST].casefold())
        if matcher.real_quick_ratio() >= 0.6 and matcher.quick_ratio() >= 0.6 and matcher.ratio() >= 0.6:
            found.append((matcher.ratio(), one))
    return [one for _, one in heapq.nlargest(most, found)]


def listed(known) -> str:
    """"a, b, c": all names, or the first eight and how many more there are; "none" where there are none."""
    known = list(known)
    more = f" and {len(known) - MOST:,} more" if len(known) > MOST else ""
    return (", ".join(known[:MOST]) or "none") + more


def nearest(name: str, known) -> str:
    """As listed, but of more than eight names those similar to `name`, where there are any."""
    known = list(known)
    near = similar(name, known) if len(known) > MOST else []
    return f"{', '.join(near)} and {len(known) - len(near):,} more" if near else listed(known)


def one_line(name: str) -> str:
    """A name from a file as it can stand in a line: line feeds, tabs and control characters escaped."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")
