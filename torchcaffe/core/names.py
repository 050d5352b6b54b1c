"""Names in messages: short lists, however many names there are, and what a misspelled one may have meant."""

from __future__ import annotations

import difflib
import heapq

from torchcaffe.core.errors import printable

MOST = 8  # names in a message
LONGEST = 200  # characters of a name that is compared; comparing takes quadratic time


def similar(name: str, known, most: int = 3) -> list:
    """Up to `most` of the strings `known` that `name` may be a misspelling or the beginning of, the most similar first.

    Names that differ from it only in upper and lower case leave no doubt, and come alone.
    """
    wanted = name[:LONGEST].casefold()
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
    found, equal = [], []
    for index, one in enumerate(known):
        folded = one[:LONGEST].casefold()
        if folded == wanted:
            equal.append(one)
        matcher.set_seq1(folded)
        begins = len(wanted) > 1 and folded.startswith(wanted)
        if begins or matcher.real_quick_ratio() >= 0.6 and matcher.quick_ratio() >= 0.6 and matcher.ratio() >= 0.6:
            found.append((matcher.ratio(), -index, one))
    return equal[:most] or [one for _, _, one in heapq.nlargest(most, found)]


def listed(known) -> str:
    """"a, b, c": all names, or the first eight and how many more there are; "none" where there are none."""
    known = list(known)
    more = f" and {len(known) - MOST:,} more" if len(known) > MOST else ""
    return (", ".join(known[:MOST]) or "none") + more


def suggestion(name: str, known, otherwise: str = "it has") -> str:
    """"did you mean a or b?", or where no name in `known` is similar: "it has a, b, c"."""
    known = list(known)
    near = similar(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"{otherwise} {listed(known)}"


def counted(number: int, what: str) -> str:
    """"1 layer", "1,234 layers"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def one_line(name: str) -> str:
    """A name from a file as it can stand in a line: line feeds, tabs and control characters escaped."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")
