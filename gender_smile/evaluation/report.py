"""What an evaluation leaves behind: files under runs/<profile>, and a table with the paper's numbers beside ours."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import recipe
from common import files
from common.files import align
from common.files import sha256_of

Figures = Dict[str, Tuple[str, Tuple[str, ...]]]  # name in results.json -> (task, nets whose probabilities are averaged)


def figures_of(nets: Sequence[str] = ()) -> Figures:
    """Figures of the ensembles of recipe.ENSEMBLES by task, of their nets where they are several, and of further `nets`."""
    found: Figures = dict(zip(recipe.ENSEMBLES, recipe.ENSEMBLES.items()))
    alone = [net for members in recipe.ENSEMBLES.values() if len(members) > 1 for net in members]
    return {**found, **{net: (recipe.NETS[net].task, (net,)) for net in (*alone, *nets)}}


FIGURES = figures_of()


def write(profile, evaluation, figures, challenge) -> List[str]:
    """Write results, evaluation and the table of faces under runs/<profile>; returns their paths.

    evaluation: evaluate.Evaluation; figures: name of evaluation.figures -> scores.score; challenge: scores.challenge_error.
    """
    folder = f"runs/{profile}"
    results = {name: {"accuracy": figure["accuracy"], "faces": figure["faces"]} for name, figure in figures.items()}
    content = {
        "profile": profile,
        "protocol": evaluation.protocol,
        "weights": evaluation.weights,
        "sha256": {net: sha256_of(recipe.absolute(path)) for net, path in evaluation.weights.items()},
        "figures": {name: {**figure, "paper": paper_accuracy(*evaluation.figures[name])} for name, figure in figures.items()},
        "challenge": {**challenge, "paper": recipe.CHALLENGE_ERROR},
        "missed": evaluation.missed,
    }
    paths = [f"{folder}/{stem}{evaluation.suffix}" for stem in ("results", "evaluation")]
    for path, values in zip(paths, (results, content)):
        files.write_json(recipe.absolute(f"{path}.json"), values)
    _write_faces(recipe.absolute(f"{paths[1]}.csv"), evaluation, list(figures))
    return [f"{paths[0]}.json", f"{paths[1]}.json", f"{paths[1]}.csv"]


def _write_faces(path: str, evaluation, names: List[str]):
    """A line an image, by name: its labels, the probability of class 1 by each of `names`, and why it has none."""
    rows = []
    for image in sorted(set().union(*evaluation.truths.values())):
        labels = [truth.get(image) for truth in evaluation.truths.values()]
        values = [evaluation.probabilities[name].get(image) for name in names]
        rows.append([image, *("" if label is None else label for label in labels),
                     *("" if value is None else f"{value:.6f}" for value in values), evaluation.missed.get(image, "")])
    header = [*(f"{task}_label" for task in evaluation.truths), *(f"{name}_probability" for name in names)]
    files.write_csv(path, ["image", *header, "missed"], rows)


def paper_accuracy(task: str, nets: Tuple[str, ...]) -> Optional[float]:
    """The paper's accuracy, in percent, of the mean of `nets` (recipe.TABLE3); None where it has none."""
    for _, gender_nets, gender, smile_nets, smile in recipe.TABLE3:
        if nets == (gender_nets if task == "gender" else smile_nets):
            return gender if task == "gender" else smile
    return None


def report(profile: str, evaluation, figures: Dict[str, dict], challenge: dict) -> str:
    """All figures as text."""
    lines = [f"Model 3 of profile {profile} on {recipe.target().title}'s validation set ({evaluation.protocol})", ""]
    rows: List[Tuple[str, ...]] = [("", "nets", "schemes", "faces", "accuracy", "95 % interval", "paper", "AUC", "ECE")]
    for name, figure in figures.items():
        task, nets = evaluation.figures[name]
        titles = " + ".join(recipe.NETS[net].title for net in nets)
        schemes = " + ".join(recipe.NETS[net].crop.replace("scheme", "") for net in nets)
        low, high = (f"{100 * value:.2f}" for value in figure["interval"])
        auc, ece = ("-" if figure[key] is None else f"{figure[key]:.4f}" for key in ("auc", "ece"))
        paper = paper_accuracy(task, nets)
        rows.append((name, titles, schemes, f"{figure['faces']:,}", f"{100 * figure['accuracy']:.2f} %", f"{low} .. {high}",
                     "-" if paper is None else f"{paper:.2f} %", auc, ece))
    lines.append(align(rows))
    for task in recipe.TASKS.values():
        figure = figures[task.name]
        lines += ["", f"{task.name:<16}" + "".join(f"{'answered ' + name:>22}" for name in task.classes)]
        lines += [
            f"  {name:<14}" + "".join(f"{count:>22}" for count in row)
            for name, row in zip(task.classes, figure["confusion"])
        ]
        if figure["missed"]:
            lines.append(f"  {figure['missed']} without an answer count as wrong")
    if evaluation.missed:
        lines += ["", "Without an answer:"]
        lines += [f"  {image}: {reason}" for image, reason in sorted(evaluation.missed.items())]
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
