"""One self-contained page about a profile's run: recipe, data, curves, results beside the paper's, mistakes, provenance.

    make report PROFILE=demo                 # writes runs/demo/report.html; opens without network, prints to PDF

Shows what is there: trained steps (weights/<profile>), LMDBs (data/<profile>), and under runs/<profile> what make evaluate,
make table2 and make table3 wrote. Nothing is trained or scored for it, and what is missing is named with its command.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import sys

import recipe
from common import command
from common.options import add_profile


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_profile(parser)
    parser.add_argument("--output", metavar="FILE", help="default: runs/PROFILE/report.html")
    return parser


def main(argv=None) -> int:
    """Return 0 when the page is written, 2 where nothing is there to report or it cannot be written."""
    options = get_parser().parse_args(argv)
    from gender_smile.inference.classifier import PipelineError

    path = options.output or recipe.absolute(f"runs/{options.profile}/report.html")
    return command.run("report", lambda: write(recipe.PROFILES[options.profile], path), PipelineError, writes=[path])


def write(profile: recipe.Profile, path: str) -> int:
    """Write the page; the exit status."""
    from gender_smile.pages import report

    content = report.collect(profile)
    if not content["trainings"] and not content["data"]:
        print(f"report: nothing of profile {profile.name} is there yet: make lmdb, then make step1 to step4", file=sys.stderr)
        return 2
    report.write(path, content)
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB; open it in a browser, print it for a PDF")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
