"""Show how far each net's steps are: done, running, stopped or missing, with loss, accuracy and file, variants last.

    make status                                  # both profiles
    python tools/status.py --profile demo --json
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import json

import recipe
from common import command


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=sorted(recipe.PROFILES), help="only this one (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    return parser


def main(argv=None) -> int:
    options = get_parser().parse_args(argv)
    return command.run("status", lambda: show(options))


def show(options: argparse.Namespace) -> int:
    """main's work."""
    from gender_smile.training import status

    names = [options.profile] if options.profile else list(recipe.PROFILES)
    entries = [entry for name in names for entry in status.collect(recipe.PROFILES[name])]
    print(json.dumps(entries, indent=1) if options.json else status.table(entries))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
