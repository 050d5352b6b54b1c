"""Stage 3 of the test pipeline: a trained net in its deploy form, crops in, probabilities out; and the engine it runs on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple, Union

import recipe
from gender_smile.inference.model import Model

if TYPE_CHECKING:
    import numpy as np

# Crops per forward pass. Matrix products round differently for other batch sizes, in every engine and on every device:
# with one at a time, a face gets the same digits alone and among others.
BATCH = 1
AUTO = (recipe.PAPER.name, recipe.DEMO.name, recipe.SMALL.name)  # profiles, the first choice first


class PipelineError(RuntimeError):
    """The pipeline cannot run: a file is missing or wrong. The message names it and the command that makes it."""


def choose_profile(profile: str = "auto", variant: str = "") -> str:
    """Name of the profile whose step-4 weights to use; "auto" is the first of AUTO whose are all there.

    Nets that were trained on drawn faces are taken by name only: they answer photographs at random. variant: whose weights
    to look for, "" for the chain's own. Raises PipelineError that says what to type.
    """
    if profile != "auto":
        if profile not in recipe.PROFILES:
            raise PipelineError(f"unknown profile {profile!r}: use auto, {', '.join(recipe.PROFILES)}")
        return profile
    drawn = ""
    for name in AUTO:
        weights = {net: step4_weights(name, net, variant) for net in recipe.PIPELINE_NETS}
        if all(os.path.isfile(recipe.absolute(path)) for path in weights.values()):
            if not Model.of(name, variant, weights).drawn:
                return name
            drawn = drawn or name
    paper, demo, small = (step4_weights(name, "gnet", variant) for name in AUTO)
    missing = (f"neither {paper} nor {demo} nor {small} and their companions are there; make status (PROFILE=demo) lists the "
               "variants" if variant else
               f"neither {paper} (make step4) nor {demo} (make demo) nor {small} (released: git checkout weights/small) and "
               "their companions are there")
    if drawn:
        raise PipelineError(f"no weights trained on photographs{' of variant ' + variant if variant else ''}: those of profile "
                            f"{drawn} were trained on drawn faces, and answer where you ask for them: --profile {drawn} "
                            f"(PROFILE={drawn}). For photographs: git checkout weights/small")
    raise PipelineError(f"no trained weights{' of variant ' + variant if variant else ''}: {missing}")


def step4_weights(profile: str, net: str, variant: str = "") -> str:
    """A net's final weights, Model 3, of a variant or the chain's own (""), below the project's folder."""
    if not variant:
        return recipe.step_weights(profile, net, 4)
    from gender_smile.training import chain

    return chain.Row(recipe.PROFILES[profile], net, 4, variant=variant).weights_out


def weights_path(profile: str, net: str, variant: str = "") -> str:
    """Absolute path of step4_weights."""
    return recipe.absolute(step4_weights(profile, net, variant))


def pipeline_weights(profile: str, variant: str = "") -> Dict[str, str]:
    """Net of the pipeline -> step4_weights. Raises PipelineError where one of a variant is missing."""
    found = {net: step4_weights(profile, net, variant) for net in recipe.PIPELINE_NETS}
    for path in found.values() if variant else ():
        if not os.path.isfile(recipe.absolute(path)):
            raise PipelineError(f"{path} is missing: is --variant {variant} as tools/train.py or tools/tables.py named it?")
    return found


def load_engine(engine: str = "auto", gpu: Optional[int] = None, predicting: bool = False) -> Any:
    """The module that speaks pycaffe, set to the CPU or to GPU number `gpu`; it logs no INFO unless GLOG_minloglevel says so.

    predicting: for answers to photos, which OpenCV may give where no GPU is asked for.
    """
    from common.engine import resolve

    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    try:
        caffe = resolve(engine, predicting=True) if predicting and gpu is None else resolve(engine)
        set_device(caffe, gpu)
    except RuntimeError as error:
        reason = getattr(error, "reason", None)  # of torchcaffe's NoGPUError
        remedy = f"{reason}; leave out --gpu (GPU= of make) to compute on the CPU"
        raise PipelineError(remedy if reason else str(error)) from error
    return caffe


def set_device(caffe: Any, gpu: Optional[int]) -> None:
    """Set this thread (modes are a thread's own, in Caffe too) to the CPU, or to GPU number `gpu`."""
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()


class Classifier:
    """One trained net (GNet, SNet1, ...) in its deploy form: crops in, probabilities out.

    caffe: a module that speaks pycaffe; weights: another file than the chain's. Raises PipelineError where a file is
    missing.
    """

    def __init__(self, caffe: Any, profile: str, net: str, weights: Optional[str] = None):
        self.caffe, self.net_key, self.batch = caffe, net, BATCH
        self.profile = recipe.PROFILES[profile]
        self.task = recipe.TASKS[recipe.NETS[net].task]
        self.crop = recipe.CROPS[recipe.NETS[net].crop]
        self.definition = recipe.deploy_prototxt(profile, self.task.name)
        self.weights = weights or recipe.step_weights(profile, net, 4)
        option = "" if profile == recipe.PAPER.name else f" PROFILE={profile}"
        self.net = load_net(caffe, self.definition, self.weights, f"make step4 NET={net}{option}")
        self.size = self.net.blobs["data"].data.shape[-1]  # of its input, in pixels

    def probabilities(self, crops: Sequence["np.ndarray"]) -> "np.ndarray":
        """Probability of class 1 ("female" or "smiling") of each crop: the mean over what the net looks at (`views`).

        crops: N x stored_size x stored_size x 3 uint8, BGR, 0..255, cut by this net's scheme. Returns N float64 in 0..1.
        """
        import numpy as np

        results = np.empty(len(crops), dtype=np.float64)
        for start in range(0, len(crops), self.batch):
            part = crops[start : start + self.batch]
            answers = [forward(self.net, view, self.weights)[:, 1].astype(np.float64) for view in self.views(part)]
            results[start : start + len(part)] = np.mean(answers, axis=0)
        return results

    def views(self, crops: Sequence["np.ndarray"]) -> Tuple["np.ndarray", ...]:
        """What an answer is the mean of: the crops, and where the profile says so their mirror images; N x H x W x 3 each."""
        import numpy as np

        straight = np.asarray(crops)
        return (straight, straight[:, :, ::-1]) if self.profile.mirrored_answers else (straight,)

    @property
    def engine(self) -> str:
        """What computes this net: "opencv", "torch" or "caffe"."""
        return getattr(self.net, "engine", "caffe" if self.caffe.__name__ == "caffe" else "torch")

    def with_gradients(self) -> "Classifier":
        """This classifier where its engine has a backward pass, else the same on torchcaffe."""
        if self.caffe.__name__ != "common.opencv":
            return self
        return Classifier(load_engine("torch"), self.profile.name, self.net_key, self.weights)

    def center(self, crop: "np.ndarray") -> "np.ndarray":
        """The center of a stored crop, which is the net's input: size x size x 3 uint8, BGR (a view)."""
        top, left = (crop.shape[0] - self.size) // 2, (crop.shape[1] - self.size) // 2
        return crop[top : top + self.size, left : left + self.size]


def load_net(caffe: Any, definition: str, weights: str, command: str) -> Any:
    """A trained net in its deploy form; paths below the project's folder, `command` makes the weights.

    Raises PipelineError where a file is missing or does not fit.
    """
    for path, maker in ((definition, "make prototxt"), (weights, command)):
        if not os.path.isfile(recipe.absolute(path)):
            raise PipelineError(f"{path} is missing: {maker} makes it")
    try:
        return caffe.Net(recipe.absolute(definition), caffe.TEST, weights=recipe.absolute(weights))
    except (RuntimeError, OSError) as error:
        raise PipelineError(f"cannot load {weights} into {definition}: {error}") from error


def forward(net: Any, crops: Union["np.ndarray", Sequence["np.ndarray"]], weights: str) -> "np.ndarray":
    """Output "prob" of a net of load_net for stored crops: N x classes float32, 0..1, the net's own memory.

    crops: N x stored_size x stored_size x 3 uint8, BGR. Raises PipelineError, which names `weights`, for NaN or Inf.
    """
    import numpy as np
    from lmdb_builders.crops import to_blob

    blob = to_blob(np.asarray(crops), net.blobs["data"].data.shape[-1])
    fill(net, blob)
    probabilities = net.forward()["prob"].reshape(len(blob), -1)
    if not np.isfinite(probabilities).all():
        raise PipelineError(f"{weights} outputs NaN or Inf: train it again (FORCE=1)")
    return probabilities


def fill(net: Any, blob: "np.ndarray") -> None:
    """Set a net's input to `blob`, N x 3 x size x size float32, BGR, mean subtracted; reshapes the net for another N."""
    data = net.blobs["data"]
    if tuple(data.data.shape) != blob.shape:
        data.reshape(*blob.shape)
    data.data[...] = blob
