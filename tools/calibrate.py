"""Make the probabilities of the trained nets what they say, on the validation faces of step 4.

    python tools/calibrate.py --profile small

Changes the last layer's weights and biases by a temperature and a shift, one of each a task, in the caffemodels of step 4:
probabilities become less (or more) certain, and those near one half may go to the other class.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
from typing import Sequence

import recipe
from common import command
from common.options import add_engine, add_profile


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_profile(parser)
    add_engine(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when all nets are calibrated, 2 for missing inputs; a task that is done stays."""
    options = get_parser().parse_args(argv)
    from gender_smile.inference.classifier import PipelineError
    from gender_smile.training.chain import ChainError

    weights = [recipe.absolute(recipe.step_weights(options.profile, net, 4)) for net in recipe.PIPELINE_NETS]
    return command.run("calibrate", lambda: calibrate_all(options), PipelineError, ChainError, writes=weights)


def calibrate_all(options: argparse.Namespace) -> int:
    """Calibrate the nets of each task; the exit status."""
    from gender_smile.evaluation.calibration import calibrate

    for task, nets in recipe.ENSEMBLES.items():
        value, shift, faces = calibrate(options.profile, task, options.engine, options.gpu)
        names = ", ".join(recipe.step_weights(options.profile, net, 4) for net in nets)
        print(f"{task}: scores divided by {value:.3f} and shifted by {shift:+.3f}, from {faces} validation faces; {names}",
              flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
