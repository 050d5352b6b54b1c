"""What make hands to the tools: every variable as it was typed."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

ODD = "a$b $(shell echo c) it's;`x`\"%\\.jpg"


def handed_on(root, *arguments: str, **variables: str) -> list:
    """Words of the command that `make` would run. PY=: of the recipes stands for the interpreter."""
    done = subprocess.run(["make", "-n", "-o", ".venv/ready", *arguments], cwd=root, capture_output=True, text=True,
                          env={**{k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}, **variables})
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.replace("\\\n", " "))[1:]


@pytest.mark.parametrize("environment", [False, True])
def test_a_path_is_one_word_as_it_was_typed(root, environment):
    given = {"variables": {"IMAGE": ODD}} if environment else {"arguments": [f"IMAGE={ODD}"]}
    words = handed_on(root, "predict", *given.get("arguments", ()), **given.get("variables", {}))
    assert words[:3] == ["-m", "tools.predict", ODD]
    assert handed_on(root, "crops", *given.get("arguments", ()), **given.get("variables", {})) == ["-m", "tools.crops", ODD]


def test_other_variables_are_words_as_they_were_typed(root):
    words = handed_on(root, "step2", "NET=gnet snet1", "PROFILE=demo;$HOME", "SEED=1$x", "BATCH=`8`")
    assert words == ["-m", "tools.train", "--step", "2", "--net", "gnet", "snet1", "--profile", "demo;$HOME",
                     "--batch", "`8`", "--seed", "1$x"]
    assert handed_on(root, "crops", "FOTW=~/a b") == ["-m", "tools.crops", "--folder", os.path.expanduser("~/a b")]


def test_a_variant_reaches_what_answers_with_it(root):
    assert handed_on(root, "predict", "IMAGE=a.jpg", "VARIANT=bf16") == ["-m", "tools.predict", "a.jpg", "--variant", "bf16"]
    assert handed_on(root, "web", "VARIANT=bf16") == ["-m", "tools.web", "--variant", "bf16"]


def test_what_is_empty_is_left_out(root):
    assert handed_on(root, "status", "PROFILE= ") == ["-m", "tools.status"]
