"""How many wrong labels `make suspects` finds: flips labels at random and counts those among the first of the ranking.

    python benchmarks/label_noise.py --profile demo                  # 3 % flipped, counted in the first 6 %
    python benchmarks/label_noise.py --profile demo --share 0.05 --top 0.1 --variant none seed7

Prints the share found, the mean of three trials (each in brackets); docs/results.md has one. Writes nothing. Exit
status: 0 done, 2 wrong use or a missing input.
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


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_profile(parser)
    parser.add_argument("--share", type=share, default=0.03, help="of the labels that are flipped (default: %(default)s)")
    parser.add_argument("--top", type=share, default=0.06, help="of the ranking that is searched (default: %(default)s)")
    parser.add_argument("--variant", type=variant, nargs="+", default=[""], metavar="NAME", help="as of tools/suspects.py")
    parser.add_argument("--seed", type=random_seed, default=recipe.PAPER.random_seed, help="default: %(default)s")
    add_engine(parser)
    return parser


def main(argv=None) -> int:
    options = get_parser().parse_args(argv)
    from gender_smile.evaluation.suspects import SuspectsError
    from gender_smile.inference.classifier import PipelineError

    return command.run("label_noise", lambda: measure(options), SuspectsError, PipelineError)


def measure(options: argparse.Namespace) -> int:
    from gender_smile.evaluation import suspects
    from gender_smile.inference import classifier

    suspects.check_libraries()
    load_engine = functools.cache(lambda: classifier.load_engine(options.engine, options.gpu))
    labels, blocks = {}, {}
    for task in recipe.TASKS:
        labels[task], blocks[task] = suspects.features(recipe.PROFILES[options.profile], task, load_engine, options.variant)
    trials = suspects.recall_of_injected_noise(labels, blocks, options.share, options.top, options.seed)
    print(f"{100 * options.share:g} % of the labels flipped at random; found among the first {100 * options.top:g} %:")
    for name in trials[0]:
        recalls = [100 * trial[name] for trial in trials]
        print(f"  {name:<7}{sum(recalls) / len(recalls):5.1f} %   ({', '.join(f'{recall:.1f}' for recall in recalls)})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
