"""Trained nets for other programs: ONNX, safetensors, and a JSON that says how their input is made."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Tuple

import recipe
from common.files import sha256_of, write_text
from gender_smile.inference.classifier import Classifier, step4_weights

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
    """Write the three files of one net, with its variant's name, into `folder`, which is made.

    Returns ({"onnx", "safetensors", "json": path}, the largest difference between onnxruntime and the engine). Raises
    PipelineError where weights are missing, torchcaffe.formats.export.ExportError for a missing package or answers that
    differ.
    """
    import torchcaffe
    from torchcaffe.formats import export as exporting

    torchcaffe.set_mode_cpu()
    weights = step4_weights(profile, net, variant)
    trained = Classifier(torchcaffe, profile, net, weights=weights)
    text = json.dumps(preprocessing(profile, net, sha256_of(recipe.absolute(weights)), weights), indent=1)
    os.makedirs(folder, exist_ok=True)
    stem = f"{net}-{variant}" if variant else net
    paths = {kind: os.path.join(folder, f"{stem}.{kind}") for kind in ("onnx", "safetensors", "json")}
    difference = exporting.write_onnx(paths["onnx"], trained.net, {KEY: text}, lambda path: check(path, trained))
    exporting.write_safetensors(paths["safetensors"], trained.net, {KEY: text})
    write_text(paths["json"], text + "\n")
    return paths, difference


def check(path: str, trained: Classifier) -> float:
    """compare(), at most TOLERANCE: torchcaffe.formats.export.ExportError for more."""
    from torchcaffe.formats.export import ExportError

    difference = compare(path, trained)
    if not difference <= TOLERANCE:
        raise ExportError(f"{trained.net_key}.onnx: onnxruntime's answers differ from the engine's by {difference:.1e}, "
                          f"more than {TOLERANCE}: it is not written")
    return difference


def compare(path: str, trained: Classifier) -> float:
    """Largest difference between onnxruntime's answers for the ONNX file and a Classifier's, for random pictures.

    Of probabilities, and of their logarithms divided by those (where larger than 1): a probability near 0 or 1 alone
    would hide what is wrong before the softmax.
    """
    import numpy as np
    from lmdb_builders.crops import to_blob
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
