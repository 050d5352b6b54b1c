"""Trained nets for other programs: ONNX, safetensors, and a JSON that says how their input is made.

    python tools/export.py                               # GNet, SNet1, SNet2 into weights/PROFILE/export/
    python tools/export.py --net gnet --profile demo --output somewhere

Each net becomes <net>.onnx, <net>.safetensors and <net>.json. The ONNX file is run by onnxruntime beside the engine and
gets its name only where both give the same answers. Needs: pip install -e '.[export]'.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import json
import os
from typing import Any, Dict, Sequence, Tuple

import recipe
from common import command
from common.options import add_trained_profile, variant

TOLERANCE = 1e-4  # of probabilities, and of their logarithms relative to them
BATCHES = (1, 3)  # how many crops at a time are compared
KEY = "preprocessing"  # of the metadata that the ONNX and the safetensors file carry: the JSON's text


def preprocessing(profile: str, net: str, sha256: str, weights: str = "") -> Dict[str, Any]:
    """Plain data: all that a program needs to make the net's input from a photo with five landmarks, from recipe.py.

    sha256: of the caffemodel that the net has its weights from; weights: its path, where it is not the chain's own.
    """
    settings, entry = recipe.PROFILES[profile], recipe.NETS[net]
    task, crop, size = recipe.TASKS[entry.task], recipe.CROPS[entry.crop], settings.crop_size
    return {
        "net": entry.title,
        "task": task.name,
        "labels": list(task.classes),
        "averaged_with": [
            recipe.NETS[other].title
            for other in recipe.ENSEMBLES[task.name]
            if other != net and net in recipe.ENSEMBLES[task.name]
        ],
        "profile": profile,
        "weights": {"file": os.path.basename(weights or recipe.step_weights(profile, net, 4)), "sha256": sha256},
        "input": {
            "name": "data", "shape": ["batch", 3, size, size], "dtype": "float32", "channel_order": "BGR",
            "pixels": [0, 255], "mean_subtracted": list(recipe.MEAN_BGR),
        },
        "output": {"name": "prob", "shape": ["batch", len(task.classes)], "dtype": "float32",
                   "meaning": "probability of each label"},
        "crop": {
            "scheme": crop.name, "aligned": crop.aligned, "center": list(crop.center), "side": crop.side,
            "size": settings.stored_size, "kept_middle": size, "describes": crop.describes,
            "landmarks": ["left eye", "right eye", "nose", "left mouth corner", "right mouth corner"],
            "template": [list(point) for point in recipe.FACE_TEMPLATE],
            "geometry": "a similarity is fitted (least squares) from the template to the photo's landmarks, left as "
            "the viewer sees it; center and side are a square in the template's units, turned with the face where aligned "
            "is true; it is resampled once to size x size pixels, of which the middle kept_middle x kept_middle are "
            "the input",
            "resampling": "bilinear; where the crop is smaller than its part of the photo, the mean of what a pixel "
            "covers; the photo's edge pixels are repeated outside",
        },
    }  # fmt: skip


def export(profile: str, net: str, folder: str, variant: str = "") -> Tuple[Dict[str, str], float]:
    """Write the three files of one net, of a variant with its name, into `folder`, which is made: ({"onnx", "safetensors",
    "json": path}, the largest difference found between onnxruntime and the engine).

    Raises gender_smile.inference.pipeline.PipelineError where weights are missing, torchcaffe.formats.export.ExportError for a missing package
    or answers that differ.
    """
    import torchcaffe
    from torchcaffe.formats import export as exporting
    from torchcaffe.formats.files import atomic_write

    from gender_smile.training import chain
    from common.files import sha256_of
    from gender_smile.inference.pipeline import Classifier

    torchcaffe.set_mode_cpu()
    weights = chain.Row(recipe.PROFILES[profile], net, 4, variant=variant).weights_out
    trained = Classifier(torchcaffe, profile, net, weights=weights)
    text = json.dumps(preprocessing(profile, net, sha256_of(recipe.absolute(weights)), weights), indent=1)
    os.makedirs(folder, exist_ok=True)
    stem = f"{net}-{variant}" if variant else net
    paths = {kind: os.path.join(folder, f"{stem}.{kind}") for kind in ("onnx", "safetensors", "json")}
    difference = exporting.write_onnx(paths["onnx"], trained.net, {KEY: text}, lambda path: check(path, trained))
    exporting.write_safetensors(paths["safetensors"], trained.net, {KEY: text})
    with atomic_write(paths["json"]) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
    return paths, difference


def check(path: str, trained) -> float:
    """compare(), at most TOLERANCE: torchcaffe.formats.export.ExportError for more."""
    from torchcaffe.formats.export import ExportError

    difference = compare(path, trained)
    if not difference <= TOLERANCE:
        raise ExportError(f"{trained.net_key}.onnx: onnxruntime's answers differ from the engine's by {difference:.1e}, "
                          f"more than {TOLERANCE}: it is not written")
    return difference


def compare(path: str, trained) -> float:
    """Largest difference between onnxruntime's answers for the ONNX file and a Classifier's, for random pictures.

    Of probabilities, and of their logarithms divided by those (where larger than 1): a probability near 0 or 1 alone
    would hide what is wrong before the softmax.
    """
    import numpy as np
    from lmdb_builders.preprocess import to_blob
    from torchcaffe.core import extras

    session = extras.load("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    generator, largest = np.random.default_rng(2016), 0.0
    for count in BATCHES:
        blob = to_blob(generator.integers(0, 256, (count, trained.size, trained.size, 3), dtype=np.uint8))
        trained.net.blobs["data"].reshape(*blob.shape)
        ours = np.array(trained.net.forward(data=blob)["prob"], np.float64)
        theirs = session.run(["prob"], {"data": blob})[0].astype(np.float64)
        logarithms = [np.log(np.maximum(answers, 1e-30)) for answers in (ours, theirs)]
        relative = np.abs(logarithms[0] - logarithms[1]) / np.maximum(1, np.abs(logarithms[0]))
        largest = float(np.maximum(largest, np.maximum(np.abs(ours - theirs), relative).max()))
    return largest


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="+", choices=sorted(recipe.NETS), default=list(recipe.PIPELINE_NETS),
                        metavar="NET", help=f"{', '.join(recipe.NETS)} (default: {' '.join(recipe.PIPELINE_NETS)})")
    add_trained_profile(parser)
    parser.add_argument("--output", metavar="FOLDER", help="default: weights/PROFILE/export")
    parser.add_argument("--variant", type=variant, default="", metavar="NAME", help="of the trainings, as tools/train.py named "
                        "them (default: the chain's own)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when all nets are written, 1 when not; those written before stay."""
    options = get_parser().parse_args(argv)
    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    from torchcaffe.core.errors import CaffeError

    from gender_smile.inference.pipeline import PipelineError

    return command.run("export", lambda: export_all(options), CaffeError, PipelineError, status=1,
                       writes=[os.path.join(_folder(options.profile, options), f"{net}.onnx") for net in options.net])


def _folder(profile: str, options: argparse.Namespace) -> str:
    return recipe.absolute(f"weights/{profile}/export") if options.output is None else options.output


def export_all(options: argparse.Namespace) -> int:
    """Export the nets that the command line names; the exit status."""
    from gender_smile.inference.pipeline import choose_profile

    profile = choose_profile(options.profile)
    folder = _folder(profile, options)
    for net in options.net:
        paths, difference = export(profile, net, folder, options.variant)
        names = ", ".join(os.path.relpath(path) for path in paths.values())
        print(f"{recipe.NETS[net].title}: {names}; onnxruntime differs from the engine by {difference:.1e}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
