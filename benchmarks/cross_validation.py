"""Cross-validate a profile: train its whole chain once a fold, and answer each photo by the nets that never saw it.

    python -m benchmarks.cross_validation --celeba CELEBA --fotw FOTW --profile small --folds 3
    python -m benchmarks.cross_validation --celeba CELEBA --fotw FOTW --profile small --folds 3 --without-step1

All faces of all splits are dealt into folds, evenly by gender and smile. For each fold a copy of the project
(runs/PROFILE/folds/) gets the fold's faces as validation faces and the others for training, and runs the user's
commands: LMDBs, embeddings, steps 1 to 4, and the whole pipeline on the fold's photos. A fold's probabilities are
calibrated on the other folds' answers. Prints Markdown tables (docs/results.md has one) and writes
runs/PROFILE/cross_validation.csv, a row a face. Typed again, it resumes. --without-step1 also trains GNet from random
weights instead. Exit status: 0 done, 1 a training failed, 2 wrong use or a missing input, 130 stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

import recipe
from common import command, files
from common.options import add_profile, positive

if TYPE_CHECKING:
    from benchmarks.groups import Row
    from gender_smile.training import chain

SEED = 2016  # of the dealing
CERTAIN = (1e-7, 1 - 1e-7)  # limits of probabilities whose logarithm is taken
MADE = "folds.json"  # in a fold's project: of which data sets it was made; written last
WITHOUT = "without1"  # the variant that starts from random weights


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", required=True, metavar="FOLDER", help="CelebA, in the wild")
    parser.add_argument("--fotw", required=True, metavar="FOLDER", help="FotW")
    add_profile(parser)
    parser.add_argument("--folds", type=positive, default=3, help="default: %(default)s")
    parser.add_argument("--jobs", type=positive, default=2, help="trainings at a time (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16", help="of training (default: %(default)s)")
    parser.add_argument("--without-step1", action="store_true", help="train GNet from random weights, too")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = get_parser()
    options = parser.parse_args(argv)
    if options.folds < 2:
        parser.error("--folds is a number from 2 on")
    from gender_smile.inference.classifier import PipelineError
    from gender_smile.training import workers
    from lmdb_builders.errors import BuildError

    target = recipe.absolute(f"runs/{options.profile}/cross_validation.csv")
    try:
        return command.run("cross_validation", lambda: validate(options, target), BuildError, PipelineError, writes=[target])
    except workers.TrainingError as error:
        print(f"cross_validation: {error}", file=sys.stderr)
        return 1
    except workers.Interrupted:
        print("cross_validation: stopped; the same command resumes", file=sys.stderr)
        return 130


def validate(options: argparse.Namespace, target: str) -> int:
    """Train all folds and print what they are worth; the exit status."""
    from gender_smile.training import workers

    profile = recipe.PROFILES[options.profile]
    projects = make_folds(options)
    for project in projects:
        make_data(project, options.profile)
    rows = [row for number, project in enumerate(projects) for row in trainings(profile, project, number, options)]
    print(f"{len(rows)} trainings, finished ones included; {options.jobs} at a time", flush=True)
    workers.train(sorted(rows, key=lambda row: (bool(row.variant), row.step)), options.jobs, (),
                  lambda line: print(line, flush=True))
    answers = [answer(project, options.profile) for project in projects]
    after = answers
    for task in recipe.TASKS:
        after = calibrated(after, task)
    print(report(answers, after))
    if options.without_step1:
        print(f"\n{report_without(projects, options.profile)}")
    write(after, target)
    print(f"written: {os.path.relpath(target, recipe.ROOT)}")
    return 0


def make_folds(options: argparse.Namespace) -> List[Path]:
    """A copy of the project by links for each fold, with the fold's data sets; those that are there stay.

    Raises BuildError for missing files, and where folds of other data sets are there.
    """
    from benchmarks import folds, project
    from lmdb_builders.errors import BuildError

    celeba, fotw, columns = folds.read_all(options.celeba, options.fotw)
    deals = [folds.deal(data_set.records, places, options.folds, SEED) for data_set, places in zip((celeba, fotw), columns)]
    made = []
    for number in range(options.folds):
        place = Path(recipe.absolute(f"runs/{options.profile}/folds/{number + 1}of{options.folds}"))
        made.append(place)
        asked = {name: os.path.abspath(getattr(options, name)) for name in recipe.DATASETS}
        there = files.read_json(str(place / MADE))
        if there is not None:
            if there != asked:
                raise BuildError(f"{place} was made from {', '.join(there.values())}: remove it to make folds of other photos")
            continue
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        project.link(place)
        folds.write_celeba(celeba, deals[0], number, place / "CelebA")
        folds.write_fotw(fotw, deals[1], number, place / "FotW")
        files.write_json(str(place / MADE), asked)
    return made


def make_data(place: Path, profile: str) -> None:
    """The fold's LMDBs, and its teacher's embeddings, of which the project's own are not asked for again."""
    kept = place / "data" / profile / "detections"
    kept.mkdir(parents=True, exist_ok=True)
    for path in Path(recipe.absolute(f"data/{profile}/detections")).glob("*_embeddings.npz"):
        if not (kept / path.name).exists():
            shutil.copy(path, kept)
    run(place, "-m", "lmdb_builders.build", "--profile", profile, *data_sets(place))
    if recipe.PROFILES[profile].teacher:
        run(place, "-m", "lmdb_builders.embeddings", "--profile", profile)


def data_sets(place: Path) -> List[str]:
    """The fold's, as options."""
    return ["--celeba", str(place / "CelebA"), "--fotw", str(place / "FotW")]


def run(place: Path, *words: str) -> None:
    """Run a command of the fold's project. Raises TrainingError where it fails, which it has said itself."""
    from gender_smile.training.workers import TrainingError

    if subprocess.run([sys.executable, *words], cwd=place).returncode:
        raise TrainingError(f"{' '.join(words[:2])} failed in {place}")


def trainings(profile: recipe.Profile, place: Path, number: int, options: argparse.Namespace) -> "List[chain.Row]":
    """The fold's chain, from a seed of its own; and GNet's from random weights, where that is asked for."""
    from gender_smile.training import chain

    root, seed = str(place), profile.random_seed + number
    rows = chain.rows(profile, recipe.PIPELINE_NETS, (1, 2, 3, 4), root=root, precision=options.precision, seed=seed)
    if options.without_step1:
        start = recipe.stand_in(profile.name)
        for step in (2, 3, 4):
            rows.append(chain.Row(profile, "gnet", step, root=root, precision=options.precision, seed=seed,
                                  variant=WITHOUT, start=start, after=WITHOUT))
            start = rows[-1].weights_out
    return rows


def answer(place: Path, profile: str) -> "List[Row]":
    """The whole pipeline's answers to the fold's photos."""
    from benchmarks import groups

    path = place / "runs" / profile / "groups.csv"
    if not path.exists():
        run(place, "benchmarks/groups.py", "--profile", profile, *data_sets(place))
    return groups.read(str(path))


def calibrated(answers: "List[List[Row]]", task: str) -> "List[List[Row]]":
    """The folds' rows, a task's probabilities calibrated on the other folds' answers (evaluation/calibration.py)."""
    import numpy as np
    from scipy.special import expit, logit

    from gender_smile.evaluation.calibration import fit

    name = f"{task}_probability"
    changed = []
    for number, rows in enumerate(answers):
        labels, p_positive = known([row for other, fold in enumerate(answers) if other != number for row in fold], task)
        temperature, shift = fit(logit(np.clip([p_positive], *CERTAIN)), np.array(labels))
        given = [getattr(row, name) for row in rows]
        p_new = [None if p is None else float(expit(logit(np.clip(p, *CERTAIN)) / temperature + shift)) for p in given]
        changed.append([replace(row, **{name: p}) for row, p in zip(rows, p_new)])
    return changed


def known(rows: "Sequence[Row]", task: str) -> "Tuple[List[int], List[float]]":
    """Labels and probabilities of class 1, of the rows that have both."""
    pairs = [(getattr(row, task), getattr(row, f"{task}_probability")) for row in rows]
    labels, p_positive = zip(*(pair for pair in pairs if None not in pair))
    return list(labels), list(p_positive)


def report(before: "List[List[Row]]", after: "List[List[Row]]") -> str:
    """What the folds are worth, in Markdown, before and after calibration."""
    import statistics

    from benchmarks import groups
    from gender_smile.evaluation import scores

    lines = ["| fold | photos | gender | smile | gender, before calibration | smile, before |", "|---|---|---|---|---|---|"]
    for number, parts in enumerate(zip(after, before), start=1):
        cells = [f"{100 * accuracy(part, task):.2f} %" for part in parts for task in recipe.TASKS]
        lines.append(f"| {number} | {len(parts[0])} | " + " | ".join(cells) + " |")
    every = [row for fold in after for row in fold]
    cells = [groups.share(row.right(task) for fold in part for row in fold) for part in (after, before) for task in recipe.TASKS]
    lines += [f"| **all** | {len(every)} | " + " | ".join(cells) + " |", ""]
    for task in recipe.TASKS:
        spread = statistics.stdev(100 * accuracy(fold, task) for fold in after)
        found = scores.calibration(*known(every, task))
        lines += [f"{task}: standard deviation of the folds {spread:.2f} points; ECE {found['ece']:.3f}", ""]
    return "\n".join([*lines, groups.table(every)])


def accuracy(rows: "Sequence[Row]", task: str) -> float:
    """Share of the rows with a label that are right; a face that was not found is not."""
    right = [row.right(task) for row in rows if row.right(task) is not None]
    return sum(map(bool, right)) / len(right)


def report_without(places: Sequence[Path], profile: str) -> str:
    """GNet of each fold's chain beside that from random weights, on the same faces of the LMDBs, before calibration."""
    from gender_smile.evaluation import scores
    from gender_smile.evaluation.faces import answer_lmdb
    from gender_smile.inference.classifier import Classifier, load_engine

    caffe, weights = load_engine(), recipe.step_weights(profile, "gnet", 4)
    right: Dict[str, List[bool]] = {"": [], f"-{WITHOUT}": []}
    lines = ["| fold | faces | GNet with all steps | from random weights instead of step 1 |", "|---|---|---|---|"]
    for number, place in enumerate(places, start=1):
        shares, faces = [], 0
        for variant in right:
            stem, suffix = os.path.splitext(weights)
            classifier = Classifier(caffe, profile, "gnet", str(place / f"{stem}{variant}{suffix}"))
            folder = place / recipe.lmdb_folder(profile, recipe.NETS["gnet"].crop)
            found: List[bool] = []
            for data_set in recipe.DATASETS.values():
                labels, p_positive = answer_lmdb(classifier, str(folder / data_set.database("val")))
                found += scores.right_answers(labels, p_positive).values()
            right[variant] += found
            shares.append(f"{100 * sum(found) / len(found):.2f} %")
            faces = len(found)
        lines.append(f"| {number} | {faces} | {shares[0]} | {shares[1]} |")
    shares = [f"{100 * sum(found) / len(found):.2f} %" for found in right.values()]
    test = scores.mcnemar(*right.values())
    return "\n".join([*lines, f"| **all** | {len(right[''])} | {shares[0]} | {shares[1]} |", "", f"McNemar's test: {test}"])


def write(answers: "List[List[Row]]", path: str) -> None:
    """Every row of all folds as CSV."""
    names = list(answers[0][0].__dataclass_fields__)
    rows = ([number, *(getattr(row, name) for name in names)] for number, fold in enumerate(answers, start=1) for row in fold)
    files.write_csv(path, ["fold", *names], rows)


if __name__ == "__main__":
    raise SystemExit(main())
