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
import csv
import json
import os
import sys
from typing import Dict, Tuple

import recipe
from tools import scores

FIGURES = {  # name in results.json -> (task, nets whose probabilities are averaged)
    "gender": ("gender", ("gnet",)),
    "smile": ("smile", ("snet1", "snet2")),
    "snet1": ("smile", ("snet1",)),
    "snet2": ("smile", ("snet2",)),
}


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


# ------------------------------------------------------------------------------------------ output
def write(profile, suffix, protocol, truths, probabilities, figures, challenge) -> list:
    """Write results, evaluation and the table of faces under runs/<profile>; returns their paths."""
    folder = f"runs/{profile}"
    os.makedirs(recipe.absolute(folder), exist_ok=True)
    results = {name: {"accuracy": figure["accuracy"], "faces": figure["faces"]} for name, figure in figures.items()}
    evaluation = {
        "profile": profile,
        "protocol": protocol,
        "weights": {net: recipe.step_weights(profile, net, 4) for net in recipe.PIPELINE_NETS},
        "figures": {name: {**figure, "paper": paper_accuracy(name)} for name, figure in figures.items()},
        "challenge": {**challenge, "paper": recipe.CHALLENGE_ERROR},
    }
    paths = [f"{folder}/{stem}{suffix}" for stem in ("results", "evaluation")]
    for path, content in zip(paths, (results, evaluation)):
        with open(recipe.absolute(f"{path}.json.part"), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        os.replace(recipe.absolute(f"{path}.json.part"), recipe.absolute(f"{path}.json"))
    with open(recipe.absolute(f"{paths[1]}.csv"), "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *(f"{task}_label" for task in truths), *(f"{name}_probability" for name in figures)])
        for image in sorted(set().union(*truths.values())):
            labels = [truth.get(image, "") for truth in truths.values()]
            values = [probabilities[name].get(image) for name in figures]
            table.writerow([image, *labels, *("" if value is None else f"{value:.6f}" for value in values)])
    return [f"{paths[0]}.json", f"{paths[1]}.json", f"{paths[1]}.csv"]


def paper_accuracy(name: str):
    """The paper's accuracy, in percent, of one of FIGURES (recipe.TABLE3)."""
    task, nets = FIGURES[name]
    for _, gender_nets, gender, smile_nets, smile in recipe.TABLE3:
        if nets == (gender_nets if task == "gender" else smile_nets):
            return gender if task == "gender" else smile
    return None


def report(profile: str, protocol: str, figures: Dict[str, dict], challenge: dict) -> str:
    """All figures as text."""
    lines = [f"Model 3 of profile {profile} on FotW's validation set ({protocol})", ""]
    columns = f"{'nets':<16}{'schemes':<9}{'faces':>6}{'accuracy':>11}{'95 % interval':>18}{'paper':>10}"
    lines.append(f"{'':8}{columns}")
    for name, figure in figures.items():
        nets = FIGURES[name][1]
        titles = " + ".join(recipe.NETS[net].title for net in nets)
        schemes = " + ".join(recipe.NETS[net].crop.replace("scheme", "") for net in nets)
        low, high = (f"{100 * value:.2f}" for value in figure["interval"])
        lines.append(
            f"{name:8}{titles:<16}{schemes:<9}{figure['faces']:>6}{100 * figure['accuracy']:>9.2f} %"
            f"{low + ' .. ' + high:>18}{paper_accuracy(name):>8.2f} %"
        )
    for task in recipe.TASKS.values():
        figure = figures[task.name]
        lines += ["", f"{task.name:<16}" + "".join(f"{'answered ' + name:>22}" for name in task.classes)]
        lines += [
            f"  {name:<14}" + "".join(f"{count:>22}" for count in row)
            for name, row in zip(task.classes, figure["confusion"])
        ]
        if figure["missed"]:
            lines.append(f"  {figure['missed']} without an answer count as wrong")
    lines += ["", describe_challenge(challenge)]
    if profile != recipe.PAPER.name:
        lines.append(f"The paper's nets see 224 pixels; these are for {recipe.PROFILES[profile].why}.")
    return "\n".join(lines)


def describe_challenge(challenge: dict) -> str:
    if not challenge["images"]:
        return "Organizers' error: no image has a label for both tasks"
    return (
        f"Organizers' error: {challenge['sum']:.1f} over {challenge['images']} images (each counts 0, 1/2 or 1, a face "
        f"that was not found 1),\na mean accuracy of {100 * challenge['mean_accuracy']:.2f} %. "
        f"The paper's {recipe.CHALLENGE_ERROR} is such a sum in our reading (docs/fidelity.md)."
    )


if __name__ == "__main__":
    raise SystemExit(main())
