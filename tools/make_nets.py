"""Write prototxt/ and solvers/ from recipe.py: the nets and solvers of every step, and the deploy nets.

    python tools/make_nets.py                     # all profiles, as `make prototxt`
    python tools/make_nets.py --profile paper     # one of them
    python tools/make_nets.py --check             # write nothing; exit 1 and say what differs

Exit status: 0 all files are current, 1 --check found some that are not, 2 wrong use.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import sys

import recipe
from common import command


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_nets.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=list(recipe.PROFILES), help="write this profile only (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    parser.add_argument(
        "--output", metavar="FOLDER", default=recipe.ROOT, help="where prototxt/ and solvers/ go (default: the project)"
    )
    return parser


def main(argv=None) -> int:
    options = get_parser().parse_args(argv)
    return command.run("make_nets", lambda: make(options), writes=())


def make(options: argparse.Namespace) -> int:
    """main's work."""
    from gender_smile.nets import prototxt

    texts = prototxt.generate([recipe.PROFILES[options.profile]] if options.profile else recipe.PROFILES.values())
    stale = prototxt.differences(texts, options.output)
    changed = {path: texts[path] for path, _ in stale if path in texts}
    if not options.check:
        prototxt.write(changed, options.output)
    for path, problem in stale:
        if options.check or path not in texts:
            print(f"{path}: {problem}", file=sys.stderr)
    if options.check:
        print(f"{len(texts)} files, {len(stale)} not current{': type make prototxt' if stale else ''}")
        return 1 if stale else 0
    print(f"{len(texts)} nets and solvers: {len(changed)} written, {len(texts) - len(changed)} were current")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
