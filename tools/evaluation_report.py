"""What an evaluation leaves behind: files under runs/<profile>, and a table with the paper's numbers beside ours."""

from __future__ import annotations

from typing import Dict, List, Optional

import recipe
from tools import outputs
from tools.fingerprints import sha256_of

FIGURES = {  # name in results.json -> (task, nets whose probabilities are averaged)
    "gender": ("gender", ("gnet",)),
    "smile": ("smile", ("snet1", "snet2")),
    "snet1": ("smile", ("snet1",)),
    "snet2": ("smile", ("snet2",)),
}


def write(profile, evaluation, figures, challenge) -> List[str]:
    """Write results, evaluation and the table of faces under runs/<profile>; returns their paths.

    evaluation: evaluate.Evaluation; figures: name of FIGURES -> scores.score; challenge: scores.challenge_error.
    """
    folder = f"runs/{profile}"
    results = {name: {"accuracy": figure["accuracy"], "faces": figure["faces"]} for name, figure in figures.items()}
    content = {
        "profile": profile,
        "protocol": evaluation.protocol,
        "weights": evaluation.weights,
        "sha256": {net: sha256_of(recipe.absolute(path)) for net, path in evaluation.weights.items()},
        "figures": {name: {**figure, "paper": paper_accuracy(name)} for name, figure in figures.items()},
        "challenge": {**challenge, "paper": recipe.CHALLENGE_ERROR},
        "missed": evaluation.missed,
    }
    paths = [f"{folder}/{stem}{evaluation.suffix}" for stem in ("results", "evaluation")]
    for path, values in zip(paths, (results, content)):
        outputs.write_json(recipe.absolute(f"{path}.json"), values)
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
    outputs.write_csv(path, ["image", *header, "missed"], rows)


def paper_accuracy(name: str) -> Optional[float]:
    """The paper's accuracy, in percent, of one of FIGURES (recipe.TABLE3)."""
    task, nets = FIGURES[name]
    for _, gender_nets, gender, smile_nets, smile in recipe.TABLE3:
        if nets == (gender_nets if task == "gender" else smile_nets):
            return gender if task == "gender" else smile
    return None


def report(profile: str, evaluation, figures: Dict[str, dict], challenge: dict) -> str:
    """All figures as text."""
    lines = [f"Model 3 of profile {profile} on FotW's validation set ({evaluation.protocol})", ""]
    columns = (f"{'nets':<16}{'schemes':<9}{'faces':>6}{'accuracy':>11}{'95 % interval':>18}{'paper':>10}{'AUC':>8}"
               f"{'ECE':>8}")
    lines.append(f"{'':8}{columns}")
    for name, figure in figures.items():
        nets = FIGURES[name][1]
        titles = " + ".join(recipe.NETS[net].title for net in nets)
        schemes = " + ".join(recipe.NETS[net].crop.replace("scheme", "") for net in nets)
        low, high = (f"{100 * value:.2f}" for value in figure["interval"])
        auc, ece = ("-" if figure[key] is None else f"{figure[key]:.4f}" for key in ("auc", "ece"))
        lines.append(
            f"{name:8}{titles:<16}{schemes:<9}{figure['faces']:>6}{100 * figure['accuracy']:>9.2f} %"
            f"{low + ' .. ' + high:>18}{paper_accuracy(name):>8.2f} %{auc:>8}{ece:>8}"
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
