"""Which nets answer: their profile, what they were trained on, and the SHA-256 of their weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

import recipe
from common.files import read_json, sha256_of

DIGITS = 8  # of a SHA-256 where a person reads it


@dataclass(frozen=True)
class Model:
    """The nets of a pipeline.

    weights: net -> its caffemodel, below the project's folder; trained_on: titles of the data sets in the order of the
    steps, "drawn faces" for drawn ones, empty where nothing says so; drawn: whether the last of them was drawn; engine: what
    computes them.
    """

    profile: str
    variant: str
    weights: Mapping[str, str]
    trained_on: Tuple[str, ...]
    drawn: bool
    engine: str = ""

    @classmethod
    def of(cls, profile: str, variant: str, weights: Mapping[str, str], engine: str = "") -> "Model":
        """The nets of these weights files, as the records beside them tell."""
        origins = [_origin(profile, variant, net, path) for net, path in weights.items()]
        titles = dict.fromkeys(title for origin in origins for title in origin["trained_on"])
        return cls(profile, variant, dict(weights), tuple(titles), any(origin["drawn"] for origin in origins), engine)

    @property
    def name(self) -> str:
        """The profile, and the variant if there is one: "paper", "demo-bf16"."""
        return "-".join(part for part in (self.profile, self.variant) if part)

    @functools.cached_property
    def sha256(self) -> Dict[str, str]:
        """Net -> SHA-256 of its weights: the record's, else computed, which takes a second for a net of the paper."""
        return {net: (read_json(recipe.absolute(path) + ".json") or {}).get("sha256") or sha256_of(recipe.absolute(path))
                for net, path in self.weights.items()}

    @functools.cached_property
    def accuracy(self) -> Dict[str, Any]:
        """{"gender", "smile": share of right answers (0..1), "faces": how many} on validation faces, of the last make evaluate
        of these very weights, else what their release states; empty where neither is there."""
        suffix = f"-{self.variant}" if self.variant else ""
        evaluation = read_json(recipe.absolute(f"runs/{self.profile}/evaluation{suffix}.json")) or {}
        metrics = evaluation.get("metrics", {})
        if evaluation.get("sha256", {}).items() >= self.sha256.items() and all(task in metrics for task in recipe.TASKS):
            return {**{task: metrics[task]["accuracy"] for task in recipe.TASKS}, "faces": metrics["gender"]["faces"]}
        manifest = read_json(recipe.absolute("weights/manifest.json")) or {}
        released = next((entry for entry in manifest.values() if entry.get("sha256") == self.sha256), {})
        return released.get("accuracy", {})

    def accuracy_in_words(self) -> str:
        """ "right for 92.3 % (gender) and 85.1 % (smile) of 518 faces"; "" where nothing tells."""
        if not self.accuracy:
            return ""
        shares = " and ".join(f"{100 * self.accuracy[task]:.1f} % ({task})" for task in recipe.TASKS)
        return f"right for {shares} of {self.accuracy['faces']:,} faces"

    @property
    def training(self) -> str:
        """What the nets were trained on, in words: "trained on photographs of CelebA and FotW"."""
        if not self.trained_on:
            return "of unknown training: no record beside the weights"
        photographs = "" if recipe.DRAWN_FACES in self.trained_on else "photographs of "
        return f"trained on {photographs}{' and '.join(self.trained_on)}"

    @property
    def warning(self) -> str:
        """What a user who has photographs must know; "" where there is nothing."""
        return ("these nets were trained on drawn faces: their answers on photographs are not to be relied on; for "
                f"photographs leave out --profile {self.profile}" if self.drawn else "")

    def describe(self) -> str:
        """One line: profile, training, files."""
        files = f"weights/{self.profile}/step4_*{'-' + self.variant if self.variant else ''}.caffemodel"
        digests = " ".join(f"{net} {digest[:DIGITS]}" for net, digest in self.sha256.items())
        return f"nets: {self.name} ({self.training}); {files}, sha256 {digests}"

    def as_dict(self) -> Dict[str, Any]:
        """Plain data for JSON."""
        return {"profile": self.profile, "variant": self.variant, "trained_on": list(self.trained_on), "drawn": self.drawn,
                "engine": self.engine, "sha256": self.sha256}


def _origin(profile: str, variant: str, net: str, weights: str) -> Dict[str, Any]:
    """{"trained_on", "drawn"} of one net, by its record; of an older record, or of none, by its profile's LMDBs."""
    record = read_json(recipe.absolute(weights) + ".json")
    if record is not None and "trained_on" in record:
        return {"trained_on": record["trained_on"], "drawn": bool(record.get("drawn"))}
    from gender_smile.training import chain, origin

    found = origin.origin(chain.Row(recipe.PROFILES[profile], net, 4, root=recipe.ROOT, variant=variant))
    return found if record is not None or found["drawn"] else {"trained_on": [], "drawn": False}
