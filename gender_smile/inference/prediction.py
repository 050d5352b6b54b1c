"""What the pipeline says of a face: the one result object of the command, the library and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import recipe

if TYPE_CHECKING:
    import numpy as np

    from detector import Face

# Columns of Prediction.as_row.
COLUMNS = ("image", "frame", "seconds", "number", "faces", "x", "y", "width", "height", "score", "gender",
           "gender_probability", "smile", "smile_probability", *recipe.PIPELINE_NETS, "error")


def mean_of(task: str, ones: Mapping[str, float]) -> float:
    """Probability of a task's class 1 by its ensemble (recipe.ENSEMBLES): the mean of its nets' in `ones`."""
    nets = recipe.ENSEMBLES[task]
    return sum(ones[net] for net in nets) / len(nets)


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
    """The pipeline's answer for one face of a photo, or `error`: why the photo has none.

    image: name of the photo, video or camera; frame and seconds: which picture of a video or camera, and when.
    face: detector.Face in pixels of the upright photo; `number` counts the photo's faces from 1, the one nearest the
        middle first; `faces` is how many were found.
    ones: each net's probability of class 1 ("female" for GNet, "smiling" for SNet1 and SNet2), 0..1.
    crops: net -> what it saw, size x size x 3 uint8, BGR; empty unless asked for.
    heat: net -> how much each pixel of its crop spoke for the answer, size x size float32, 0..1 with 1 at the
        strongest (gender_smile/inference/heatmaps.py); empty unless asked for.
    """

    image: str = ""
    face: Optional["Face"] = None
    gender: Optional[Answer] = None
    smile: Optional[Answer] = None
    ones: Dict[str, float] = field(default_factory=dict)
    error: Optional[str] = None
    number: int = 0
    faces: int = 0
    frame: Optional[int] = None
    seconds: Optional[float] = None
    crops: Dict[str, "np.ndarray"] = field(default_factory=dict, compare=False, repr=False)
    heat: Dict[str, "np.ndarray"] = field(default_factory=dict, compare=False, repr=False)

    def as_dict(self) -> Dict[str, Any]:
        """Plain data for JSON: `image` with `number`, `faces`, `face`, `gender` and `smile`, or `image` with `error`.

        Of a video or a camera also `frame` and `seconds`.
        """
        place: Dict[str, Any] = {"image": self.image}
        if self.frame is not None:
            place.update(frame=self.frame, seconds=None if self.seconds is None else round(self.seconds, 3))
        if self.face is None or self.gender is None or self.smile is None:
            return {**place, "error": self.error}
        return {
            **place,
            "number": self.number,
            "faces": self.faces,
            "face": {
                "box": [round(float(value), 2) for value in self.face.box],
                "score": round(float(self.face.score), 6),
                "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.face.landmarks],
            },
            **{task: self._task_as_dict(task, answer) for task, answer in (("gender", self.gender), ("smile", self.smile))},
        }

    def _task_as_dict(self, task: str, answer: Answer) -> Dict[str, Any]:
        """Label and probability, and each net's probability of class 1 where the task has several."""
        nets = recipe.ENSEMBLES[task] if len(recipe.ENSEMBLES[task]) > 1 else ()
        return {"label": answer.label, "probability": round(answer.probability, 6),
                **{net: round(self.ones[net], 6) for net in nets}}

    def as_row(self) -> List[Any]:
        """The same, without landmarks, as a value for each of COLUMNS; None where there is none."""
        found = self.as_dict()
        row: Dict[str, Any] = {name: found.get(name) for name in ("image", "frame", "seconds", "number", "faces", "error")}
        if "face" in found:
            row.update(zip(("x", "y", "width", "height"), found["face"]["box"]))
            row["score"] = found["face"]["score"]
            for task in ("gender", "smile"):
                row[task], row[f"{task}_probability"] = found[task]["label"], found[task]["probability"]
            row.update({net: round(probability, 6) for net, probability in self.ones.items()})
        return [row.get(name) for name in COLUMNS]
