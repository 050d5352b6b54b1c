"""People and their photos, drawn: what a drawn person looks like, and how a photo of one is composed.

    from gender_smile.synthetic import portrait
    person = portrait.invent(numpy.random.default_rng(1), female=True, smiling=False)
    photo, landmarks = portrait.photograph(person, numpy.random.default_rng(2), width=178, height=218)

Not a command of its own; `tools/draw_faces.py` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

import cv2
import numpy as np

import recipe
from gender_smile.synthetic.portrait_paint import CANVAS, UNIT
from gender_smile.synthetic.portrait_parts import paint

Color = Tuple[float, float, float]  # B, G, R, 0..255

HAIR: Dict[str, Tuple[Color, ...]] = {
    "Black_Hair": ((22, 20, 22), (30, 28, 34), (38, 34, 36)),
    "Brown_Hair": ((28, 42, 66), (36, 58, 92), (40, 66, 112)),
    "Blond_Hair": ((92, 150, 196), (110, 170, 214), (76, 132, 180)),
    "Gray_Hair": ((150, 150, 152), (178, 178, 180), (120, 120, 124)),
}
SKIN: Tuple[Color, ...] = (
    (186, 204, 238), (168, 190, 230), (150, 176, 222), (130, 160, 212), (108, 140, 196), (84, 114, 170), (60, 86, 138),
    (46, 66, 108),
)
IRIS: Tuple[Color, ...] = ((40, 56, 84), (26, 34, 52), (120, 96, 60), (84, 100, 70), (60, 78, 104))


@dataclass(frozen=True)
class Person:
    """What is painted. Sizes are factors around 1, colors B, G, R."""

    female: bool
    smiling: bool
    teeth: bool  # lips apart in a smile
    open_mouth: bool  # lips apart without a smile
    skin: Color
    hair_name: str
    hair: Color
    hair_length: str  # "bald", "short", "medium", "long"
    bangs: bool
    wavy: bool
    receding: bool
    iris: Color
    beard: str  # "none", "stubble", "goatee", "mustache", "full"
    lipstick: Optional[Color]
    makeup: bool
    rosy: bool
    glasses: str  # "none", "frame", "dark"
    hat: Optional[Color]
    earrings: bool
    necktie: Optional[Color]
    shirt: Color
    brow: float  # thickness of the eyebrows
    arched: bool
    jaw: float  # 0 pointed .. 1 square
    width: float
    eye: float
    nose: float
    lips: float
    strength: float  # of smile or of a mouth turned down
    yaw: float  # radians, the nose to the viewer's right when positive
    seed: int = field(default=0)  # for what is strewn: hair strands, stubble

    def attributes(self) -> Dict[str, bool]:
        """CelebA's attributes that the painting decides. All others are unknown."""
        known = {
            "Male": not self.female, "Smiling": self.smiling, "Eyeglasses": self.glasses != "none",
            "Mouth_Slightly_Open": self.teeth or self.open_mouth, "Bald": self.hair_length == "bald" and not self.hat,
            "Bangs": self.bangs, "Wearing_Lipstick": self.lipstick is not None, "Wearing_Hat": self.hat is not None,
            "No_Beard": self.beard == "none", "Mustache": self.beard in ("mustache", "full"),
            "Goatee": self.beard == "goatee", "5_o_Clock_Shadow": self.beard == "stubble",
            "Sideburns": self.beard == "full", "Heavy_Makeup": self.makeup, "Rosy_Cheeks": self.rosy,
            "Wavy_Hair": self.wavy and self.hair_length in ("medium", "long"),
            "Straight_Hair": not self.wavy and self.hair_length in ("medium", "long"),
            "Wearing_Earrings": self.earrings, "Wearing_Necktie": self.necktie is not None,
            "Receding_Hairline": self.receding, "Bushy_Eyebrows": self.brow > 1.35, "Arched_Eyebrows": self.arched,
            "Pale_Skin": self.skin[2] > 228, "Pointy_Nose": self.nose < 0.9, "Big_Nose": self.nose > 1.15,
            "Big_Lips": self.lips > 1.15, "High_Cheekbones": self.smiling and self.strength > 0.75,
        }
        known.update({name: self.hair_length != "bald" and self.hair_name == name for name in HAIR})
        return known


def invent(random: np.random.Generator, female: bool, smiling: bool) -> Person:
    """A person of a given gender and smile; everything else is drawn, with overlap between the genders."""
    def chance(share: float) -> bool:
        return bool(random.random() < share)

    def pick(options):
        return options[int(random.integers(len(options)))]

    def vary(color: Color, spread: float = 8.0) -> Color:
        return tuple(float(np.clip(value + random.normal(0, spread), 6, 250)) for value in color)

    any_color = tuple(float(value) for value in random.integers(20, 235, 3))
    length = str(random.choice(("bald", "short", "medium", "long"),
                               p=(0.0, 0.12, 0.33, 0.55) if female else (0.12, 0.74, 0.08, 0.06)))
    hat = chance(0.08)
    hair_name = str(random.choice(list(HAIR), p=(0.36, 0.32, 0.22, 0.10)))
    skin = vary(pick(SKIN), 4)
    if skin[2] < 150:
        hair_name = "Black_Hair"
    lipstick = female and chance(0.62)
    bangs = length != "bald" and not hat and chance(0.3 if female else 0.12)
    return Person(
        female=female, smiling=smiling, teeth=smiling and chance(0.72), open_mouth=not smiling and chance(0.16),
        skin=skin, hair_name=hair_name, hair=vary(pick(HAIR[hair_name])), hair_length=length, bangs=bangs,
        wavy=chance(0.45), receding=not female and length == "short" and not bangs and chance(0.22), iris=pick(IRIS),
        beard="none" if female else str(random.choice(("none", "stubble", "goatee", "mustache", "full"),
                                                      p=(0.48, 0.18, 0.10, 0.08, 0.16))),
        lipstick=vary(pick(((52, 40, 168), (72, 56, 190), (90, 60, 150), (60, 70, 205)))) if lipstick else None,
        makeup=lipstick and chance(0.6), rosy=female and chance(0.35),
        glasses=str(random.choice(("none", "frame", "dark"), p=(0.86, 0.115, 0.025))),
        hat=any_color if hat else None, earrings=female and length != "long" and chance(0.5),
        necktie=tuple(float(value) for value in random.integers(10, 190, 3)) if not female and chance(0.2) else None,
        shirt=vary(any_color, 20), brow=random.uniform(0.6, 1.0) if female else random.uniform(1.0, 1.6),
        arched=female and chance(0.4), jaw=random.uniform(0.0, 0.5) if female else random.uniform(0.4, 1.0),
        width=random.uniform(0.92, 1.0) if female else random.uniform(0.96, 1.06),
        eye=random.uniform(0.98, 1.2) if female else random.uniform(0.85, 1.05), nose=random.uniform(0.8, 1.25),
        lips=random.uniform(0.85, 1.3) if female else random.uniform(0.7, 1.1), strength=random.uniform(0.55, 1.0),
        yaw=float(np.clip(random.normal(0, 0.12), -0.3, 0.3)), seed=int(random.integers(1 << 31)),
    )


def photograph(person: Person, random: np.random.Generator, width: int, height: int,
               share: float = 0.5) -> Tuple[np.ndarray, np.ndarray]:
    """A photo of a person: height x width x 3 uint8 BGR, and the five landmarks, 5 x 2 float64 pixels [x, y].

    Landmarks in the order of recipe.FACE_TEMPLATE. `share` is the face's height, forehead to chin, of the photo's.
    """
    painter, landmarks = paint(person)
    unit = share * height / 2.5 * random.uniform(0.9, 1.1)  # pixels of one face unit; forehead to chin is 2.5 units
    roll = float(np.clip(random.normal(0, 8), -20, 20))
    center = (width * random.uniform(0.44, 0.56), height * random.uniform(0.42, 0.52))
    matrix = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), roll, unit / UNIT)
    matrix[:, 2] += np.asarray(center) - CANVAS / 2
    layer = painter.finish(light=random.uniform(-0.28, 0.28), blur=max(0.0, 0.5 * UNIT / unit - 0.5))
    # Beyond the canvas: transparent, as its edge is, but for the body, which goes on downward.
    layer = cv2.warpAffine(layer, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = layer[..., 3:]
    photo = _background(random, width, height) * (1 - alpha) + layer[..., :3]  # colors are multiplied by alpha already
    photo = _develop(photo, random)
    return photo, landmarks @ matrix[:, :2].T + matrix[:, 2]


def box_of(landmarks: np.ndarray, scale: float = 1.0) -> Tuple[float, float, float, float]:
    """The face's box (x, y, width, height) by its landmarks: forehead to chin, ear to ear."""
    fitted, _ = cv2.estimateAffinePartial2D(np.asarray(recipe.FACE_TEMPLATE), landmarks, method=cv2.LMEDS)
    unit = float(np.hypot(fitted[0, 0], fitted[1, 0]))
    x, y = fitted @ (0.0, -0.12, 1.0)
    width, height = 2.0 * unit * scale, 2.5 * unit * scale
    return x - width / 2, y - height / 2, width, height


def _background(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Out-of-focus surroundings: a gradient with soft shapes on it, height x width x 3 float32."""
    corners = random.uniform(30, 225, (2, 2, 1)) + random.normal(0, 22, (2, 2, 3))
    small = cv2.resize(corners.astype(np.float32), (96, 96), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(random.integers(2, 9))):
        color = tuple(float(value) for value in random.uniform(15, 240) + random.normal(0, 25, 3))
        first, second = (tuple(int(value) for value in random.integers(-10, 106, 2)) for _ in range(2))
        if random.random() < 0.5:
            cv2.rectangle(small, first, second, color, -1)
        else:
            cv2.ellipse(small, first, (int(random.integers(5, 40)), int(random.integers(5, 40))), 0, 0, 360, color, -1)
    small = cv2.GaussianBlur(small, (0, 0), float(random.uniform(1.5, 7)))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _develop(photo: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Camera's share: exposure, white balance, contrast, softness, grain. Returns uint8."""
    photo = photo * (random.uniform(0.78, 1.15) * random.uniform(0.95, 1.05, 3)).astype(np.float32)
    photo = (photo - 118) * np.float32(random.uniform(0.85, 1.12)) + 118
    if random.random() < 0.04:
        photo = np.repeat(photo.mean(axis=2, keepdims=True), 3, axis=2)  # black and white
    photo = cv2.GaussianBlur(photo, (0, 0), float(random.uniform(0.3, 0.9)))
    grain = random.standard_normal(photo.shape[:2] + (1,), dtype=np.float32) * np.float32(random.uniform(1, 5))
    return np.clip(photo + grain, 0, 255).astype(np.uint8)
