"""Run the whole chain once, small: faces, LMDBs, steps 1 to 4 of GNet, SNet1 and SNet2, evaluation, a prediction.

    make demo                                                 # on faces that it draws
    python tools/demo.py --celeba CELEBA --fotw FOTW          # on photographs, in the data sets' own layouts

Each command is printed before it runs, so that you can type it yourself. What is done is not done again; Ctrl-C stops,
and the same command resumes. Ends with runs/demo/results.json and runs/demo/prediction.png.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import csv
import functools
import json
import os
import subprocess
import sys
import time
from typing import Dict, List, Tuple

import recipe
from common import command, environment
from common.options import add_engine, positive
from gender_smile.synthetic.data_sets import FACES

PROFILE = recipe.DEMO.name
PICTURE = f"runs/{PROFILE}/prediction.png"
RESULTS = f"runs/{PROFILE}/results.json"
UNSEEN = f"{FACES}/unseen.jpg"  # a drawn photo that is in neither data set
UNSEEN_SEED = 56
VALIDATION = ("smiles_valset", "gender_fex_valset.csv")

Stage = Tuple[str, List[str]]  # title, what follows `python`


class StageError(RuntimeError):
    """A stage failed; it has said why."""


def stages(celeba: str, fotw: str, photo: str, options: argparse.Namespace) -> List[Stage]:
    """The stages after the faces are there, in order."""
    profile = ["--profile", PROFILE]
    force = ["--force"] if options.force else []
    gpu = ["--gpu", str(options.gpu)] if options.gpu is not None else []
    engine = ["--engine", options.engine, *gpu]
    iterations = options.max_iter or (None if options.celeba else recipe.DRAWN_MAX_ITER)
    limit = ["--max-iter", str(iterations)] if iterations else []
    rate = [] if options.celeba else ["--base-lr", f"{recipe.DRAWN_BASE_LR:g}"]
    commands = [("LMDBs", ["-m", "lmdb_builders.build", *profile, "--celeba", celeba, "--fotw", fotw, *gpu, *force])]
    for step in recipe.STEPS.values():
        command = ["tools/train.py", "--step", str(step.number), *profile, *engine, *force]
        command += (limit if step.number > 1 else []) + (rate if step.number == 2 else [])
        command += ["--variant", "none"] if step.number > 1 and limit else []  # evaluation and prediction take the chain's own
        commands.append((f"step {step.number}: {step.title}", command))
    commands.append(("evaluation", ["tools/evaluate.py", *profile, *engine]))
    commands.append(("prediction", ["tools/predict.py", photo, *profile, *engine, "--draw", PICTURE]))
    return commands


def run(stage: Stage, seconds: Dict[str, float]) -> None:
    """Print and run one stage in the project's folder and note its seconds. Raises StageError, KeyboardInterrupt."""
    title, arguments = stage
    print(f"\n== {title}\n$ {environment.as_typed(arguments)}", flush=True)
    started = time.monotonic()
    # A session of its own: what the terminal sends reaches it through us only, once.
    start = functools.partial(subprocess.Popen, [sys.executable, *arguments], cwd=recipe.ROOT, start_new_session=True)
    with command.forward_signals(start, at_once=subprocess.Popen.terminate) as (process, stops):
        status = process.wait()
    seconds[title] = time.monotonic() - started
    if stops or status == command.INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise StageError(f"{title} failed (status {status}); fix the cause and type the same command again: it resumes there")


def draw_unseen() -> str:
    """Draw the photo for the prediction, from a seed of its own; return its path in the project's folder."""
    from gender_smile.synthetic.data_sets import draw_one

    path = recipe.absolute(UNSEEN)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    attributes = draw_one(("FotW", UNSEEN_SEED, 1, path))["attributes"]
    labels = (recipe.TASKS["gender"].classes[not attributes["Male"]],
              recipe.TASKS["smile"].classes[attributes["Smiling"]])
    print(f"{UNSEEN}: drawn to be {labels[0]}, {labels[1]}; not among the photos that are trained on")
    return UNSEEN


def first_validation_photo(fotw: str) -> str:
    """Path of the first photo of FotW's validation table. Raises StageError where there is none."""
    table = os.path.join(fotw, *VALIDATION)
    try:
        with open(table, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    except OSError as error:
        raise StageError(f"{table}: {error.strerror}; FOTW is a folder with smiles_trset and smiles_valset") from None
    if len(rows) < 2 or not rows[1]:
        raise StageError(f"{table}: names no photo")
    path = os.path.join(fotw, VALIDATION[0], rows[1][0].strip())
    print(f"{path}: FotW says " + ", ".join(f"{name.strip()} {value.strip()}" for name, value
                                            in list(zip(rows[0], rows[1]))[-2:]) + "; not trained on")
    return path


def summary(seconds: Dict[str, float]) -> str:
    """What came out: accuracies, minutes, files."""
    from gender_smile.evaluation.faces import ensembles
    from gender_smile.evaluation.scores import percent

    with open(recipe.absolute(RESULTS), encoding="utf-8") as stream:
        results = json.load(stream)
    rows = [(task, " and ".join(recipe.NETS[net].title for net in nets) + (", mean" if len(nets) > 1 else ""), key)
            for key, (task, nets) in ensembles().items()]
    lines = [f"accuracy on {recipe.target().title}'s validation faces"]
    lines += [f"  {task:<7} {net:<22} {results[key]['accuracy']:7.2%}  of {results[key]['faces']:,} faces"
              f" (always the more common answer: {percent(results[key]['majority_accuracy'])})"
              for task, net, key in rows]
    lines += ["minutes"]
    lines += [f"  {title:<35} {value / 60:6.1f}" for title, value in seconds.items()]
    lines += [f"  {'all':<35} {sum(seconds.values()) / 60:6.1f}", "files"]
    files = {"LMDBs": f"data/{PROFILE}", "weights": f"weights/{PROFILE}",
             "logs and curves": f"runs/{PROFILE}", "results": RESULTS, "prediction": PICTURE}
    return "\n".join(lines + [f"  {name:<16} {path}" for name, path in files.items()
                              if os.path.exists(recipe.absolute(path))])


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", metavar="FOLDER", help="CelebA (default: drawn faces)")
    parser.add_argument("--fotw", metavar="FOLDER", help="FotW (default: drawn faces)")
    add_engine(parser)
    parser.add_argument("--max-iter", type=positive, metavar="N",
                        help=f"iterations of each step (default: the recipe's; for drawn faces {recipe.DRAWN_MAX_ITER})")
    parser.add_argument("--force", action="store_true", help="do again what is done")
    return parser


def main(argv=None) -> int:
    """Return 0 when everything ran, 1 when a stage failed, 2 on wrong use, 130 when stopped."""
    parser = get_parser()
    options = parser.parse_args(argv)
    if bool(options.celeba) != bool(options.fotw):
        parser.error("--celeba and --fotw go together: CELEBA=path FOTW=path")
    return command.run("demo", lambda: run_all(options), StageError, status=1,
                       stopped="stopped; the same command resumes from here", writes=())


def run_all(options: argparse.Namespace) -> int:
    """Run all stages; the exit status."""
    seconds: Dict[str, float] = {}
    celeba, fotw, photo = _faces(options, seconds)
    for stage in stages(celeba, fotw, photo, options):
        run(stage, seconds)
    print(f"\n== summary\n{summary(seconds)}")
    if not options.celeba:
        print(f"These nets were trained on drawn faces, to show that every step runs: they know nothing of photographs.\n"
              f"For a photo of your own, with the released nets: {environment.as_typed(['tools/predict.py', 'photo.jpg'])}")
    return 0


def _faces(options: argparse.Namespace, seconds: Dict[str, float]) -> Tuple[str, str, str]:
    """The folders of the two data sets, and the photo for the prediction."""
    if options.celeba:
        celeba, fotw = os.path.abspath(options.celeba), os.path.abspath(options.fotw)
        return celeba, fotw, first_validation_photo(fotw)
    run(("faces", ["tools/draw_faces.py"] + (["--force"] if options.force else [])), seconds)
    return f"{FACES}/CelebA", f"{FACES}/FotW", draw_unseen()


if __name__ == "__main__":
    raise SystemExit(main())
