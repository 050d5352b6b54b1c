"""Score the trained nets on the validation faces of FotW, each task by the mean of its nets (section 4, Table 3).

    python tools/evaluate.py --profile demo                    # the faces of the LMDBs: the paper's training phase
    python tools/evaluate.py --profile demo --photos FOTW      # whole photos, face nearest the center: testing phase
    python tools/evaluate.py --photos FOTW --submission my.csv # the same, and the challenge's CSV
    python tools/evaluate.py --photos FOTW --score my.csv      # score such a CSV, of whatever made it; runs no net
    python tools/evaluate.py --profile demo --attributes       # step 2 on CelebA's test partition, forty attributes

The first two write runs/<profile>/results.json (accuracies), evaluation.json (all figures) and evaluation.csv (a line a
face: docs/evaluation.md), the second with _photos in the names. The first also scores the recipe's other nets that are
trained, each alone. Faces without an answer count as wrong and are listed. Exit status: 0 done, 1 scores that cannot be
trusted (an LMDB's faces are not its manifest's), 2 wrong use or a missing input.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional

import recipe
from common.options import add_engine, add_profile, positive, variant
from common import command
from gender_smile.evaluation import scores
from gender_smile.evaluation.faces import (
    EvaluationError, check_count, check_same, list_missed, manifest_entry, score_lmdb, validation_lmdb,
)
from gender_smile.evaluation.report import FIGURES, Figures, figures_of, report, write


@dataclass
class Evaluation:
    """What was answered. Every image is in `truths` of the tasks it counts for, answered or not.

    truths: task -> image -> 0 or 1, None where it was not answered and its label is not known; probabilities: name of
    `figures` -> image -> probability of class 1, or None; missed: image -> why it has no answer.
    """

    protocol: str
    suffix: str  # of the files' names
    weights: Dict[str, str]  # net -> its file
    truths: Dict[str, Dict[str, Optional[int]]]
    probabilities: Dict[str, Dict[str, Optional[float]]]
    missed: Dict[str, str] = field(default_factory=dict)
    figures: Figures = field(default_factory=lambda: dict(FIGURES))
    predictions: List[Any] = field(default_factory=list)  # pipeline.Prediction of each photo, in the testing phase


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profile(parser)
    data_set = recipe.target()
    parser.add_argument("--photos", metavar=data_set.variable, help=f"{data_set.title}'s folder: the whole pipeline on its "
                        "validation photos")
    parser.add_argument("--submission", metavar="FILE", help="with --photos: also write the challenge's CSV")
    parser.add_argument("--score", metavar="FILE", help="with --photos: score this CSV of the challenge's form instead")
    parser.add_argument("--attributes", nargs="*", choices=recipe.CROPS, metavar="SCHEME", help="score step 2 on the forty "
                        f"attributes of {recipe.DATASETS[recipe.STEPS[2].dataset].title}'s test partition instead (default: "
                        "every scheme that has weights)")
    parser.add_argument("--variant", type=variant, default="", metavar="NAME", help="score the trainings of this "
                        "name (tools/train.py, tools/tables.py), into files with -NAME, instead of the chain's own")
    add_engine(parser)
    parser.add_argument("--batch", type=positive, metavar="FACES", help="faces at a time (default: as in testing)")
    return parser


def main(argv=None) -> int:
    parser = get_parser()
    arguments = parser.parse_args(argv)
    check_mode(parser, arguments)
    from lmdb_builders.errors import BuildError
    from gender_smile.inference.pipeline import PipelineError

    return command.run("evaluate.py", lambda: evaluate(arguments), PipelineError, BuildError,
                       writes=[recipe.absolute(f"runs/{arguments.profile}/evaluation.json"),
                               *([arguments.submission] if arguments.submission else ())])


def check_mode(parser: argparse.ArgumentParser, arguments) -> None:
    """Exit with status 2 where options of two modes are given, or one that this mode does not read."""
    given = {"--" + name: getattr(arguments, name) for name in ("photos", "submission", "score", "variant", "batch", "gpu")}
    given = {option: value for option, value in given.items() if value not in (None, "")}
    if arguments.attributes is not None:
        for option in ("--photos", "--submission", "--score"):
            if option in given:
                parser.error(f"--attributes (ATTRIBUTES=1) scores step 2 on LMDBs, {option} is of another evaluation: one at "
                             "a time")
    if "--photos" not in given:
        for option in ("--submission", "--score"):
            if option in given:
                parser.error(f"{option} needs --photos FOTW (PHOTOS=), the folder with FotW's tables")
    if "--submission" in given and "--score" in given:
        parser.error("--submission writes a file and --score reads one: one at a time")
    for option in ("--variant", "--batch", "--gpu") if "--score" in given else ():
        if option in given:
            parser.error(f"--score runs no net: leave out {option}")
    if "--photos" in given and "--batch" in given:
        parser.error("--batch is of LMDBs' faces: leave it out with --photos, where the pipeline batches by itself")


def evaluate(arguments) -> int:
    """Do what the command line asks for; the exit status."""
    try:
        if arguments.score:
            score_submission(arguments)
        elif arguments.attributes is not None:
            score_attributes(arguments)
        else:
            publish(evaluate_photos(arguments) if arguments.photos else evaluate_faces(arguments), arguments)
    except EvaluationError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    return 0


def publish(evaluation: Evaluation, arguments) -> None:
    """Print the figures and write the files."""
    truths, probabilities = evaluation.truths, evaluation.probabilities
    figures = {name: scores.score(truths[task], probabilities[name]) for name, (task, _) in evaluation.figures.items()}
    challenge = scores.challenge_error(tuple(truths.values()), tuple(probabilities[task] for task in truths))
    paths = write(arguments.profile, evaluation, figures, challenge)
    print(report(arguments.profile, evaluation, figures, challenge))
    if arguments.submission:
        from gender_smile.evaluation import submission

        count = submission.write(arguments.submission, evaluation.predictions)
        print(f"{arguments.submission}: {count:,} of {len(evaluation.predictions):,} photos")
    print("written: " + ", ".join(paths))


def score_submission(arguments) -> None:
    """Print the figures of a file in the challenge's form."""
    from lmdb_builders.fotw import read_fotw
    from gender_smile.evaluation import submission

    dataset = read_fotw(arguments.photos, ("val",))
    print(submission.describe(submission.score(submission.read(arguments.score), dataset)))


def score_attributes(arguments) -> None:
    """Print and write step 2's accuracies on the test partition."""
    from gender_smile.evaluation import attributes
    from gender_smile.inference.pipeline import PipelineError, load_engine

    profile = recipe.PROFILES[arguments.profile]
    variant = arguments.variant
    crops = arguments.attributes or attributes.trained(profile, variant)
    if not crops:
        raise PipelineError(f"no step 2 of profile {profile.name} is trained: make step2 PROFILE={profile.name}")
    caffe = load_engine(arguments.engine, arguments.gpu)
    for crop in crops:
        rows = attributes.score(caffe, profile, crop, batch=arguments.batch or 0, variant=variant)
        print(attributes.table(rows, profile.name, crop))
        print(f"written: {attributes.write(rows, profile.name, crop, variant)}\n")


# ------------------------------------------------------------------------------------------ training phase: LMDBs
def evaluate_faces(arguments) -> Evaluation:
    """Answers for the nets' validation LMDBs; photos that did not get into them, by the manifest, are missed."""
    from gender_smile.inference.pipeline import Classifier, load_engine

    weights, others = weights_of(arguments), other_nets(arguments)
    sources = {net: validation_lmdb(arguments.profile, net) for net in (*weights, *others)}
    weights.update(others)
    caffe = load_engine(arguments.engine, arguments.gpu)
    batch = arguments.batch or recipe.PROFILES[arguments.profile].test_batch_size
    labels: Dict[str, Dict[str, Optional[int]]] = {}
    ones: Dict[str, Dict[str, Optional[float]]] = {}
    for net, folder in sources.items():
        found = score_lmdb(Classifier(caffe, arguments.profile, net, batch, weights[net]), folder)
        check_count(folder, len(found[0]))
        labels[net], ones[net] = dict(found[0]), dict(found[1])
        first = recipe.ENSEMBLES[recipe.NETS[net].task][0]
        check_same(first, labels[first], net, labels[net])
    truths = {task: labels[nets[0]] for task, nets in recipe.ENSEMBLES.items()}
    skipped = manifest_entry(next(iter(sources.values()))).get("skipped", ())
    missed = list_missed(skipped, set().union(*truths.values()))
    count_missed(missed, truths, ones)
    figures = figures_of(tuple(others))
    return Evaluation("training phase, faces of the LMDBs", suffix_of(arguments), weights, truths, combine(ones, figures),
                      missed, figures)


def weights_of(arguments) -> Dict[str, str]:
    """net -> its step 4's weights. Raises PipelineError where one of a variant is missing."""
    from gender_smile.training import chain
    from gender_smile.inference.pipeline import PipelineError

    found = {net: chain.Row(recipe.PROFILES[arguments.profile], net, 4, variant=arguments.variant).weights_out
             for net in recipe.PIPELINE_NETS}
    for path in found.values() if arguments.variant else ():
        if not os.path.isfile(recipe.absolute(path)):
            raise PipelineError(f"{path} is missing: is --variant {arguments.variant} as tools/train.py or tools/tables.py "
                                "named it?")
    return found


def other_nets(arguments) -> Dict[str, str]:
    """net -> its step 4's weights, of those of the recipe's other nets that are trained and have their validation LMDB."""
    from gender_smile.training import chain

    rows = [chain.Row(recipe.PROFILES[arguments.profile], net, 4, variant=arguments.variant)
            for net in recipe.NETS if net not in recipe.PIPELINE_NETS]
    return {row.net: row.weights_out for row in rows
            if os.path.isfile(recipe.absolute(row.weights_out)) and os.path.isdir(recipe.absolute(row.databases["val"]))}


def suffix_of(arguments) -> str:
    return ("_photos" if arguments.photos else "") + (f"-{arguments.variant}" if arguments.variant else "")


def count_missed(missed: Iterable[str], truths: Dict[str, dict], ones: Dict[str, dict]) -> None:
    """Put images that are listed but were not read, of unknown label, into `truths` (by task) and `ones` (by net)."""
    for image in missed:
        for net in ones:
            truths[recipe.NETS[net].task][image] = ones[net][image] = None


def combine(ones: Dict[str, dict], figures: Figures) -> Dict[str, dict]:
    """Probabilities of `figures` from those of the nets: net -> face -> probability of class 1, or None."""
    combined = {}
    for name, (_, nets) in figures.items():
        combined[name] = {
            face: None if ones[nets[0]][face] is None else sum(ones[net][face] for net in nets) / len(nets)
            for face in ones[nets[0]]
        }
    return combined


# ------------------------------------------------------------------------------------------ testing phase: photos
def evaluate_photos(arguments) -> Evaluation:
    """Answers of the whole pipeline for every photo that the validation table of step 4's data set lists."""
    from lmdb_builders import readers
    from gender_smile.inference.pipeline import Pipeline
    from tqdm import tqdm

    dataset = readers.read(recipe.target().name, arguments.photos, ("val",))
    records = dataset.records
    weights = weights_of(arguments)
    pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu, weights)
    truths: dict = {task: {} for task in recipe.TASKS}
    ones: dict = {net: {} for net in recipe.PIPELINE_NETS}
    missed: Dict[str, str] = {}
    photos = pipeline.predict_files(os.path.join(arguments.photos, record.image) for record in records)
    predictions = list(tqdm(photos, total=len(records), unit=" photos", disable=None))
    if len(predictions) != len(records):
        raise EvaluationError(f"{len(records)} photos are listed, {len(predictions)} came back")
    for record, prediction in zip(records, predictions):
        image = record.image.rsplit("/", 1)[-1]  # as the table and the LMDBs' keys name it
        if prediction.error is not None:
            missed[image] = prediction.error
        for task in recipe.TASKS.values():
            label = record.labels[dataset.label_names.index(recipe.target().columns[task.name])]
            if label not in (0, 1):
                continue
            truths[task.name][image] = label
            for net in recipe.ENSEMBLES[task.name]:
                ones[net][image] = prediction.p_positive.get(net)
    names = {record.image.rsplit("/", 1)[-1] for record in records}
    unread = list_missed((entry._asdict() for entry in dataset.skipped), names)
    count_missed(unread, truths, ones)
    missed.update(unread)
    for task, truth in truths.items():
        if not any(label is not None for label in truth.values()):
            raise EvaluationError(f"{arguments.photos}: no validation photo has a label for {task}")
    return Evaluation("testing phase, whole photos", suffix_of(arguments), weights, truths,
                      combine(ones, FIGURES), missed, predictions=predictions)


if __name__ == "__main__":
    raise SystemExit(main())
