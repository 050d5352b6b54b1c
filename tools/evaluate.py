"""Score the trained nets on the validation faces of FotW, each task by the mean of its nets (section 4, Table 3).

    python tools/evaluate.py --profile demo                    # the faces of the LMDBs: the paper's training phase
    python tools/evaluate.py --profile demo --photos FOTW      # whole photos, face nearest the center: testing phase
    python tools/evaluate.py --photos FOTW --submission my.csv # the same, and the challenge's CSV
    python tools/evaluate.py --photos FOTW --score my.csv      # score such a CSV, whatever wrote it; runs no net
    python tools/evaluate.py --profile demo --attributes       # step 2 on CelebA's test partition, forty attributes

The first two write runs/<profile>/results.json (accuracies), evaluation.json (all metrics) and evaluation.csv (a row per
face: docs/evaluation.md), the second with _photos in the names. The first also scores the recipe's other nets that are
trained, each alone. Photos without a face are listed; they count as wrong with --photos only. Exit status: 0 done, 1
scores that cannot be trusted (an LMDB's faces are not its manifest's), 2 wrong use or a missing input.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import sys

import recipe
from common.options import add_engine, add_profile, variant
from common import command


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profile(parser)
    data_set, attributes = recipe.target(), recipe.DATASETS[recipe.STEPS[2].dataset or ""]
    parser.add_argument("--photos", metavar=data_set.variable, help=f"{data_set.title}'s folder: the whole pipeline on its "
                        "validation photos")
    parser.add_argument("--submission", metavar="FILE", help="with --photos: also write the challenge's CSV")
    parser.add_argument("--score", metavar="FILE", help="with --photos: score this CSV of the challenge's form instead")
    parser.add_argument("--attributes", nargs="*", choices=recipe.CROPS, metavar="SCHEME", help="score step 2 on the forty "
                        f"attributes of {attributes.title}'s test partition instead (default: every scheme that has weights)")
    parser.add_argument("--variant", type=variant, default="", metavar="NAME", help="score the trainings of this "
                        "name (tools/train.py, tools/tables.py), into files with -NAME, instead of the chain's own")
    add_engine(parser)
    return parser


def main(argv=None) -> int:
    parser = get_parser()
    options = parser.parse_args(argv)
    check_mode(parser, options)
    from lmdb_builders.errors import BuildError
    from gender_smile.inference.classifier import PipelineError

    return command.run("evaluate.py", lambda: evaluate(options), PipelineError, BuildError,
                       writes=[recipe.absolute(f"runs/{options.profile}/evaluation.json"),
                               *([options.submission] if options.submission else ())])


def check_mode(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with status 2 where options of two modes are given, or one that this mode does not read."""
    given = {"--" + name for name in ("photos", "submission", "score", "variant", "gpu")
             if getattr(options, name) not in (None, "")}
    if options.attributes is not None:
        for option in ("--photos", "--submission", "--score"):
            if option in given:
                parser.error(f"--attributes (ATTRIBUTES=1) scores step 2 on LMDBs, {option} is of another evaluation: one at "
                             "a time")
    if "--photos" not in given:
        for option in ("--submission", "--score"):
            if option in given:
                parser.error(f"{option} needs --photos FOTW (PHOTOS=), the folder with FotW's tables")
    if {"--submission", "--score"} <= given:
        parser.error("--submission writes a file and --score reads one: one at a time")
    for option in ("--variant", "--gpu") if "--score" in given else ():
        if option in given:
            parser.error(f"--score runs no net: leave out {option}")


def evaluate(options: argparse.Namespace) -> int:
    """Do what the command line asks for; the exit status."""
    from gender_smile.evaluation.faces import EvaluationError

    try:
        if options.score:
            score_submission(options)
        elif options.attributes is not None:
            score_attributes(options)
        else:
            score_nets(options)
    except EvaluationError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    return 0


def score_nets(options: argparse.Namespace) -> None:
    """Print and write the metrics of the step-4 nets."""
    from gender_smile.evaluation import challenge, faces, report

    where = (options.engine, options.gpu, options.variant)
    evaluation = (faces.evaluate_photos(options.profile, options.photos, *where) if options.photos
                  else faces.evaluate_faces(options.profile, *where))
    metrics = evaluation.metrics()
    paths = report.write(evaluation, metrics)
    print(report.as_text(evaluation, metrics))
    if options.submission:
        count = challenge.write(options.submission, evaluation.predictions)
        print(f"{options.submission}: {count:,} of {len(evaluation.predictions):,} photos")
    print("written: " + ", ".join(paths))


def score_submission(options: argparse.Namespace) -> None:
    """Print the metrics of a file in the challenge's form."""
    from lmdb_builders.fotw import read_fotw
    from gender_smile.evaluation import challenge

    print(challenge.describe(challenge.score(challenge.read(options.score), read_fotw(options.photos, ("val",)))))


def score_attributes(options: argparse.Namespace) -> None:
    """Print and write step 2's accuracies on the test partition."""
    from gender_smile.evaluation import attributes
    from gender_smile.inference.classifier import load_engine

    profile = recipe.PROFILES[options.profile]
    crops = options.attributes or attributes.trained(profile, options.variant)
    caffe = load_engine(options.engine, options.gpu)
    for crop in crops:
        rows = attributes.score(caffe, profile, crop, variant=options.variant)
        print(attributes.as_text(rows, profile.name, crop))
        print(f"written: {attributes.write(rows, profile.name, crop, options.variant)}\n")


if __name__ == "__main__":
    raise SystemExit(main())
