"""The paper's test pipeline (Figure 1) as a library.

Stage 1 finds the faces and their five landmarks, stage 2 cuts one crop a scheme, stage 3 runs GNet on scheme 3 for
gender and averages the probabilities of SNet1 and SNet2 (schemes 1 and 5) for smile.

    from tools.predict import Pipeline
    pipeline = Pipeline.load()                             # paper's weights where they are, else the demo's
    print(pipeline.predict("photo.jpg").gender.label)      # or an array: height x width x 3 uint8, BGR
    for prediction in pipeline.predict_faces("group.jpg"): # every face, the one nearest the middle first
        print(prediction.as_dict())
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import recipe
from lmdb_builders.errors import ImageError
from gender_smile.inference.classifier import (
    Classifier, PipelineError, choose_profile, load_engine, set_device, weights_path,
)
from gender_smile.inference.photos import Photo, read, read_photo
from gender_smile.inference.prediction import Answer, Prediction, mean_of

if TYPE_CHECKING:
    import numpy as np

    from detector import Detector, Face

__all__ = ["Answer", "Classifier", "Photo", "Pipeline", "PipelineError", "Prediction", "choose_profile",
           "load_engine", "read_photo", "weights_path"]

Image = Union[str, "os.PathLike[str]", "np.ndarray"]  # a photo's path, or height x width x 3 uint8, BGR
GROUP = 16  # photos whose stages run together, at most
GROUP_PIXELS = 2**24  # photos whose stages run together hold at most about this many pixels: bounds the memory
NO_FACE = "no face found"


class Pipeline:
    """Detector, crops and nets of Figure 1. Make one with `Pipeline.load`, use it for any number of photos.

    Any number of threads may share one: they take turns at the nets, which use all cores (or the GPU) for one. A
    process that is forked off must load its own. Methods raise PipelineError where a net cannot run, ValueError for an
    array that is no photo; a photo that cannot be answered (unreadable, no face) has an `error` instead.

    `crops=True` adds what each net saw to a Prediction, `explain=True` also where it looked (gender_smile/inference/heatmaps.py).
    """

    def __init__(self, detector: "Detector", classifiers: Dict[str, Classifier], profile: str,
                 gpu: Optional[int] = None):
        self.detector, self.classifiers, self.profile, self.gpu = detector, classifiers, profile, gpu
        self._explainers: Dict[str, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, profile: str = "auto", engine: str = "auto", gpu: Optional[int] = None,
             weights: Optional[Mapping[str, str]] = None) -> "Pipeline":
        """Load the detector and the three nets of a profile.

        profile: "paper", "demo", or "auto" (the paper's weights where they are, else the demo's);
        engine: "auto", "caffe" or "torch"; gpu: number of the GPU, None for the CPU;
        weights: net -> other weights than the chain's.
        Raises PipelineError that names the missing file and the command that makes it.
        """
        profile = choose_profile(profile)
        caffe = load_engine(engine, gpu)
        classifiers = {net: Classifier(caffe, profile, net, weights=(weights or {}).get(net)) for net in recipe.PIPELINE_NETS}
        from detector import Detector

        return cls(Detector(caffe=caffe), classifiers, profile, gpu)

    def predict(self, image: Image, name: str = "", *, crops: bool = False, explain: bool = False) -> Prediction:
        """Gender and smile of the face nearest to the middle (section 4)."""
        return self.predict_many([image], [name], crops=crops, explain=explain)[0]

    def predict_faces(
        self, image: Image, name: str = "", *, crops: bool = False, explain: bool = False, most: Optional[int] = None
    ) -> List[Prediction]:
        """Every face (or `most`), nearest to the middle first; without one, a list of one Prediction with an `error`."""
        return self._predict_group([_photo(image, name)], most, crops or explain, explain)[0]

    def predict_many(
        self, images: Iterable[Image], names: Optional[Iterable[str]] = None, *, crops: bool = False,
        explain: bool = False,
    ) -> List[Prediction]:
        """predict() of each image, in order.

        A generator is drawn from a few images at a time, so that only those are in memory. Raises ValueError where
        there are more or fewer names than images.
        """
        named = zip(images, itertools.repeat("")) if names is None else zip(images, names, strict=True)
        photos = (_photo(image, name) for image, name in named)
        return [found[0] for _, found in self.predict_photos(photos, crops=crops, explain=explain)]

    def predict_files(self, paths: Iterable[str]) -> Iterator[Prediction]:
        """Prediction of each image file, in order; one that cannot be read has an `error`."""
        return (found[0] for _, found in self.predict_photos(read(path) for path in paths))

    def predict_photos(
        self, photos: Iterable[Photo], *, all_faces: bool = False, crops: bool = False, explain: bool = False
    ) -> Iterator[Tuple[Photo, List[Prediction]]]:
        """Each photo with its predictions: of its central face or of all; never none, for a failure is one with an error.

        Photos are drawn as they are needed: up to GROUP, or GROUP_PIXELS, or to one that is live, go through together.
        """
        for group in _groups(photos):
            yield from zip(group, self._predict_group(group, None if all_faces else 1, crops or explain, explain))
            group.clear()  # while the next is read, only that is in memory

    def crop(self, image: "np.ndarray", landmarks: "np.ndarray", net: str) -> "np.ndarray":
        """The crop that net `net` sees, with the margin that its input leaves out.

        Returns stored_size x stored_size x 3 uint8, BGR; `landmarks` 5 x 2 in pixels of `image`.
        """
        from lmdb_builders.crops import crop_face

        scheme = recipe.CROPS[recipe.NETS[net].crop]
        return crop_face(image, landmarks, scheme, recipe.PROFILES[self.profile].stored_size)

    # ------------------------------------------------------------------------------------------ the three stages
    def _predict_group(
        self, group: Sequence[Photo], most: Optional[int], keep_crops: bool, explain: bool
    ) -> List[List[Prediction]]:
        results: List[List[Prediction]] = []
        cut: List[Tuple[int, int, Dict[str, "np.ndarray"]]] = []  # place in results, and the crop of each net
        for photo in group:
            results.append([])
            for prediction in self._find(photo, most):
                if prediction.face is not None and photo.pixels is not None:
                    try:
                        own = {net: self.crop(photo.pixels, prediction.face.landmarks, net) for net in self.classifiers}
                        cut.append((len(results) - 1, len(results[-1]), own))
                    except ImageError as error:
                        prediction = replace(prediction, face=None, error=str(error))
                results[-1].append(prediction)
        for (photo_index, face_index, own), answered in zip(cut, self._classify(cut, results)):
            if keep_crops:
                seen = {net: self.classifiers[net].seen(crop) for net, crop in own.items()}
                answered = replace(answered, crops=seen)
            results[photo_index][face_index] = answered
        if explain and cut:
            self._explain(cut, results)
        return results

    def _find(self, photo: Photo, most: Optional[int]) -> List[Prediction]:
        """Stage 1: predictions of a photo's first faces, still to be answered, or the one that says why there are none."""
        from detector import DetectorError, from_center

        if photo.pixels is None:
            return _found(photo, [], most)
        with self._engine():  # one photo at a time: several together take as long, and more memory
            try:
                return _found(photo, from_center(self.detector.detect(photo.pixels), photo.pixels.shape), most)
            except DetectorError as error:  # its nets' weights are missing
                raise PipelineError(str(error)) from error
            except (RuntimeError, MemoryError) as error:  # a photo too large for the memory: the next one may do
                return _found(replace(photo, error=f"no face can be looked for: {_reason(error)}"), [], most)

    def _classify(self, cut: Sequence[Tuple[int, int, dict]], results: Sequence[Sequence[Prediction]]) -> List[Prediction]:
        """Stage 3, of all faces at once: their predictions with the answers."""
        with self._engine():
            columns = {net: classifier.probabilities([own[net] for _, _, own in cut])
                       for net, classifier in self.classifiers.items()}
        answered = []
        for row, (photo_index, face_index, _) in enumerate(cut):
            ones = {net: float(column[row]) for net, column in columns.items()}
            gender, smile = (Answer.of(task, mean_of(task, ones)) for task in ("gender", "smile"))
            answered.append(replace(results[photo_index][face_index], gender=gender, smile=smile, ones=ones))
        return answered

    def _explain(self, cut: Sequence[Tuple[int, int, dict]], results: Sequence[List[Prediction]]) -> None:
        """Add to each prediction where the nets looked for its answers."""
        from gender_smile.inference.heatmaps import Explainer

        heats: Dict[str, "np.ndarray"] = {}
        with self._engine():
            for net, classifier in self.classifiers.items():
                if net not in self._explainers:
                    self._explainers[net] = Explainer(classifier)
                task = classifier.task
                answers = [getattr(results[photo][face], task.name) for photo, face, _ in cut]
                classes = [task.classes.index(answer.label) for answer in answers]
                heats[net] = self._explainers[net].heat([own[net] for _, _, own in cut], classes)
        for row, (photo, face, _) in enumerate(cut):
            heat = {net: maps[row] for net, maps in heats.items()}
            results[photo][face] = replace(results[photo][face], heat=heat)

    @contextlib.contextmanager
    def _engine(self) -> Iterator[None]:
        """The engine, for this thread alone: its nets hold what they compute, and its mode is a thread's own.

        Raises PipelineError for what the engine raises, out of memory for instance.
        """
        with self._lock:
            try:
                set_device(next(iter(self.classifiers.values())).caffe, self.gpu)
                yield
            except PipelineError:
                raise
            except (RuntimeError, MemoryError) as error:
                raise PipelineError(f"the nets cannot run: {_reason(error)}") from error


def _photo(image: Image, name: str) -> Photo:
    if isinstance(image, (str, os.PathLike)):
        photo = read(os.fspath(image))
        return replace(photo, name=name) if name else photo
    if image is None:
        raise ValueError("the image is None, as cv2.imread gives for a file that it cannot read: pass the path")
    return Photo(name, image)


def _groups(photos: Iterable[Photo]) -> Iterator[List[Photo]]:
    group: List[Photo] = []
    pixels = 0
    for photo in photos:
        group.append(photo)
        pixels += 0 if photo.pixels is None else getattr(photo.pixels, "size", 0) // 3
        if photo.live or len(group) == GROUP or pixels >= GROUP_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or "not enough memory"


def _found(photo: Photo, faces: Sequence["Face"], most: Optional[int]) -> List[Prediction]:
    """Predictions of a photo's first `most` faces, still to be answered, or the one that says why there are none."""
    place = Prediction(photo.name, frame=photo.frame, seconds=photo.seconds)
    if photo.error is not None or not faces:
        return [replace(place, error=photo.error or NO_FACE)]
    return [replace(place, face=face, number=number, faces=len(faces))
            for number, face in enumerate(faces[:most], start=1)]
