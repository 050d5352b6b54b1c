"""The paper's test pipeline (Figure 1) as a library.

Stage 1 finds the central face and its five landmarks, stage 2 cuts one crop a scheme, stage 3 runs GNet on scheme 3 for
gender and averages the probabilities of SNet1 and SNet2 (schemes 1 and 5) for smile.

    from tools.pipeline import Pipeline
    pipeline = Pipeline.load()                  # paper's weights where they are, else the demo's
    print(pipeline.predict(image).as_dict())    # image: height x width x 3 uint8, BGR
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import recipe
from lmdb_builders.errors import ImageError

Crops = Dict[str, Any]  # net -> size x size x 3 uint8, BGR

BATCH = 16  # crops that go through a net at a time: VGG-Face at 224 pixels needs about 60 MB for each
NO_FACE = "no face found"


class PipelineError(RuntimeError):
    """The pipeline cannot run: a file is missing or wrong. The message names it and the command that makes it."""


@dataclass(frozen=True)
class Answer:
    """What a task's two outputs say: the likelier class and its probability (0.5..1)."""

    label: str
    probability: float

    @classmethod
    def of(cls, task: str, probability: float) -> "Answer":
        """Answer of `task` ("gender", "smile") from the probability of its class 1 ("female", "smiling")."""
        first, second = recipe.TASKS[task].classes
        return cls(second, probability) if probability > 0.5 else cls(first, 1.0 - probability)


@dataclass(frozen=True)
class Prediction:
    """The pipeline's answer for one photo: either `error`, or all of the rest.

    `face` is a detector.Face in pixels of the photo; `ones` has each net's probability of class 1 ("female" for GNet,
    "smiling" for SNet1 and SNet2), 0..1.
    """

    image: str = ""
    face: Any = None
    gender: Optional[Answer] = None
    smile: Optional[Answer] = None
    ones: Dict[str, float] = field(default_factory=dict)
    error: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        """Plain data for JSON: `image` with `face`, `gender` and `smile`, or `image` with `error`."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "face": {
                "box": [round(float(value), 2) for value in self.face.box],
                "score": round(float(self.face.score), 6),
                "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.face.landmarks],
            },
            "gender": {"label": self.gender.label, "probability": round(self.gender.probability, 6)},
            "smile": {
                "label": self.smile.label,
                "probability": round(self.smile.probability, 6),
                "snet1": round(self.ones["snet1"], 6),
                "snet2": round(self.ones["snet2"], 6),
            },
        }


def choose_profile(profile: str = "auto") -> str:
    """Name of the profile whose step-4 weights to use; "auto" is the paper's where all are there, else the demo's."""
    if profile != "auto":
        if profile not in recipe.PROFILES:
            raise PipelineError(f"unknown profile {profile!r}: use auto, {', '.join(recipe.PROFILES)}")
        return profile
    for name in (recipe.PAPER.name, recipe.DEMO.name):
        if all(os.path.isfile(weights_path(name, net)) for net in recipe.PIPELINE_NETS):
            return name
    raise PipelineError(
        f"no trained weights: neither {recipe.step_weights(recipe.PAPER.name, 'gnet', 4)} (make step4) nor "
        f"{recipe.step_weights(recipe.DEMO.name, 'gnet', 4)} (make demo) and their companions are there"
    )


def weights_path(profile: str, net: str) -> str:
    """Absolute path of a net's final weights, Model 3."""
    return recipe.absolute(recipe.step_weights(profile, net, 4))


def load_engine(engine: str = "auto", gpu: Optional[int] = None):
    """The module that speaks pycaffe, set to the CPU or to GPU number `gpu`."""
    from tools.engine import resolve

    try:
        caffe = resolve(engine)
        if gpu is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(gpu)
            caffe.set_mode_gpu()
    except RuntimeError as error:
        raise PipelineError(str(error)) from error
    return caffe


class Classifier:
    """One trained net (GNet, SNet1, ...) in its deploy form: crops in, probabilities out.

    caffe: a module that speaks pycaffe. Raises PipelineError where a file is missing.
    """

    def __init__(self, caffe, profile: str, net: str, batch: int = BATCH):
        self.caffe, self.net_key, self.batch = caffe, net, batch
        self.profile = recipe.PROFILES[profile]
        self.task = recipe.TASKS[recipe.NETS[net].task]
        self.crop = recipe.CROPS[recipe.NETS[net].crop]
        self.definition = recipe.deploy_prototxt(profile, self.task.name)
        self.weights = recipe.step_weights(profile, net, 4)
        option = "" if profile == recipe.PAPER.name else f" PROFILE={profile}"
        for path, command in (
            (self.definition, "make prototxt"),
            (self.weights, f"make step4 NET={net}{option}"),
        ):
            if not os.path.isfile(recipe.absolute(path)):
                raise PipelineError(f"{path} is missing: {command} makes it")
        try:
            self.net = caffe.Net(recipe.absolute(self.definition), caffe.TEST, weights=recipe.absolute(self.weights))
        except (RuntimeError, OSError) as error:
            raise PipelineError(f"cannot load {self.weights} into {self.definition}: {error}") from error
        self.size = self.net.blobs["data"].data.shape[-1]  # of its input, in pixels

    def probabilities(self, crops):
        """Probability of class 1 ("female" or "smiling") of each crop.

        crops: N x stored_size x stored_size x 3 uint8, BGR, 0..255, cut by this net's scheme. Returns N float64 in 0..1.
        """
        import numpy as np
        from lmdb_builders.preprocess import to_blob

        results = np.empty(len(crops), dtype=np.float64)
        for start in range(0, len(crops), self.batch):
            blob = to_blob(np.asarray(crops[start : start + self.batch]), self.size)
            results[start : start + len(blob)] = self._forward(blob)
        if not np.isfinite(results).all():
            raise PipelineError(f"{self.weights} gives probabilities that are no numbers: train it again (FORCE=1)")
        return results

    def _forward(self, blob):
        data = self.net.blobs["data"]
        if tuple(data.data.shape) != blob.shape:
            data.reshape(*blob.shape)
        data.data[...] = blob
        return self.net.forward()["prob"].reshape(len(blob), 2)[:, 1]


class Pipeline:
    """Detector, crops and nets of Figure 1. Make one with `Pipeline.load`, use it for any number of photos.

    Its methods raise PipelineError where a net cannot run; a photo that cannot be answered has an `error` instead.
    """

    def __init__(self, detector, classifiers: Dict[str, Classifier], profile: str):
        self.detector, self.classifiers, self.profile = detector, classifiers, profile

    @classmethod
    def load(cls, profile: str = "auto", engine: str = "auto", gpu: Optional[int] = None) -> "Pipeline":
        """Load the detector and the three nets of a profile.

        profile: "paper", "demo", or "auto" (the paper's weights where they are, else the demo's);
        engine: "auto", "caffe" or "torch"; gpu: number of the GPU, None for the CPU.
        Raises PipelineError that names the missing file and the command that makes it.
        """
        profile = choose_profile(profile)
        caffe = load_engine(engine, gpu)
        classifiers = {net: Classifier(caffe, profile, net) for net in recipe.PIPELINE_NETS}
        from detector import Detector

        return cls(Detector(caffe=caffe), classifiers, profile)

    def predict(self, image, name: str = "") -> Prediction:
        """Gender and smile of the face nearest to the middle of `image` (height x width x 3 uint8, BGR)."""
        return self.predict_many([image], [name])[0]

    def predict_many(self, images: Iterable, names: Optional[Iterable[str]] = None) -> List[Prediction]:
        """One Prediction an image, in order; their crops go through the nets together.

        images: height x width x 3 uint8 arrays, BGR, of any sizes. A generator is drawn from one image at a time, so
        that only crops stay in memory.
        """
        prepared = [self._prepare(image, name) for image, name in zip(images, names or itertools.repeat(""))]
        return self._classify(prepared)

    def predict_files(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """Prediction of each image file, in order; one that cannot be read has an `error`."""
        paths = iter(paths)
        while True:
            batch = list(itertools.islice(paths, BATCH))
            if not batch:
                return
            yield from self._classify([self._prepare_file(path) for path in batch])

    def crop(self, image, landmarks, net: str):
        """The crop that net `net` sees, with the margin that its input leaves out.

        Returns stored_size x stored_size x 3 uint8, BGR; `landmarks` 5 x 2 in pixels of `image`.
        """
        from lmdb_builders.crops import crop_face

        scheme = recipe.CROPS[recipe.NETS[net].crop]
        return crop_face(image, landmarks, scheme, recipe.PROFILES[self.profile].stored_size)

    def _prepare_file(self, path: str) -> Tuple[Prediction, Crops]:
        try:
            image = read_photo(path)
        except ImageError as error:
            return Prediction(path, error=str(error)), {}
        return self._prepare(image, path)

    def _prepare(self, image, name: str) -> Tuple[Prediction, Crops]:
        """Stages 1 and 2: the central face, and its crop for each net (none where there is no face)."""
        from detector import DetectorError, nearest_to_center

        try:
            face = nearest_to_center(self.detector.detect(image), image.shape)
        except DetectorError as error:  # its nets' weights are missing
            raise PipelineError(str(error)) from error
        if face is None:
            return Prediction(name, error=NO_FACE), {}
        try:
            return Prediction(name, face), {net: self.crop(image, face.landmarks, net) for net in self.classifiers}
        except ImageError as error:
            return Prediction(name, error=str(error)), {}

    def _classify(self, prepared: Sequence[Tuple[Prediction, Crops]]) -> List[Prediction]:
        """Stage 3, of all faces at once."""
        results = [prediction for prediction, _ in prepared]
        found = [index for index, (_, crops) in enumerate(prepared) if crops]
        columns = {
            net: classifier.probabilities([prepared[index][1][net] for index in found])
            for net, classifier in self.classifiers.items()
        }
        for row, index in enumerate(found):
            ones = {net: float(column[row]) for net, column in columns.items()}
            results[index] = replace(
                results[index],
                gender=Answer.of("gender", ones["gnet"]),
                smile=Answer.of("smile", (ones["snet1"] + ones["snet2"]) / 2),
                ones=ones,
            )
        return results


def read_photo(path: str):
    """A photo as the pipeline sees it, upright by its EXIF tag: height x width x 3 uint8, BGR. Raises ImageError."""
    from lmdb_builders.images import read_image

    return read_image(path, apply_orientation=True)
