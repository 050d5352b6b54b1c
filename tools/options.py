"""Command-line options that several tools share, under the same names and with the same defaults."""

from __future__ import annotations

import argparse
import os
from typing import Any

import recipe
from tools.engine import NAMES


def positive(text: str) -> int:
    """A whole number from 1 on, as an argument's type."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0 on, as an argument's type."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return int(text)


def positive_real(text: str) -> float:
    """A finite number above 0, as an argument's type."""
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return float(text)


def share(text: str) -> float:
    """A share, more than 0 and at most 1, as an argument's type."""
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, more than 0 and at most 1")
    return float(text)


def add_profile(parser: argparse.ArgumentParser) -> None:
    """--profile: the environment's PROFILE, else the paper's."""
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or recipe.PAPER.name, choices=sorted(recipe.PROFILES),
                        help="default: %(default)s")


def add_trained_profile(parser: argparse.ArgumentParser) -> None:
    """--profile of what needs trained nets: "auto" is tools.classifier.choose_profile's."""
    parser.add_argument("--profile", default="auto", choices=("auto", *recipe.PROFILES),
                        help="whose step-4 weights: auto takes the paper's where they are, else the demo's (default: auto)")


def add_engine(parser: argparse.ArgumentParser, where: Any = None) -> None:
    """--engine (default: the environment's ENGINE, else auto) and --gpu, this into the group `where` if given."""
    parser.add_argument("--engine", default=os.environ.get("ENGINE") or "auto", choices=NAMES,
                        help="real Caffe or torchcaffe; auto: real Caffe where Python imports it (default: %(default)s)")
    (where or parser).add_argument("--gpu", type=int, metavar="NUMBER", help="GPU to run on (default: the CPU)")
