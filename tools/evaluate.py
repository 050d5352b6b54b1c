"""Score GNet, SNet1, SNet2 and the mean of the two SNets on FotW's validation faces (section 4, Table 3).

    python tools/evaluate.py --profile demo                    # the faces of the LMDBs: the paper's training phase
    python tools/evaluate.py --profile demo --photos FOTW      # whole photos, face nearest the center: testing phase

The first writes runs/<profile>/results.json (accuracies), evaluation.json (all figures) and evaluation.csv (each face's
probabilities); the second the same names with _photos. Exit status: 0 done, 1 scores that cannot be trusted (faces
missing from an LMDB, or not the same in two), 2 wrong use or a missing input.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from tools import environment; environment.ensure()

import argparse
import os
import sys
from typing import Dict, Tuple

import recipe
from tools import scores
from tools.evaluation_report import FIGURES, report, write


class EvaluationError(RuntimeError):
    """Faces are missing or do not match: no score can be given."""


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or recipe.PAPER.name, choices=recipe.PROFILES)
    parser.add_argument("--photos", metavar="FOTW", help="FotW's folder: the whole pipeline on its validation photos")
    parser.add_argument("--engine", default=os.environ.get("ENGINE") or "auto", choices=("auto", "caffe", "torch"))
    parser.add_argument("--gpu", type=int, metavar="NUMBER", help="GPU to run on (default: the CPU)")
    parser.add_argument("--batch", type=int, metavar="FACES", help="faces at a time (default: as in testing)")
    return parser


def main(argv=None) -> int:
    parser = get_parser()
    arguments = parser.parse_args(argv)
    if arguments.batch is not None and arguments.batch < 1:
        parser.error("--batch must be at least 1")
    from lmdb_builders.errors import BuildError
    from tools.pipeline import PipelineError

    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    try:
        if arguments.photos:
            evaluation, protocol, suffix = evaluate_photos(arguments), "testing phase, whole photos", "_photos"
        else:
            evaluation, protocol, suffix = evaluate_faces(arguments), "training phase, faces of the LMDBs", ""
    except (PipelineError, BuildError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except EvaluationError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    truths, probabilities, missed = evaluation
    figures = {name: scores.score(truths[task], probabilities[name]) for name, (task, _) in FIGURES.items()}
    challenge = scores.challenge_error(
        tuple(truths.values()), tuple(probabilities[task] for task in truths), missed
    )
    paths = write(arguments.profile, suffix, protocol, truths, probabilities, figures, challenge)
    print(report(arguments.profile, protocol, figures, challenge))
    print("written: " + ", ".join(paths))
    return 0


# ------------------------------------------------------------------------------------------ training phase: LMDBs
def evaluate_faces(arguments) -> Tuple[dict, dict, int]:
    """(truths, probabilities, faces that never came into the LMDBs) of the three nets' validation LMDBs."""
    from tools.pipeline import Classifier, load_engine

    sources = {net: validation_lmdb(arguments.profile, net) for net in recipe.PIPELINE_NETS}
    caffe = load_engine(arguments.engine, arguments.gpu)
    batch = arguments.batch or recipe.PROFILES[arguments.profile].test_batch_size
    labels, ones = {}, {}
    for net, folder in sources.items():
        labels[net], ones[net] = score_lmdb(caffe, Classifier(caffe, arguments.profile, net, batch), folder)
        check_count(folder, len(labels[net]))
    check_same("snet1", labels["snet1"], "snet2", labels["snet2"])
    truths = {"gender": labels["gnet"], "smile": labels["snet1"]}
    return truths, combine(ones), count_missed(sources["gnet"])


def combine(ones: Dict[str, dict]) -> Dict[str, dict]:
    """Probabilities of FIGURES from those of the nets: net -> face -> probability of class 1, or None."""
    combined = {}
    for name, (_, nets) in FIGURES.items():
        combined[name] = {
            face: None if ones[nets[0]][face] is None else sum(ones[net][face] for net in nets) / len(nets)
            for face in ones[nets[0]]
        }
    return combined


def validation_lmdb(profile: str, net: str) -> str:
    """Absolute path of a net's FotW validation LMDB; PipelineError where it is missing."""
    from tools.pipeline import PipelineError

    folder = recipe.lmdb_paths(profile, net, 4)["val"]
    if not os.path.isdir(recipe.absolute(folder)):
        option = "" if profile == recipe.PAPER.name else f" PROFILE={profile}"
        raise PipelineError(f"{folder} is missing: make lmdb{option} makes it (or make demo, for the demo)")
    return recipe.absolute(folder)


def read_lmdb(caffe, folder: str):
    """(name, label, crop) of each face of an LMDB in its order; crop: size x size x 3 uint8, BGR."""
    import importlib

    import cv2
    import lmdb
    import numpy as np

    datum = importlib.import_module(caffe.__name__ + ".proto.caffe_pb2").Datum()
    with lmdb.open(folder, readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            datum.ParseFromString(value)
            if datum.encoded:
                crop = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR)
            else:
                planes = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
                crop = planes.transpose(1, 2, 0)
            yield key.decode("utf-8", "backslashreplace").split("_", 1)[-1], datum.label, crop


def score_lmdb(caffe, classifier, folder: str) -> Tuple[Dict[str, int], Dict[str, float]]:
    """Labels and probabilities of class 1, by the image's name, of a whole LMDB, with a progress bar."""
    from tqdm import tqdm

    labels, ones, names, crops = {}, {}, [], []
    title = recipe.NETS[classifier.net_key].title

    def flush():
        ones.update(zip(names, map(float, classifier.probabilities(crops))))
        names.clear()
        crops.clear()

    for name, label, crop in tqdm(read_lmdb(caffe, folder), desc=title, unit=" faces", disable=None):
        if name in labels:
            raise EvaluationError(f"{folder}: two faces have the name {name}; build it again (make lmdb FORCE=1)")
        labels[name] = int(label)
        names.append(name)
        crops.append(crop)
        if len(names) == classifier.batch:
            flush()
    flush()
    return labels, ones


def check_same(first: str, first_labels: Dict[str, int], second: str, second_labels: Dict[str, int]) -> None:
    """Raise EvaluationError where two nets' validation faces or their labels differ: no mean could be taken."""
    different = sorted(set(first_labels) ^ set(second_labels))
    if different:
        raise EvaluationError(
            f"the validation faces of {first} and {second} differ in {len(different)} images, {different[0]} for one; "
            "build both again: make lmdb FORCE=1"
        )
    for name, label in first_labels.items():
        if second_labels[name] != label:
            raise EvaluationError(f"{name} has the label {label} for {first} but {second_labels[name]} for {second}")


def manifest_entry(folder: str) -> dict:
    """FotW's part of the manifest beside the LMDB `folder`; empty where there is none."""
    from lmdb_builders import manifest

    return manifest.read(os.path.dirname(folder)).get("fotw", {})


def check_count(folder: str, scored: int) -> None:
    """Raise EvaluationError where an LMDB did not hold exactly the faces that its manifest lists."""
    listed = manifest_entry(folder).get("images", {}).get(os.path.basename(folder))
    if listed != scored or not scored:
        raise EvaluationError(
            f"{folder}: {scored} faces scored, but {'no number' if listed is None else listed} in the manifest.json "
            "beside it; build it again: make lmdb FORCE=1"
        )


def count_missed(folder: str) -> int:
    """How many validation photos did not get into the LMDB `folder`, by its manifest."""
    skipped = manifest_entry(folder).get("skipped", ())
    return len({entry["image"] for entry in skipped if entry["split"] == "val"})


# ------------------------------------------------------------------------------------------ testing phase: photos
def evaluate_photos(arguments) -> Tuple[dict, dict, int]:
    """(truths, probabilities, 0) of the whole pipeline; a photo without an answer has None, and is named on stderr."""
    from lmdb_builders.fotw import LABEL_COLUMNS, read_fotw
    from tools.pipeline import Pipeline
    from tqdm import tqdm

    dataset = read_fotw(arguments.photos, ("val",))
    records = dataset.records
    for entry in dataset.skipped:
        print(f"evaluate.py: {entry.file} line {entry.line}: {entry.image}: {entry.reason}: left out", file=sys.stderr)
    pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu)
    truths: dict = {task: {} for task in recipe.TASKS}
    ones: dict = {net: {} for net in recipe.PIPELINE_NETS}
    photos = pipeline.predict_files(os.path.join(arguments.photos, record.image) for record in records)
    for record, prediction in zip(records, tqdm(photos, total=len(records), unit=" photos", disable=None)):
        if prediction.error is not None:
            print(f"evaluate.py: {record.image}: {prediction.error}: counts as wrong", file=sys.stderr)
        for task in recipe.TASKS.values():
            label = record.labels[LABEL_COLUMNS.index(task.fotw_column)]
            if label not in (0, 1):
                continue
            truths[task.name][record.image] = label
            for net in recipe.PIPELINE_NETS:
                if recipe.NETS[net].task == task.name:
                    ones[net][record.image] = prediction.ones.get(net)
    for task, truth in truths.items():
        if not truth:
            raise EvaluationError(f"{arguments.photos}: no validation photo has a label for {task}")
    return truths, combine(ones), 0


if __name__ == "__main__":
    raise SystemExit(main())
