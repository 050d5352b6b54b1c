"""Mean heat map of each net over FotW's validation faces, its share by part of the face, and an occlusion check.

    python benchmarks/heatmap_parts.py --profile demo        # after make demo, or make step4

Prints a table in Markdown and writes runs/<profile>/heat.png: the mean map of each net. The check grays out a fifth of
each crop and measures by how much the answer's probability drops: the hottest fifth, the hottest by Grad-CAM's own
formula, and a random fifth. Exit status: 0 done, 2 wrong use or a missing input.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import recipe
from common import command, files
from common.options import add_engine, add_profile

if TYPE_CHECKING:
    import numpy as np

    from gender_smile.inference.heatmaps import Explainer

# Face units below the face's middle (recipe.FACE_TEMPLATE: eyes at -0.5, nose at 0, mouth at 0.5) where a part ends.
PARTS = (("brow and eyes", -0.25), ("nose and cheeks", 0.25), ("mouth and chin", float("inf")))
GRAYED = 0.2  # of a crop, in the check
SEED = 1


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="heatmap_parts.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profile(parser)
    add_engine(parser)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = get_parser().parse_args(argv)
    from gender_smile.inference.classifier import PipelineError

    return command.run("heatmap_parts.py", lambda: explain_all(arguments), PipelineError,
                       writes=[recipe.absolute(f"runs/{arguments.profile}/heat.png")])


def explain_all(arguments: argparse.Namespace) -> int:
    """Measure the nets of the profile, print the table and write the maps; the exit status."""
    from gender_smile.inference.classifier import Classifier, PipelineError, load_engine
    from gender_smile.inference.heatmaps import Explainer
    from gender_smile.evaluation.faces import read_lmdb, validation_lmdb

    caffe = load_engine(arguments.engine, arguments.gpu)
    rows, means = [], {}
    for net in recipe.PIPELINE_NETS:
        folder = validation_lmdb(arguments.profile, net)
        crops = [crop for _, _, crop in read_lmdb(folder)]
        if not crops:
            raise PipelineError(f"{folder} holds no faces: build it again with make lmdb FORCE=1")
        explainer = Explainer(Classifier(caffe, arguments.profile, net))
        row, means[net] = measure(explainer, crops)
        rows.append([recipe.NETS[net].title, len(crops), *row])
    path = os.path.join("runs", arguments.profile, "heat.png")
    try:  # one that fails leaves the other
        write_means(means, recipe.absolute(path))
    finally:
        print(table(rows))
    print(f"written: {path}")
    return 0


def measure(explainer: "Explainer", crops: Sequence["np.ndarray"]) -> Tuple[List[str], "np.ndarray"]:
    """The cells of a net's row, and the mean of its heat maps for what it answers, size x size.

    crops: N x stored_size x stored_size x 3 uint8, BGR, cut by the net's scheme.
    """
    import numpy as np

    classifier = explainer.classifier
    p_positive = classifier.probabilities(crops)
    answers = [int(p > 0.5) for p in p_positive]
    heats = explainer.heat(crops, answers)
    mean = heats.mean(axis=0)
    parts = share_by_part(mean, classifier.crop, classifier.profile.stored_size)
    before = of_answer(p_positive, answers)
    random = np.random.RandomState(SEED)
    falls = []
    for maps in (heats, explainer.heat(crops, answers, averaged=True), noise_like(heats, random)):
        after = classifier.probabilities([gray_out(crop, heat) for crop, heat in zip(crops, maps)])
        falls.append(float((before - of_answer(after, answers)).mean()))
    return [*(f"{share:.0%} ({area:.0%})" for share, area in parts), *(f"{fall:.3f}" for fall in falls)], mean


def of_answer(p_positive: "np.ndarray", answers: Sequence[int]) -> "np.ndarray":
    """Probabilities of the classes answered, from those of class 1."""
    import numpy as np

    return np.where(np.array(answers) == 1, p_positive, 1 - p_positive)


def share_by_part(heat: "np.ndarray", crop: recipe.Crop, stored_size: int) -> List[Tuple[float, float]]:
    """(share of the heat, share of the crop's area) of each of PARTS; a net sees the middle of the stored crop.

    Where nothing is warm, every share of the heat is 0.
    """
    import numpy as np

    size = heat.shape[0]
    rows = (np.arange(size) - (size - 1) / 2) * crop.side / stored_size + crop.center[1]
    shares, start = [], -np.inf
    for _, end in PARTS:
        inside = (rows >= start) & (rows < end)
        shares.append((float(heat[inside].sum() / (heat.sum() or 1)), float(inside.mean())))
        start = end
    return shares


def gray_out(crop: "np.ndarray", heat: "np.ndarray") -> "np.ndarray":
    """The stored crop with the warmest GRAYED of what the net sees in the mean color, which its input shows as 0."""
    import numpy as np

    margin, size = (crop.shape[0] - heat.shape[0]) // 2, heat.shape[0]
    warmest = np.argsort(-heat, axis=None, kind="stable")[: round(GRAYED * heat.size)]
    result = crop.copy()
    middle = result[margin : margin + size, margin : margin + size]
    middle[np.unravel_index(warmest, heat.shape)] = np.round(recipe.MEAN_BGR)
    return result


def noise_like(heats: "np.ndarray", random: Any) -> "np.ndarray":
    """Maps as coarse as `heats`, warm at random places."""
    import numpy as np

    from gender_smile.inference.heatmaps import CELLS, enlarge

    return np.stack([enlarge(random.rand(CELLS, CELLS), heats.shape[1]) for _ in heats])


def table(rows: Sequence[Sequence[Any]]) -> str:
    """The rows in Markdown."""
    titles = ["net", "faces", *(name for name, _ in PARTS), "hottest fifth grayed", "Grad-CAM's hottest fifth grayed",
              "random fifth grayed"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def write_means(means: Dict[str, "np.ndarray"], path: str) -> None:
    """The mean maps side by side, each with the template's landmarks as the net's crop has them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(means), 3.3), dpi=100)
    FigureCanvasAgg(figure)
    for number, (net, mean) in enumerate(means.items(), start=1):
        axes = figure.add_subplot(1, len(means), number)
        axes.imshow(mean, cmap="inferno", vmin=0)
        crop, size = recipe.CROPS[recipe.NETS[net].crop], len(mean)
        scale = stored_size_for(size) / crop.side
        points = [((x - crop.center[0]) * scale + (size - 1) / 2, (y - crop.center[1]) * scale + (size - 1) / 2)
                  for x, y in recipe.FACE_TEMPLATE]
        inside = [point for point in points if 0 <= point[0] < size and 0 <= point[1] < size]
        axes.scatter([x for x, _ in inside], [y for _, y in inside], s=24, facecolors="none", edgecolors="white")
        axes.set_title(f"{recipe.NETS[net].title} ({crop.name.replace('scheme', 'scheme ')})")
        axes.set_axis_off()
    figure.tight_layout()
    with files.whole_file(path) as part:
        figure.savefig(part, format="png")


def stored_size_for(size: int) -> int:
    """Side of the stored crops whose middle of `size` pixels a net sees."""
    return next(profile.stored_size for profile in recipe.PROFILES.values() if profile.crop_size == size)


if __name__ == "__main__":
    raise SystemExit(main())
