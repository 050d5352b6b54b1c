"""Nets without training whose answers differ from photo to photo, for what needs weights and not what they have learned."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np

import recipe


def write_random_nets(profile: str = "demo", seed: int = 3) -> None:
    """Step-4 weights of the pipeline's nets below recipe.ROOT, and their prototxts from this project if they are missing.

    Random and as large as a trained net's: He's initialization, conv1_1 bringing pixels of -129..161 to the scale of 1.
    """
    import torchcaffe as caffe

    prototxt = os.path.join("prototxt", profile)
    if not os.path.exists(recipe.absolute(prototxt)):
        shutil.copytree(Path(__file__).resolve().parents[2] / prototxt, recipe.absolute(prototxt))
    os.makedirs(recipe.absolute(f"weights/{profile}"), exist_ok=True)
    caffe.set_mode_cpu()
    generator = np.random.default_rng(seed)
    for net in recipe.PIPELINE_NETS:
        made = caffe.Net(recipe.absolute(recipe.deploy_prototxt(profile, recipe.NETS[net].task)), caffe.TEST)
        for name, (weights, bias) in made.params.items():
            deviation = math.sqrt(2 / math.prod(weights.data.shape[1:])) / (64 if name == "conv1_1" else 1)
            weights.data[...] = generator.normal(0, deviation, weights.data.shape)
            bias.data[...] = generator.normal(0, 0.1, bias.data.shape)
        made.save(recipe.absolute(recipe.step_weights(profile, net, 4)))
