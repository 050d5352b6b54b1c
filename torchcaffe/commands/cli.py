"""Caffe's command line: `caffe` (train, test, time, device_query) and its tools as subcommands of `torchcaffe`.

    torchcaffe train -solver solver.prototxt -weights start.caffemodel
    torchcaffe test -model net.prototxt -weights net.caffemodel -iterations 100
    torchcaffe summary net.prototxt
    torchcaffe export deploy.prototxt net.caffemodel --onnx net.onnx
    torchcaffe convert_imageset -resize_width 64 -resize_height 64 photos/ list.txt photos_lmdb

From a checkout, or where only the module is on the path: python -m torchcaffe.

Flags and log lines are Caffe's. A user's mistake ends in one line on stderr and exit status 1.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

from torchcaffe.core import mode
from torchcaffe.commands.flags import UsageError, describe, parse
from torchcaffe.core.errors import CaffeError
from torchcaffe.core.names import suggestion
from torchcaffe.core.permission import allow_python_layers

_PYTHON_LAYERS = (False, "allow the net to import and run the modules of its Python layers")
_CONTRIB = (False, "know the layers of torchcaffe.contrib, such as Normalize (docs/contrib.md)")
_CAFFE_FLAGS = {
    "solver": ("", "train: the solver's prototxt"),
    "model": ("", "test, time: the net's prototxt"),
    "weights": ("", "train: weights to start from, file,file,...; test: weights to test"),
    "snapshot": ("", "train: .solverstate to resume from"),
    "gpu": ("", "GPU number, or several (0,1 or all: train runs one process each); default: the CPU"),
    "precision": ("float32", "train: float32 as Caffe, tf32 (GPUs) or bf16; not a flag of Caffe's"),
    "deterministic": (False, "train: the same bits from run to run on a GPU, too; slower; not a flag of Caffe's"),
    "compile": ("auto", "train: by torch.compile (1), or not (0); auto: on a GPU; not a flag of Caffe's"),
    "iterations": (50, "test, time: number of batches"),
    "phase": ("", "time: TRAIN (default) or TEST"),
    "level": (0, "level of the net's state"),
    "stage": ("", "stages of the net's state, stage,stage,..."),
    "sigint_effect": ("stop", "train: what SIGINT (Ctrl-C) does: snapshot, stop or none"),
    "sighup_effect": ("snapshot", "train: what SIGHUP does: snapshot, stop or none"),
    "python_layers": _PYTHON_LAYERS,
    "contrib": _CONTRIB,
}
_UPGRADE = {"contrib": _CONTRIB}
_BACKEND = ("lmdb", "kind of database: lmdb or leveldb")


class Verb(NamedTuple):
    """One command: its module, summary, flags and positional arguments."""

    home: str
    summary: str
    flags: dict
    words: str = ""


VERBS = {
    "train": Verb("training", "train or finetune a model", _CAFFE_FLAGS),
    "test": Verb("testing", "score a model", _CAFFE_FLAGS),
    "device_query": Verb("devices", "show GPU diagnostic information", _CAFFE_FLAGS),
    "time": Verb("timing", "benchmark model execution time", _CAFFE_FLAGS),
    "convert_imageset": Verb(
        "convert_imageset",
        "convert a list of images to an LMDB or LevelDB",
        {
            "gray": (False, "read images as grayscale"),
            "shuffle": (False, "shuffle the list"),
            "backend": _BACKEND,
            "resize_width": (0, "width to resize to (with resize_height)"),
            "resize_height": (0, "height to resize to (with resize_width)"),
            "check_size": (False, "check that all records have the same size"),
            "encoded": (False, "store image files, not pixels"),
            "encode_type": ("", "store image files of this type: png, jpg ..."),
        },
        "ROOTFOLDER/ LISTFILE DB_NAME",
    ),
    "compute_image_mean": Verb(
        "compute_image_mean", "mean image of a database", {"backend": _BACKEND}, "INPUT_DB [OUTPUT_FILE]"
    ),
    "extract_features": Verb(
        "extract_features",
        "store a net's blobs in databases",
        {"python_layers": _PYTHON_LAYERS, "contrib": _CONTRIB},
        "WEIGHTS MODEL BLOB[,BLOB...] DB[,DB...] MINI_BATCHES lmdb|leveldb [CPU|GPU] [DEVICE_ID]",
    ),
    "upgrade_net_proto_text": Verb("upgrade", "upgrade a net's prototxt to Caffe 1.0's form", _UPGRADE, "INPUT OUTPUT"),
    "upgrade_net_proto_binary": Verb("upgrade", "upgrade a caffemodel to Caffe 1.0's form", _UPGRADE, "INPUT OUTPUT"),
    "upgrade_solver_proto_text": Verb("upgrade", "upgrade a solver's prototxt to Caffe 1.0's form", _UPGRADE, "INPUT OUTPUT"),
    "summary": Verb(
        "summary",
        "show a net's layers, output shapes and parameters",
        {
            "weights": ("", "also say which layers this weights file would set"),
            "phase": ("TEST", "the net of this phase: TRAIN or TEST"),
            "level": (0, "level of the net's state"),
            "stage": ("", "stages of the net's state, stage,stage,..."),
            "python_layers": _PYTHON_LAYERS,
            "contrib": _CONTRIB,
        },
        "NET_PROTOTXT",
    ),
    "export": Verb(
        "export",
        "write a net with its weights as ONNX, safetensors or PyTorch's .pt2",
        {
            "onnx": ("", "ONNX file to write"),
            "safetensors": ("", "safetensors file to write: the weights alone"),
            "pt2": ("", "file to write for torch.export.load, which runs without torchcaffe"),
            "level": (0, "level of the net's state"),
            "stage": ("", "stages of the net's state, stage,stage,..."),
            "python_layers": _PYTHON_LAYERS,
        },
        "DEPLOY_PROTOTXT WEIGHTS",
    ),
    "draw_net": Verb(
        "drawing",
        "draw a net",
        {
            "rankdir": ("LR", "direction: LR, TB, RL or BT"),
            "phase": ("ALL", "draw this phase: TRAIN, TEST or ALL"),
            "display_lrm": (False, "show learning-rate multipliers"),
            "contrib": _CONTRIB,
        },
        "INPUT_PROTOTXT OUTPUT_IMAGE",
    ),
}


def main(argv=None) -> int:
    """Run one subcommand; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    try:
        if any(word.lstrip("-") in ("help", "h") and word.startswith("-") for word in words):
            print(usage(name if name in VERBS else ""), flush=True)
            return 0
        if [word.lstrip("-") for word in words] == ["version"]:
            print("caffe version 1.0.0")
            return 0
        if name in VERBS and VERBS[name].flags is not _CAFFE_FLAGS:
            return _run(name, *parse(words[1:], VERBS[name].flags))
        flags, others = parse(words, _CAFFE_FLAGS)
        if len(others) != 1:
            print(usage(), flush=True)
            return 0
        name = others[0]
        if name not in VERBS:
            raise UsageError(f"unknown action '{name}'; {suggestion(name, VERBS, 'the actions are')}")
        return _run(name, flags, [])
    except (UsageError, CaffeError, ImportError) as problem:
        where = f"rank {mode.solver_rank()}: " if mode.solver_rank() else ""
        print(f"torchcaffe{' ' + name if name in VERBS else ''}: {where}{problem}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of stdout has gone: torchcaffe --help | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _run(name, flags, others):
    least, most = _counts(VERBS[name].words)
    if not least <= len(others) <= most:
        raise UsageError(f"usage: {program()} {name} [FLAGS] {VERBS[name].words}")
    if getattr(flags, "python_layers", False):
        allow_python_layers()
    if getattr(flags, "contrib", False):
        importlib.import_module("torchcaffe.contrib")
    module = importlib.import_module(f"torchcaffe.commands.{VERBS[name].home}")
    return getattr(module, name)(flags, *others) or 0


def _counts(words):
    """(smallest, largest) number of arguments for a usage such as "IN [OUT]"."""
    names = words.split()
    return sum(not name.startswith("[") for name in names), len(names)


def program() -> str:
    """How the user started this command line: the installed command `torchcaffe`, or the module."""
    return "torchcaffe" if os.path.basename(sys.argv[0]) == "torchcaffe" else "python -m torchcaffe"


def usage(name: str = "") -> str:
    """Help on one subcommand, or the list of all."""
    if name:
        verb = VERBS[name]
        lines = [f"usage: {program()} {name} [FLAGS] {verb.words}".rstrip(), "", verb.summary]
        return "\n".join(lines + (["", "flags:", describe(verb.flags)] if verb.flags else []))
    commands = "\n".join(f"  {name:<26}{verb.summary}" for name, verb in VERBS.items())
    return (
        f"usage: {program()} <command> <args>\n\ncommands:\n{commands}\n\n`<command> -help` lists its flags."
    )
