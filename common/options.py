"""Command-line options that several tools share, under the same names and with the same defaults."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any, List

import recipe
from common.engine import NAMES, PREDICTING

LARGEST = 2**31 - 1  # of an int32, as max_iter and batch_size are in Caffe's protos
LARGEST_SEED = 2**32 - 1  # the generators take 32 bits; to Caffe -1 means another seed each time
FLOATS = (2.0**-126, (2 - 2.0**-23) * 2.0**127)  # the normal numbers of a float32, as base_lr is


def whole_number(text: str) -> int:
    """A whole number, as an argument's type."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def positive(text: str) -> int:
    """A whole number from 1 to LARGEST, as an argument's type."""
    if not 1 <= (value := whole_number(text)) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number, 1 to {LARGEST}")
    return value


def natural(text: str) -> int:
    """A whole number from 0 on, as an argument's type."""
    if (value := whole_number(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def gpu_list(text: str) -> List[int]:
    """Numbers of several GPUs, such as "0,1,2,3", as an argument's type."""
    numbers = [natural(part) for part in text.split(",")]
    if len(numbers) < 2 or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text} is not a list of GPU numbers such as 0,1,2,3; for one GPU: GPU= (--gpu)")
    return numbers


def random_seed(text: str) -> int:
    """A random seed, 0 to LARGEST_SEED, as an argument's type."""
    if not 0 <= (value := whole_number(text)) <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text} is not a seed, 0 to {LARGEST_SEED}")
    return value


def real(text: str) -> float:
    """A number, as an argument's type."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def positive_real(text: str) -> float:
    """A number above 0 that a float32 holds, as an argument's type."""
    if not FLOATS[0] <= (value := real(text)) <= FLOATS[1]:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number ({FLOATS[0]:.3g} to {FLOATS[1]:.3g})")
    return value


def part_of_a_name(text: str) -> str:
    """Letters, digits, "_", "-" and inner dots, which stay in a file's name, as an argument's type."""
    if text and not re.fullmatch(r"[\w-]+(\.[\w-]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a file's name: letters, digits, _ and - only")
    return text


def variant(text: str) -> str:
    """A variant's name, as an argument's type; "none" is the chain's own results, ""."""
    return "" if text == "none" else part_of_a_name(text)


def share(text: str) -> float:
    """A share, more than 0 and at most 1, as an argument's type."""
    if not 0 < (value := real(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, more than 0 and at most 1")
    return value


def profile_name(text: str) -> str:
    """A profile of recipe.py, as an argument's type: unlike `choices`, a type is asked about defaults too."""
    if text not in recipe.PROFILES:
        raise argparse.ArgumentTypeError(f"unknown profile {text!r}: {' or '.join(recipe.PROFILES)}")
    return text


def add_profile(parser: argparse.ArgumentParser) -> None:
    """--profile: the environment's PROFILE, else the paper's."""
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or recipe.PAPER.name, type=profile_name,
                        metavar=f"{{{','.join(sorted(recipe.PROFILES))}}}", help="default: %(default)s")


def add_trained_profile(parser: argparse.ArgumentParser) -> None:
    """--profile and --variant of what needs trained nets: "auto" is gender_smile.inference.classifier.choose_profile's."""
    parser.add_argument("--profile", default="auto", choices=("auto", *recipe.PROFILES),
                        help="whose step-4 weights: auto takes the first of paper, demo and small that are there and were "
                             "trained on photographs (default: auto)")
    parser.add_argument("--variant", type=variant, default="", metavar="NAME", help="take the step-4 weights of the trainings "
                        "of this name (tools/train.py, tools/tables.py) instead of the chain's own")


def threshold(text: str) -> float:
    """A probability below which an answer is uncertain, 0.5 to 1, or 0 for none, as an argument's type."""
    if not ((value := real(text)) == 0 or 0.5 <= value <= 1):
        raise argparse.ArgumentTypeError(f"{text} is neither 0 (off) nor a probability from 0.5 to 1")
    return value


def add_threshold(parser: argparse.ArgumentParser, default: float) -> None:
    """--threshold: below which probability an answer is called uncertain."""
    parser.add_argument("--threshold", type=threshold, default=default, metavar="P",
                        help="call answers of a lower probability uncertain, 0.5 to 1; 0: none (default: %(default)s)")


def add_engine(parser: argparse.ArgumentParser, where: Any = None, predicting: bool = False) -> None:
    """--engine (default: the environment's ENGINE, else auto) and --gpu, this into the group `where` if given.

    predicting: for what answers photos, which OpenCV can do too.
    """
    text = ("OpenCV, real Caffe or torchcaffe; auto: real Caffe where Python imports it, else OpenCV for small nets on the CPU"
            if predicting else "real Caffe or torchcaffe; auto: real Caffe where Python imports it")
    names = PREDICTING if predicting else NAMES

    def known(name: str) -> str:
        if name not in names:  # the environment's too, which `choices` would not check
            only = ", which only answers photos" if name in PREDICTING else ""
            raise argparse.ArgumentTypeError(f"invalid choice: {name!r}{only} (choose from {', '.join(names)})")
        return name

    parser.add_argument("--engine", default=os.environ.get("ENGINE") or "auto", type=known, metavar=f"{{{','.join(names)}}}",
                        help=f"{text} (default: %(default)s)")
    (where or parser).add_argument("--gpu", type=natural, metavar="NUMBER", help="GPU to run on (default: the CPU)")
