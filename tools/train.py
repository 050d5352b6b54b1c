"""Run steps of the paper's chain: step 1 adopts VGG-Face, steps 2 to 4 train, each from the weights of the one before.

    make step4 NET=gnet PROFILE=demo                         # or the same without make:
    python tools/train.py --step 4 --net gnet --profile demo
    python tools/train.py --step 1 2 3 4 --profile demo      # all of it, for GNet, SNet1 and SNet2

A step that is done says so and does nothing. Ctrl-C takes a snapshot; the same command resumes from it. Other settings
(--batch, --max-iter, --base-lr, --seed, --precision) go under a name of their own, such as step2_scheme3-batch8-iter2, and
start from the step before of that name, or else from the chain's own. --variant names them otherwise. Table 2's rows skip
steps: --weights starts from another file ("none": from random numbers).
--gpus 4 splits every batch over four GPUs (docs/distributed.md: more machines).
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import subprocess
import sys
import textwrap

import recipe
from common import command
from common.options import add_engine, add_profile, positive, positive_real, random_seed, variant

WIDTH = 100  # columns of what is printed


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, nargs="+", choices=sorted(recipe.STEPS), required=True, help="which steps")
    parser.add_argument("--net", nargs="+", choices=sorted(recipe.NETS), default=list(recipe.PIPELINE_NETS),
                        metavar="NET", help="which nets, of %(choices)s (default: %(default)s)")
    add_profile(parser)
    where = parser.add_mutually_exclusive_group()
    add_engine(parser, where)
    where.add_argument("--gpus", type=positive, metavar="N", help="split each batch over the GPUs 0 to N - 1")
    where.add_argument("--processes", type=positive, metavar="N", help="split each batch over N processes on the CPU")
    parser.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32",
                        help="how torchcaffe multiplies: float32 as Caffe (default), tf32 on a GPU, bf16")
    parser.add_argument("--deterministic", action="store_true", help="the same seed gives the same bits on a GPU, too, at some "
                        "cost in speed (on a CPU it always does)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="whether to train by torch.compile, which "
                        "takes time at the start and saves time in each iteration (default: on a GPU)")
    parser.add_argument("--batch", type=positive, metavar="N", help="training batch size instead of the recipe's")
    parser.add_argument("--iter-size", type=positive, metavar="N", help="divide each batch into N passes whose gradients are "
                        "added up: less memory, the same training")
    parser.add_argument("--max-iter", type=positive, metavar="N", help="iterations instead of the recipe's")
    parser.add_argument("--base-lr", type=positive_real, metavar="X", help="learning rate to start from instead of the "
                        "recipe's")
    parser.add_argument("--seed", type=random_seed, metavar="N", help="random seed instead of the recipe's: fillers, mirroring, "
                        "crops, dropout")
    parser.add_argument("--weights", metavar="FILE", help="caffemodel to start from instead of the previous step's, "
                        "or none; needs --variant")
    parser.add_argument("--variant", type=variant, metavar="NAME", help="added to the names of weights and run folder "
                        "(default: made of the numbers that are not the recipe's); none: the chain's own names")
    parser.add_argument("--keep", type=positive, metavar="N", help="newest snapshots that stay while a step runs, beside "
                        "the best one (default: 2)")
    parser.add_argument("--no-notes", action="store_true", help=argparse.SUPPRESS)  # for a table's second training and on
    parser.add_argument("--force", action="store_true", help="start again from iteration 0, done or not; what is "
                        "there stays until the new result is complete")
    return parser


def run(rows, interpreter, gpu=None, force=False, header=(), say=print, leader=None, keep=None, deterministic=False,
        passes=None, compiles=None):
    """Do `rows` (of gender_smile.training.chain) in order. Raises chain.ChainError, process.Stopped and the engine's CaffeError.

    leader: ranks.Leader where several processes train; keep, deterministic, passes, compiles: see runs.train.
    """
    from gender_smile.training import adopt, runs

    for row in rows:
        if row.step == 1 and row.trains:
            adopt.make_stand_in(row, say)
        if not row.trains:
            adopt.adopt(row, force=force, header=header, say=say)
        else:
            runs.train(row, interpreter, gpu=gpu, force=force, header=header, say=say, leader=leader,
                       keep=keep or runs.KEPT_SNAPSHOTS, deterministic=deterministic, passes=passes, compiles=compiles)


def plan(rows, interpreter, leader=None, show_notes: bool = True, gpu=None, passes=None) -> str:
    """Table of what will run, one line a row, the engine and device that run it, and what to know about it."""
    from gender_smile.training import chain
    from common import gpus
    from common.files import align
    from torchcaffe.formats import files

    lines, notes = [("step", "from (iterations)", "to", "rate", "iterations x batch", "state")], []
    for row in rows:
        state, numbers = chain.state(row), ("-", "-")
        if row.trains and os.path.exists(row.path(row.solver)):
            solver = files.read_solver(row.path(row.solver))
            numbers = (f"{row.base_lr or solver.base_lr:g}", f"{row.max_iter or solver.max_iter:,} x "
                       f"{row.batch or row.profile.batch_size}" + (f" in {passes} passes" if passes else ""))
            notes.append(poly_note(solver))
        at = f" at {state.iteration:,}" if state.kind == "interrupted" else ""
        lines.append((row.title, _from(row), _short(row, row.weights_out), *numbers, state.kind + at))
    where = leader if leader is not None else "the CPU" if gpu is None else f"GPU {gpu}"
    if gpu is None and (leader is None or not leader.gpus) and any(row.trains for row in rows):
        notes.append(gpus.idle_note())
    where = f"engine: {interpreter.title} on {where}; weights: weights/{rows[0].profile.name}/NAME.caffemodel"
    told = list(dict.fromkeys(filter(None, notes))) if show_notes else []
    return "\n".join([align(lines), where, *(textwrap.fill(note, WIDTH, subsequent_indent="      ") for note in told)])


def _short(row, path: str) -> str:
    """A weights file's name where it lies with the profile's others, else its path."""
    folder, name = os.path.split(path)
    return name.removesuffix(".caffemodel") if folder == f"weights/{row.profile.name}" else path


def _from(row) -> str:
    """What a row starts from: the file, and how long it was trained."""
    from gender_smile.training import chain

    start = chain.started_from(row)
    if start is None:
        return "random numbers"
    return _short(row, start["file"]) + (f" ({start['iteration']:,})" if start["iteration"] else "")


def poly_note(solver) -> str:
    """What Caffe makes of the paper's "polynomial with gamma 0.1"; empty for a solver without these two."""
    if solver.lr_policy != "poly" or not solver.HasField("gamma"):
        return ""
    return (f"note: gamma {solver.gamma:g} stands in the solvers because the paper names it; Caffe's poly policy does "
            f"not read it: rate = base_lr * (1 - iteration / max_iter) ^ {solver.power:g} (docs/fidelity.md)")


def header(options) -> list:
    """Head of a run's log: arguments and commit."""
    try:
        commit = subprocess.run(["git", "-C", recipe.ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                                capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    arguments = " ".join(f"{name}={value}" for name, value in sorted(vars(options).items()))
    return [f"tools/train.py {arguments}", f"commit {commit or 'unknown'}"]


def main(argv=None) -> int:
    """Return 0 when all is done, 1 when a step failed, 2 on wrong use, 130 when stopped with a snapshot."""
    parser = get_parser()
    options = parser.parse_args(argv)
    if options.weights and options.variant is None:
        parser.error("--weights (START=) needs --variant NAME (VARIANT=), so that the chain's own results stay what they are; "
                     "none is the chain's own name")
    if options.engine == "caffe" and options.precision != "float32":
        parser.error(f"real Caffe computes in float32: leave out --precision {options.precision} (PRECISION=), or take "
                     "ENGINE=torch")
    if options.engine == "caffe" and options.deterministic:
        parser.error("real Caffe has no deterministic mode: leave out --deterministic (DETERMINISTIC=), or take ENGINE=torch")
    if options.engine == "caffe" and options.compile:
        parser.error("real Caffe cannot be compiled: leave out --compile (COMPILE=), or take ENGINE=torch")
    if options.weights and len(options.step) > 1:
        parser.error("--weights is for one step at a time")
    from common import engine
    from gender_smile.training import chain
    from torchcaffe.core.errors import CaffeError

    return command.run("train", lambda: _train(options, sys.argv[1:] if argv is None else argv), chain.ChainError,
                       engine.EngineError, CaffeError, status=1, stopped="stopped", writes=())


def _train(options, arguments) -> int:
    """main's work: as one of several ranks, as their leader, or alone."""
    from common import engine
    from gender_smile.training import process, ranks

    leader, reason = None, None
    try:
        count = ranks.count(options)
        name = _engine(options.engine, count)
        if count > 1 and "RANK" not in os.environ:
            return ranks.launch(arguments, options)
        if count > 1 and os.environ["RANK"] != "0":
            return ranks.follow()
        if count > 1:
            leader = ranks.Leader(count, bool(options.gpus))
        gpu = 0 if options.gpus else options.gpu
        ours = options.precision != "float32" or options.deterministic or options.compile  # what only torchcaffe has
        interpreter = engine.interpreter("torch" if name == "auto" and ours else name)
        rows = _rows(options)
        print(plan(rows, interpreter, leader, not options.no_notes, gpu, options.iter_size), flush=True)
        run(rows, interpreter, gpu, options.force, header(options), say, leader, options.keep, options.deterministic,
            options.iter_size, options.compile)
        return 0
    except process.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return command.INTERRUPTED
    except Exception as error:
        reason = f"train: {error}"
        raise
    finally:
        if leader is not None:
            leader.close(reason)


def _rows(options) -> list:
    """The rows that the command line asks for."""
    from gender_smile.training import chain

    profile = recipe.PROFILES[options.profile]
    overrides = {"batch": options.batch, "max_iter": options.max_iter, "base_lr": options.base_lr,
                 "precision": options.precision, "seed": options.seed}
    variant = chain.variant_of(profile, **overrides) if options.variant is None else options.variant
    return chain.rows(profile, options.net, options.step, root=recipe.ROOT, start=_start(options), variant=variant, **overrides)


def _start(options):
    """Weights to start from: None for the step before's, "" for none; below the project's folder relative to it."""
    if options.weights in (None, "none"):
        return None if options.weights is None else ""
    path = os.path.abspath(options.weights)
    return os.path.relpath(path, recipe.ROOT) if path.startswith(recipe.ROOT + os.sep) else path


def _engine(name: str, count: int) -> str:
    """Engine for `count` processes. Raises chain.ChainError where it cannot train in several."""
    from gender_smile.training import chain

    if count > 1 and name == "caffe":
        raise chain.ChainError("real Caffe trains on several GPUs by itself (caffe train -gpu 0,1: batch_size a GPU); "
                               "here they are torchcaffe's: ENGINE=torch")
    return "torch" if count > 1 else name


def say(message: str):
    print(message, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
