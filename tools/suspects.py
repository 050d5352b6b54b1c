"""Rank FotW's training labels by how strongly models that did not see them disagree (section 4, wrong annotations).

    make suspects PROFILE=demo               # writes runs/demo/suspects.html and suspects.csv
    make lmdb CORRECTIONS=corrections.csv PROFILE=demo FOTW=/data/FotW

Open the page, decide with one key a face, press "save": it exports corrections.csv, which make lmdb applies and counts.
Needs LMDBs (make lmdb; more schemes see more) and the extra "labels" (scikit-learn). Nets of step 3 add what they
have learned on CelebA, if they are trained; nets of step 4 have learned the labels in question and are not used.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import functools

import recipe
from common import command
from common.options import add_engine, add_profile, random_seed, share, variant

TOP = 0.06  # share of the labels that the page shows


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_profile(parser)
    parser.add_argument("--top", type=share, default=TOP, metavar="SHARE",
                        help="of the labels on the page (default: %(default)s)")
    parser.add_argument("--variant", type=variant, nargs="+", default=[""], metavar="NAME", help="of the step-3 nets to "
                        "ask, as tools/train.py named them: several seeds see more than one (default: the chain's own)")
    parser.add_argument("--seed", type=random_seed, default=recipe.PAPER.random_seed, help="of the folds (default: %(default)s)")
    add_engine(parser)
    return parser


def main(argv=None) -> int:
    """Return 0 when the page is written, 2 where something is missing."""
    options = get_parser().parse_args(argv)
    from lmdb_builders.errors import BuildError
    from gender_smile.evaluation.suspects import SuspectsError
    from gender_smile.inference.classifier import PipelineError

    return command.run("suspects", lambda: write(options), SuspectsError, PipelineError, BuildError,
                       writes=[recipe.absolute(f"runs/{options.profile}/suspects.{kind}") for kind in ("csv", "html")])


def write(options: argparse.Namespace) -> int:
    """Rank the labels and write the table and the page; the exit status."""
    from gender_smile.evaluation import suspects
    from gender_smile.inference import classifier
    from gender_smile.pages import suspects_page

    suspects.check_libraries()
    load_engine = functools.cache(lambda: classifier.load_engine(options.engine, options.gpu))
    if options.engine == "caffe":
        load_engine()  # refuse now what would be found out after the first features
    profile = recipe.PROFILES[options.profile]
    labels, blocks = {}, {}
    for task in recipe.TASKS:
        labels[task], blocks[task] = suspects.features(profile, task, load_engine, options.variant)
        print(f"{task}: {len(labels[task]):,} training labels, {len(blocks[task])} kinds of features", flush=True)
    ranked = suspects.rank(labels, blocks, options.seed)
    folder = f"runs/{profile.name}"
    suspects.write_csv(recipe.absolute(f"{folder}/suspects.csv"), ranked)
    top = ranked[:max(1, round(options.top * len(ranked)))]
    suspects_page.write(recipe.absolute(f"{folder}/suspects.html"), profile, top, len(ranked))
    print(f"{folder}/suspects.html: {len(top)} of {len(ranked):,} labels, the most suspect first; open it in a browser\n"
          f"{folder}/suspects.csv: all of them")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
