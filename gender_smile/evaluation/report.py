"""An evaluation as text, with the paper's numbers and the majority baseline, and as files under runs/<profile>."""

from __future__ import annotations

import textwrap
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import recipe
from common import files
from gender_smile.evaluation import challenge, scores
from gender_smile.evaluation.faces import Evaluation
from gender_smile.inference.model import Model

Metrics = Mapping[str, Dict[str, Any]]  # Evaluation.metrics()
SHORT = ("accuracy", "balanced_accuracy", "majority_accuracy", "faces", "missed")  # of results.json


def write(evaluation: Evaluation, metrics: Metrics) -> List[str]:
    """Write results, evaluation and the table of faces (docs/evaluation.md); returns their paths."""
    suffix = ("_photos" if evaluation.whole_photos else "") + (f"-{evaluation.variant}" if evaluation.variant else "")
    results, stem = (f"runs/{evaluation.profile}/{name}{suffix}" for name in ("results", "evaluation"))
    files.write_json(recipe.absolute(f"{results}.json"),
                     {name: {key: own[key] for key in SHORT} for name, own in metrics.items()})
    files.write_json(recipe.absolute(f"{stem}.json"), {
        "profile": evaluation.profile,
        "protocol": evaluation.protocol,
        "weights": evaluation.weights,
        "sha256": {net: files.sha256_of(recipe.absolute(path)) for net, path in evaluation.weights.items()},
        "metrics": {name: {**own, "paper": paper_accuracy(*evaluation.ensembles[name])} for name, own in metrics.items()},
        "warnings": warnings(evaluation, metrics),
        "challenge": {**challenge_error(evaluation), "paper": recipe.CHALLENGE_ERROR},
        "missed": evaluation.missed,
    })
    _write_faces(recipe.absolute(f"{stem}.csv"), evaluation)
    return [f"{results}.json", f"{stem}.json", f"{stem}.csv"]


def _write_faces(path: str, evaluation: Evaluation) -> None:
    """A row per image, by name: its labels, the probability of class 1 by each ensemble, and why it has none."""
    labels, answers = evaluation.labels, evaluation.p_positive
    rows = []
    for image in sorted(set(evaluation.missed).union(*labels.values())):
        known = [truth.get(image) for truth in labels.values()]
        probabilities = [answer.get(image) for answer in answers.values()]
        rows.append([image, *("" if label is None else label for label in known),
                     *("" if p is None else f"{p:.6f}" for p in probabilities), evaluation.missed.get(image, "")])
    files.write_csv(path, ["image", *(f"{task}_label" for task in labels), *(f"{name}_probability" for name in answers),
                           "missed"], rows)


def challenge_error(evaluation: Evaluation) -> Dict[str, Any]:
    return challenge.organizers_error(evaluation.labels, {task: evaluation.p_positive[task] for task in evaluation.labels})


def paper_accuracy(task: str, nets: Sequence[str]) -> Optional[float]:
    """The paper's accuracy, in percent, of the mean of `nets` (recipe.TABLE3); None where it has none."""
    for _, gender_nets, gender, smile_nets, smile in recipe.TABLE3:
        if tuple(nets) == (gender_nets if task == "gender" else smile_nets):
            return gender if task == "gender" else smile
    return None


def warnings(evaluation: Evaluation, metrics: Metrics) -> Dict[str, str]:
    """Name -> why its accuracy shows nothing learned, of those for which it does not."""
    found = {name: scores.warning(own, recipe.TASKS[evaluation.ensembles[name][0]].classes) for name, own in metrics.items()}
    return {name: text for name, text in found.items() if text}


def as_text(evaluation: Evaluation, metrics: Metrics) -> str:
    """All metrics as text."""
    lines = [f"Model 3 of profile {evaluation.profile} on {recipe.target().title}'s validation set ({evaluation.protocol})",
             "", files.align(_rows(evaluation, metrics)), "", _missed_line(evaluation), scores.MAJORITY_NOTE]
    lines += [f"Warning: {name}: {text}" for name, text in warnings(evaluation, metrics).items()]
    model = Model.of(evaluation.profile, evaluation.variant, evaluation.weights)
    if model.drawn and not evaluation.drawn:
        lines.append(f"Warning: these nets were {model.training}; their accuracy on photographs tells nothing of the method")
    for task in recipe.TASKS.values():
        confusion = metrics[task.name]["confusion"]
        lines += ["", files.align([(task.name, *(f"answered {name}" for name in task.classes)),
                                   *((f"  {name}", *map(str, row)) for name, row in zip(task.classes, confusion))])]
    if evaluation.missed:
        lines += ["", "Without an answer:"]
        lines += [f"  {image}: {reason}" for image, reason in sorted(evaluation.missed.items())]
    lines += ["", challenge.describe_error(challenge_error(evaluation))]
    if evaluation.profile != recipe.PAPER.name:
        lines += textwrap.wrap(f"The paper's nets see 224 pixels; these are for {recipe.PROFILES[evaluation.profile].why}.", 100)
    return "\n".join(lines)


def _rows(evaluation: Evaluation, metrics: Metrics) -> List[Tuple[str, ...]]:
    rows: List[Tuple[str, ...]] = [("answers", "nets", "photos" if evaluation.whole_photos else "faces", "accuracy",
                                    "95 % interval", "paper", "majority", "balanced", "AUC", "ECE")]
    for name, own in metrics.items():
        task, nets = evaluation.ensembles[name]
        low, high = (f"{100 * value:.2f}" for value in own["interval"])
        auc, ece = ("-" if own[key] is None else f"{own[key]:.4f}" for key in ("auc", "ece"))
        paper = paper_accuracy(task, nets)
        rows.append((name, " + ".join(recipe.NETS[net].title for net in nets), f"{own['faces']:,}",
                     scores.percent(own["accuracy"]), f"{low} .. {high}", "-" if paper is None else f"{paper:.2f} %",
                     scores.percent(own["majority_accuracy"]), scores.percent(own["balanced_accuracy"]), auc, ece))
    return rows


def _missed_line(evaluation: Evaluation) -> str:
    """What became of photos without a face; the two phases count them differently."""
    count = f"{len(evaluation.missed):,} photo{'' if len(evaluation.missed) == 1 else 's'} without an answer"
    return f"{count}, counted as wrong" if evaluation.whole_photos else f"{count}, not counted: no face was collected from them"
