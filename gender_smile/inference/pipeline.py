"""The paper's test pipeline (Figure 1) as a library.

Stage 1 finds the faces and their five landmarks, stage 2 cuts a crop for each net, stage 3 runs GNet on scheme 3 for
gender and averages the probabilities of SNet1 and SNet2 (schemes 1 and 5) for smile.

    from tools.predict import Pipeline
    pipeline = Pipeline.load()                             # paper's, demo's or the released weights
    print(pipeline.predict("photo.jpg").gender.label)      # or an array: height x width x 3 uint8, BGR
    for prediction in pipeline.predict_faces("group.jpg"): # every face, the one nearest the center first
        print(prediction.as_dict())
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Dict, Generator, Iterable, Iterator, List, Mapping, Optional, Tuple, TypeVar, Union

import recipe
from lmdb_builders.errors import ImageError
from gender_smile.inference.classifier import (
    Classifier, PipelineError, choose_profile, load_engine, pipeline_weights, set_device, weights_path,
)
from gender_smile.inference.doubts import doubts, look
from gender_smile.inference.model import Model
from gender_smile.inference.photos import Photo, read, read_photo

if TYPE_CHECKING:
    import numpy as np

    from detector import Detector, Face

__all__ = ["Answer", "Classifier", "Model", "Photo", "Pipeline", "PipelineError", "Prediction", "choose_profile",
           "load_engine", "read_photo", "weights_path"]

Item = TypeVar("Item")
Image = Union[str, "os.PathLike[str]", "np.ndarray"]  # a photo's path, or height x width x 3 uint8, BGR
NO_FACE = "no face found"
UNCERTAIN_BELOW = 0.75  # ours: of the released nets, fewer than three of four such answers are right (docs/model-card.md)
# Columns of Prediction.as_row.
COLUMNS = ("image", "frame", "seconds", "number", "faces", "x", "y", "width", "height", "score", "gender",
           "gender_probability", "gender_uncertain", "smile", "smile_probability", "smile_uncertain", *recipe.PIPELINE_NETS,
           "doubts", "model", "error")


# ------------------------------------------------------------------------------------------ results
def ensemble_mean(task: str, p_positive: Mapping[str, float]) -> float:
    """A task's probability of class 1 (0..1): the mean of its nets' (recipe.ENSEMBLES) in `p_positive`, net -> 0..1."""
    nets = recipe.ENSEMBLES[task]
    return sum(p_positive[net] for net in nets) / len(nets)


def percent(probability: float) -> str:
    """A probability (0..1) as a percentage that never claims certainty: 99.97 % stays below 100."""
    return f"{min(100 * probability, 99.9):.1f} %"


@dataclass(frozen=True)
class Answer:
    """The predicted class of a task, its probability (0.5..1), and whether that is below the pipeline's threshold."""

    label: str
    probability: float
    uncertain: bool = False

    @classmethod
    def of(cls, task: str, p_positive: float, threshold: float = 0.0) -> "Answer":
        """Answer of `task` ("gender", "smile") from the probability of its class 1 ("female", "smiling")."""
        negative, positive = recipe.TASKS[task].classes
        label, probability = (positive, p_positive) if p_positive > 0.5 else (negative, 1.0 - p_positive)
        return cls(label, probability, probability < threshold)


@dataclass(frozen=True)
class Prediction:
    """The pipeline's answer for one face of a photo, or `error`: why the photo has none.

    image: name of the photo, video or camera; frame and seconds: which frame of a video or camera, and when.
    face: detector.Face in pixels of the upright photo; `number` counts the photo's faces from 1, the one nearest the
        center first; `faces` is how many were found.
    p_positive: each net's probability of class 1 ("female" for GNet, "smiling" for SNet1 and SNet2), 0..1.
    crops: net -> its input, size x size x 3 uint8, BGR; empty unless requested.
    doubts: why the answers are less reliable than the nets' usual ones, such as "blurred"; () where nothing is seen.
    model: the nets that answered.
    heat: net -> how much each pixel of its crop contributed to the answer, size x size float32, 0..1 with 1 at the
        maximum (gender_smile/inference/heatmaps.py); empty unless requested.
    """

    image: str = ""
    face: Optional["Face"] = None
    gender: Optional[Answer] = None
    smile: Optional[Answer] = None
    p_positive: Dict[str, float] = field(default_factory=dict)
    error: Optional[str] = None
    number: int = 0
    faces: int = 0
    frame: Optional[int] = None
    seconds: Optional[float] = None
    doubts: Tuple[str, ...] = ()
    model: Optional[Model] = field(default=None, compare=False, repr=False)
    crops: Dict[str, "np.ndarray"] = field(default_factory=dict, compare=False, repr=False)
    heat: Dict[str, "np.ndarray"] = field(default_factory=dict, compare=False, repr=False)

    def as_dict(self) -> Dict[str, Any]:
        """Plain data for JSON: `image` with `number`, `faces`, `face`, `gender`, `smile`, `doubts` and `model`, or with `error`.

        Of a video or a camera also `frame` and `seconds`.
        """
        source: Dict[str, Any] = {"image": self.image}
        if self.frame is not None:
            source.update(frame=self.frame, seconds=None if self.seconds is None else round(self.seconds, 3))
        if self.face is None or self.gender is None or self.smile is None:
            return {**source, "error": self.error}
        return {
            **source,
            "number": self.number,
            "faces": self.faces,
            "face": {
                "box": [round(float(value), 2) for value in self.face.box],
                "score": round(float(self.face.score), 6),
                "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.face.landmarks],
            },
            **{task: self._task_as_dict(task, answer) for task, answer in (("gender", self.gender), ("smile", self.smile))},
            "doubts": list(self.doubts),
            **({"model": self.model.as_dict()} if self.model else {}),
        }

    def _task_as_dict(self, task: str, answer: Answer) -> Dict[str, Any]:
        """Label, probability and `uncertain`, and each net's probability of class 1 where the task has several."""
        nets = recipe.ENSEMBLES[task] if len(recipe.ENSEMBLES[task]) > 1 else ()
        return {"label": answer.label, "probability": round(answer.probability, 6), "uncertain": answer.uncertain,
                **{net: round(self.p_positive[net], 6) for net in nets}}

    def as_row(self) -> List[Any]:
        """The same, without landmarks, as a value for each of COLUMNS; None where there is none."""
        content = self.as_dict()
        row: Dict[str, Any] = {name: content.get(name) for name in ("image", "frame", "seconds", "number", "faces", "error")}
        if "face" in content:
            row.update(zip(("x", "y", "width", "height"), content["face"]["box"]))
            row["score"] = content["face"]["score"]
            for task in ("gender", "smile"):
                row[task] = content[task]["label"]
                row.update({f"{task}_{name}": content[task][name] for name in ("probability", "uncertain")})
            row.update({net: round(probability, 6) for net, probability in self.p_positive.items()})
            row["doubts"] = "; ".join(self.doubts)
            row["model"] = self.model.name if self.model else None
        return [row.get(name) for name in COLUMNS]


# ------------------------------------------------------------------------------------------ the pipeline
class Pipeline:
    """Detector, crops and nets of Figure 1. Make one with `Pipeline.load`, use it for any number of photos.

    Threads may share one: they take turns at the detector and at the nets, which use all cores (or the GPU). A forked
    process must load its own. Methods raise PipelineError where a net cannot run, ValueError for an array that is not a
    photo; a photo that cannot be answered (unreadable, no face) has an `error` instead.

    An answer whose probability is below `threshold`, 0.5..1, or 0 for none, is `uncertain`; label and probability stay.

    `crops=True` adds each net's input to a Prediction, `explain=True` also its heat map (gender_smile/inference/heatmaps.py).
    """

    def __init__(self, detector: "Detector", classifiers: Dict[str, Classifier], profile: str,
                 gpu: Optional[int] = None, variant: str = "", threshold: float = UNCERTAIN_BELOW):
        if not (threshold == 0 or 0.5 <= threshold <= 1):
            raise ValueError(f"threshold {threshold} is neither 0 nor 0.5 to 1")
        self.variant, self.threshold = variant, threshold
        self.detector, self.classifiers, self.profile, self.gpu = detector, classifiers, profile, gpu
        self._explainers: Dict[str, Any] = {}
        self._finds_apart = {one.engine for one in classifiers.values()} == {"opencv"}  # with the detector on OpenCV, too
        self._answering = threading.Lock()
        self._finding = threading.Lock() if self._finds_apart else self._answering

    @classmethod
    def load(cls, profile: str = "auto", engine: str = "auto", gpu: Optional[int] = None,
             variant: str = "", threshold: float = UNCERTAIN_BELOW, scoring: bool = False) -> "Pipeline":
        """Load the detector and the three nets of a profile.

        profile: a profile's name, or "auto": "paper", "demo" or "small", the first whose weights are there and were
            trained on photographs;
        engine: "auto", "opencv", "torch" or "caffe" (docs/engines.md); gpu: number of the GPU, None for the CPU;
        variant: name of the trainings whose weights to use, such as "bf16"; "" for the chain's own;
        threshold: probability below which an answer is called uncertain;
        scoring: the answers will be scored, so torchcaffe or real Caffe gives them, never OpenCV.
        Raises PipelineError that names the missing file and the command that makes it.
        """
        profile = choose_profile(profile, variant)
        weights = pipeline_weights(profile, variant)
        caffe = load_engine(engine, gpu, predicting=not scoring)
        classifiers = {net: Classifier(caffe, profile, net, weights[net]) for net in recipe.PIPELINE_NETS}
        from detector import make_detector

        return cls(make_detector(gpu, caffe), classifiers, profile, gpu, variant, threshold)

    @functools.cached_property
    def model(self) -> Model:
        """The nets, what they were trained on, what computes them, and the SHA-256 of their weights."""
        engines = dict.fromkeys(one.engine for one in self.classifiers.values())
        weights = {net: one.weights for net, one in self.classifiers.items()}
        return Model.of(self.profile, self.variant, weights, ", ".join(engines))

    def predict(self, image: Image, name: str = "", *, crops: bool = False, explain: bool = False) -> Prediction:
        """Gender and smile of the face nearest the center (section 4)."""
        return self._predict(_photo(image, name), 1, crops, explain)[0]

    def predict_faces(
        self, image: Image, name: str = "", *, crops: bool = False, explain: bool = False, most: Optional[int] = None
    ) -> List[Prediction]:
        """Every face (or the first `most`), nearest the center first; without one, a list of one Prediction with an `error`."""
        return self._predict(_photo(image, name), most, crops, explain)

    def predict_many(
        self, images: Iterable[Image], names: Optional[Iterable[str]] = None, *, crops: bool = False,
        explain: bool = False,
    ) -> List[Prediction]:
        """predict() of each image, in order.

        `images` is consumed lazily, one image in memory at a time. Raises ValueError where there are more or fewer names
        than images.
        """
        named = zip(images, itertools.repeat("")) if names is None else zip(images, names, strict=True)
        return [self.predict(image, name, crops=crops, explain=explain) for image, name in named]

    def predict_files(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """Prediction of each image file, in order; one that cannot be read has an `error`."""
        return (predictions[0] for _, predictions in self.predict_photos(map(read, paths), ahead=True))

    def predict_photos(
        self, photos: Iterable[Photo], *, all_faces: bool = False, crops: bool = False, explain: bool = False,
        ahead: bool = False,
    ) -> Iterator[Tuple[Photo, List[Prediction]]]:
        """Each photo with its predictions: of its central face or of all; at least one, which has an `error` on failure.

        Consumed lazily: a photo's predictions are yielded before the next photo is read. With `ahead`, which files are
        answered faster with, a thread may read the next one and find its faces meanwhile.
        """
        most = None if all_faces else 1
        found = self._each_found(photos)
        with contextlib.closing(_one_ahead(found) if ahead and self._finds_apart else found) as stream:
            for photo, faces in stream:
                yield photo, self._answer(photo, faces, most, crops, explain)
                del photo  # not kept in memory while the next is read

    def crop(self, image: "np.ndarray", landmarks: "np.ndarray", net: str) -> "np.ndarray":
        """The stored crop of net `net`, with the margin that its input leaves out.

        Returns stored_size x stored_size x 3 uint8, BGR; `landmarks` 5 x 2 in pixels of `image`.
        """
        from lmdb_builders.crops import crop_face

        scheme = recipe.CROPS[recipe.NETS[net].crop]
        return crop_face(image, landmarks, scheme, recipe.PROFILES[self.profile].stored_size)

    # ------------------------------------------------------------------------------------------ the three stages
    def _predict(self, photo: Photo, most: Optional[int], keep_crops: bool, explain: bool) -> List[Prediction]:
        return self._answer(photo, self._find(photo), most, keep_crops, explain)

    def _find(self, photo: Photo) -> Union[List["Face"], str]:
        """The photo's faces, the one nearest the center first, or why there are none."""
        if photo.error is not None or photo.pixels is None:
            return photo.error or NO_FACE
        try:
            return self._detect(photo.pixels) or NO_FACE
        except ImageError as error:
            return str(error)

    def _each_found(self, photos: Iterable[Photo]) -> Generator[Tuple[Photo, Union[List["Face"], str]], None, None]:
        for photo in photos:
            yield photo, self._find(photo)
            del photo  # as in predict_photos

    def _answer(self, photo: Photo, faces: Union[List["Face"], str], most: Optional[int], keep_crops: bool,
                explain: bool) -> List[Prediction]:
        """Predictions of the first `most` of _find's faces of a photo."""
        if isinstance(faces, str) or photo.pixels is None:
            return [_unanswered(photo, str(faces))]
        return [
            self._classify(photo.pixels, replace(_unanswered(photo), face=face, number=number, faces=len(faces)),
                           keep_crops or explain, explain)
            for number, face in enumerate(faces[:most], start=1)
        ]

    def _detect(self, pixels: "np.ndarray") -> List["Face"]:
        """Stage 1: faces of a photo, the one nearest the center first. Raises ImageError where the memory is too small."""
        from detector import DetectorError, from_center

        with self._nets(self._finding):
            try:
                return from_center(self.detector.detect(pixels), pixels.shape)
            except DetectorError as error:  # its nets' weights are missing
                raise PipelineError(str(error)) from error
            except (RuntimeError, MemoryError) as error:  # a photo too large for the memory: the next one may do
                raise ImageError(f"face detection failed: {_reason(error)}") from error

    def _classify(self, pixels: "np.ndarray", prediction: Prediction, keep_crops: bool, explain: bool) -> Prediction:
        """Stages 2 and 3 for one face: `prediction` with its answers, or with the error of its landmarks."""
        assert prediction.face is not None
        try:
            crops = {net: self.crop(pixels, prediction.face.landmarks, net) for net in self.classifiers}
        except ImageError as error:
            return replace(prediction, face=None, error=str(error))
        with self._nets(self._answering):
            p_positive = {net: float(classifier.probabilities([crops[net]])[0]) for net, classifier in self.classifiers.items()}
            gender, smile = (Answer.of(task, ensemble_mean(task, p_positive), self.threshold)
                             for task in ("gender", "smile"))
            answers = {"gender": gender, "smile": smile}
            heat = {net: self._heat(net, crops[net], answers[recipe.NETS[net].task].label) for net in crops} if explain else {}
        inputs = {net: self.classifiers[net].center(crop) for net, crop in crops.items()} if keep_crops else {}
        return replace(prediction, gender=gender, smile=smile, p_positive=p_positive, model=self.model, crops=inputs,
                       heat=heat, doubts=doubts(look(prediction.face, pixels)))

    def _heat(self, net: str, crop: "np.ndarray", label: str) -> "np.ndarray":
        """Heat map of a net's crop for class `label`, size x size float32, 0..1."""
        from gender_smile.inference.heatmaps import Explainer

        classifier = self.classifiers[net]
        if net not in self._explainers:
            self._explainers[net] = Explainer(classifier.with_gradients())
        return self._explainers[net].heat([crop], [classifier.task.classes.index(label)])[0]

    @contextlib.contextmanager
    def _nets(self, lock: threading.Lock) -> Iterator[None]:
        """Nets, for this thread alone: they hold what they compute, and the engine's mode is a thread's own.

        Raises PipelineError for what the engine raises, out of memory for instance.
        """
        with lock:
            try:
                set_device(next(iter(self.classifiers.values())).caffe, self.gpu)
                yield
            except PipelineError:
                raise
            except (RuntimeError, MemoryError) as error:
                raise PipelineError(f"the nets cannot run: {_reason(error)}") from error


def _one_ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """`items` in their order, each made in a thread while the one before is in use. Raises what making one raises."""
    from concurrent.futures import ThreadPoolExecutor

    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


def _photo(image: Image, name: str) -> Photo:
    if isinstance(image, (str, os.PathLike)):
        photo = read(os.fspath(image))
        return replace(photo, name=name) if name else photo
    if image is None:
        raise ValueError("the image is None, as cv2.imread returns for a file that it cannot read: pass the path")
    return Photo(name, image)


def _unanswered(photo: Photo, error: Optional[str] = None) -> Prediction:
    return Prediction(photo.name, frame=photo.frame, seconds=photo.seconds, error=error)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or "not enough memory"
