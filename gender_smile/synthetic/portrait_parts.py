"""The parts of a drawn portrait, each painted by one function (painter, person, random), back to front.

Not a command of its own; `gender_smile/synthetic/portrait.py` uses it. All coordinates are face units.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

import recipe
from gender_smile.synthetic.portrait_paint import BLACK, CANVAS, UNIT, WHITE, Painter, curve, ellipse, mirrored, mix

SIDES = (-1, 1)


def head_outline(person) -> list:
    """Right half of the head's outline, crown to chin."""
    w, j = person.width, person.jaw
    return [(0, -1.70), (0.46 * w, -1.63), (0.80 * w, -1.36), (0.96 * w, -0.95), (1.00 * w, -0.48), (0.97 * w, -0.05),
            (0.90 * w, 0.38), ((0.72 + 0.13 * j) * w, 0.78), ((0.40 + 0.20 * j) * w, 1.13), (0.16 + 0.10 * j, 1.27),
            (0, 1.29)]


def mouth_corner(person) -> Tuple[float, float]:
    """The mouth's right corner: wider and higher in a smile."""
    if person.smiling:
        return 0.37 + 0.11 * person.strength, 0.50 - 0.07 * person.strength
    return 0.34, 0.50 + 0.03 * person.strength


def back_hair(painter, person, random) -> None:
    """Long hair behind neck and shoulders."""
    if person.hair_length not in ("medium", "long"):
        return
    end = 1.25 if person.hair_length == "medium" else 2.1
    bulge = 1.22 + (0.16 if person.wavy else 0.0)
    outline = mirrored([(0, -1.85), (0.75, -1.70), (1.15, -1.15), (bulge, -0.3), (bulge, 0.5),
                        (bulge * 0.98, end * 0.8), (0.75, end), (0, end - 0.2)])
    painter.fill(curve(outline, closed=True), mix(person.hair, BLACK, 0.3), 0.05, turned=False)
    _strands(painter, person, random, [(side * random.uniform(0.7, bulge), random.uniform(-1.2, 0.2))
                                       for side in SIDES for _ in range(26)], end * 0.9, False)


def body(painter, person, random) -> None:
    """Neck, shoulders, clothes."""
    neck = 0.52 if person.female else 0.68
    shoulder = 1.9 if person.female else 2.3
    shade = mix(person.skin, (20, 24, 60), 0.28)
    throat = [(neck, 0.6), (neck, 1.45), (neck + 0.25, 1.75), (1.2, 1.95), (0.7, 2.9)]
    painter.fill(curve(mirrored(throat), closed=True), shade, 0.03, turned=False)
    shadow = mix(person.skin, (10, 12, 35), 0.5)  # of the chin
    painter.fill(ellipse((0, 1.2), (0.62, 0.35)), shadow, 0.14, 0.8, turned=False, inside=True)
    depth = 2.35 if person.female else 1.95
    collar = [(0, depth), (neck * 0.9, 1.62), (neck + 0.4, 1.80), (shoulder * 0.8, 2.1), (shoulder, 2.7),
              (shoulder, 4.5)]
    painter.fill(curve(mirrored(collar), closed=True), person.shirt, 0.02, turned=False)
    for side in SIDES:
        painter.line(curve([(side * neck * 0.95, 1.6), (side * 0.3, depth - 0.25), (0, depth)]),
                     mix(person.shirt, BLACK, 0.4), 0.06, 0.03, 0.7, turned=False)
    if person.necktie:
        painter.fill([(-0.16, 1.75), (0.16, 1.75), (0.10, 1.98), (0.24, 3.4), (-0.24, 3.4), (-0.10, 1.98)],
                     person.necktie, 0.02, turned=False)


def head(painter, person, random) -> None:
    """Ears, skin, and the light and shade that give it relief."""
    dark, light = mix(person.skin, (16, 22, 66), 0.45), mix(person.skin, WHITE, 0.35)
    if person.hair_length in ("bald", "short") or person.hat:
        for side in SIDES:
            x = side * (0.99 * person.width) - 0.2 * person.yaw
            ear = ellipse((x, -0.32), (0.13, 0.27), -side * 0.15)
            painter.fill(ear, mix(person.skin, dark, 0.4), 0.02, turned=False)
            painter.fill(ellipse((x + side * 0.02, -0.32), (0.06, 0.17), -side * 0.15), dark, 0.03, 0.5, turned=False)
    outline = curve(mirrored(head_outline(person)), closed=True)
    painter.fill(outline, person.skin, 0.015, turned=False)
    # The outline turns away from the light: a dark rim, drawn as a wide soft line along it.
    painter.line(np.concatenate([outline, outline[:1]]), dark, 0.20, 0.13, 0.75, turned=False, inside=True)
    painter.fill(ellipse((0, -1.05), (0.55, 0.28)), light, 0.22, 0.55, inside=True)  # forehead
    painter.fill(ellipse((0, 1.02), (0.2, 0.12)), light, 0.10, 0.45, inside=True)  # chin
    painter.fill(ellipse((0, 0.78), (0.22, 0.05)), dark, 0.07, 0.55, inside=True)  # below the lower lip
    lift = 0.10 * person.strength if person.smiling else 0.0
    for side in SIDES:
        painter.fill(ellipse((side * 0.43, -0.52), (0.30, 0.17)), dark, 0.10, 0.62, inside=True)  # eye socket
        painter.fill(ellipse((side * 0.17, -0.52), (0.07, 0.18)), dark, 0.06, 0.4, inside=True)  # nose's root
        painter.fill(ellipse((side * 0.60, 0.06 - lift), (0.22, 0.15)), light, 0.12, 0.5, inside=True)  # cheekbone
        painter.fill(ellipse((side * 0.74, 0.48), (0.10, 0.34), side * 0.3), dark, 0.12, 0.45, inside=True)  # cheek
        if person.rosy:
            painter.fill(ellipse((side * 0.60, 0.10 - lift), (0.20, 0.14)), (110, 100, 225), 0.12, 0.35, inside=True)
        if person.smiling:  # the cheeks are pushed up and folded
            fold = curve([(side * 0.24, 0.02), (side * 0.42, 0.18), (side * 0.54, 0.40), (side * 0.53, 0.62)])
            painter.line(fold, dark, 0.06, 0.03, 0.85 * person.strength, inside=True)
            painter.fill(ellipse((side * 0.52, 0.14), (0.15, 0.11)), light, 0.08, 0.5, inside=True)
        else:
            fold = curve([(side * 0.24, 0.06), (side * 0.38, 0.28), (side * 0.43, 0.46)])
            painter.line(fold, dark, 0.05, 0.05, 0.35, inside=True)


def eyes(painter, person, random) -> None:
    """Eyeball, iris, lids and lashes; a smile narrows them from below."""
    dark = mix(person.skin, (14, 18, 50), 0.75)
    half, opening = 0.205 * person.eye, 0.085 * person.eye
    lower = opening * (0.45 if person.smiling else 0.75)
    for side in SIDES:
        x, y = side * 0.433, -0.5
        upper_lid = [(x - half, y + 0.02), (x - half * 0.5, y - opening * 0.85), (x, y - opening * 1.1),
                     (x + half * 0.55, y - opening * 0.8), (x + half, y + 0.015)]
        lower_lid = [(x + half, y + 0.015), (x + half * 0.4, y + lower), (x - half * 0.4, y + lower),
                     (x - half, y + 0.02)]
        upper, under = curve(upper_lid), curve(lower_lid)
        painter.fill(np.concatenate([upper, under[1:-1]]), (206, 212, 220), 0.012)
        radius = 0.098
        iris = ellipse((x + 0.02 * person.yaw, y - 0.012), (radius, radius))
        iris[:, 1] = np.clip(iris[:, 1], y - opening * 1.05, y + lower * 0.98)
        painter.fill(iris, person.iris, 0.01)
        painter.fill(ellipse((x, y - 0.015), (0.045, 0.045)), (8, 8, 10), 0.008)
        painter.fill(ellipse((x - 0.03, y - 0.04), (0.02, 0.02)), (245, 245, 245), 0.004, 0.9)
        painter.line(upper, (14, 16, 24), 0.065 if person.makeup else 0.045, 0.012, 0.95)
        painter.line(under, dark, 0.02, 0.012, 0.7)
        painter.line(upper + (0, -0.075), dark, 0.03, 0.02, 0.6)  # crease of the upper lid
        painter.line(curve([(x - half * 0.8, y + 0.13), (x, y + 0.19), (x + half * 0.8, y + 0.13)]), dark, 0.03, 0.04,
                     0.4, inside=True)
        if person.makeup:
            painter.line([(x + side * half * 0.9, y), (x + side * half * 1.35, y - 0.06)], (14, 16, 24), 0.035, 0.01)
            painter.fill(ellipse((x, y - 0.13), (half, 0.06)), (90, 60, 100), 0.05, 0.4)


def brows(painter, person, random) -> None:
    """Eyebrows, in the hair's color but never lighter than the skin's shade."""
    color = mix(mix(person.hair, (24, 30, 44), 0.6), person.skin, 0.08)
    thick = 0.052 * person.brow
    rise = 0.06 if person.arched else 0.02
    for side in SIDES:
        def at(x, y, side=side):
            return side * x, y
        upper = curve([at(0.17, -0.735), at(0.36, -0.79 - rise), at(0.56, -0.77 - rise), at(0.70, -0.67)])
        under = curve([at(0.70, -0.66), at(0.54, -0.77 - rise + thick * 1.3), at(0.36, -0.79 - rise + thick * 2),
                       at(0.17, -0.735 + thick * 2)])
        painter.fill(np.concatenate([upper, under]), color, 0.018, 0.92)


def nose(painter, person, random) -> None:
    """Bridge, tip, wings and nostrils."""
    dark, light = mix(person.skin, (14, 20, 60), 0.6), mix(person.skin, WHITE, 0.45)
    turn = person.yaw * 0.28
    wide = 0.185 * person.nose
    bridge = [(-0.05, -0.7), (0.05, -0.7), (0.065 + turn, -0.05), (-0.065 + turn, -0.05)]
    painter.fill(bridge, light, 0.05, 0.6, inside=True)
    for side in SIDES:
        flank = curve([(side * 0.10, -0.58), (side * 0.09 + turn * 0.5, -0.25), (side * 0.15 + turn, -0.02)])
        painter.line(flank, dark, 0.06, 0.045, 0.55 if side * person.yaw <= 0 else 0.25, inside=True)
        wing = curve([(side * (wide - 0.03) + turn, -0.10), (side * (wide + 0.01) + turn, 0.0),
                      (side * (wide - 0.02) + turn, 0.085), (side * (wide - 0.08) + turn, 0.10)])
        painter.line(wing, dark, 0.045, 0.02, 0.75, inside=True)
        painter.fill(ellipse((side * wide * 0.5 + turn, 0.095), (0.055, 0.03), -side * 0.3), (12, 14, 30), 0.012, 0.9)
    painter.fill(ellipse((turn, -0.03), (0.08, 0.07)), light, 0.045, 0.7, inside=True)
    painter.line(curve([(-wide * 0.8 + turn, 0.11), (turn, 0.145), (wide * 0.8 + turn, 0.11)]), dark, 0.05, 0.025, 0.7,
                 inside=True)
    for side in SIDES:
        painter.line([(side * 0.05, 0.18), (side * 0.06, 0.36)], dark, 0.03, 0.03, 0.35, inside=True)  # philtrum


def mouth(painter, person, random) -> None:
    """Lips, teeth and what lies between them."""
    corner_x, corner_y = mouth_corner(person)
    red = person.lipstick or mix(person.skin, (70, 66, 150), 0.55 if person.female else 0.4)
    dark = mix(red, (16, 12, 34), 0.6)
    middle = 0.50 + (0.05 * person.strength if person.smiling else -0.005)
    gap = 0.0
    if person.teeth:
        gap = 0.10 + 0.06 * person.strength
    elif person.open_mouth:
        gap = 0.13
    x = np.linspace(-1, 1, 21)
    arch = 1 - x ** 2
    parting = corner_y + (middle - corner_y) * arch - gap * 0.4 * arch
    below = parting + gap * arch ** 0.9
    bow = 1 - 0.28 * np.exp(-(x / 0.12) ** 2)
    top = parting - 0.105 * person.lips * arch ** 0.75 * bow
    bottom = below + 0.135 * person.lips * arch ** 0.7
    x = x * corner_x

    def area(upper, lower):
        return np.concatenate([np.stack([x, upper], 1), np.stack([x, lower], 1)[::-1]])

    painter.fill(area(top, parting), mix(red, BLACK, 0.18), 0.014)
    painter.fill(area(below, bottom), red, 0.016)
    painter.fill(ellipse((0, float(below[10] + 0.07)), (0.13, 0.025)), mix(red, WHITE, 0.5), 0.03, 0.55)
    if gap:
        painter.fill(area(parting, below), (26, 18, 48), 0.008)
        if person.teeth:
            painter.fill(area(parting + 0.006, np.minimum(below, parting + 0.8 * gap * arch ** 0.6))[2:-2],
                         (214, 226, 234), 0.010)
    else:
        painter.line(np.stack([x, parting], 1), dark, 0.035, 0.012, 0.95)
    for side in SIDES:
        painter.fill(ellipse((side * corner_x, corner_y), (0.035, 0.03)), dark, 0.02, 0.8)
    painter.line(np.stack([x, bottom], 1)[4:-4] + (0, 0.03), mix(person.skin, (14, 18, 50), 0.6), 0.03, 0.03, 0.5,
                 inside=True)


def beard(painter, person, random) -> None:
    """Stubble, goatee, mustache or full beard."""
    if person.beard == "none":
        return
    color = mix(person.hair, (20, 20, 24), 0.4)
    jaw = [(x, y) for x, y in head_outline(person) if y > 0.3]
    whole = curve(mirrored([(0, 0.22), (0.30, 0.26), (0.55, 0.42), (0.80 * person.width, 0.15)] + jaw), closed=True)
    if person.beard == "stubble":
        painter.fill(whole, mix(color, person.skin, 0.2), 0.07, 0.45, turned=False, inside=True)
    if person.beard == "full":
        painter.fill(whole, color, 0.05, 0.92, turned=False, inside=True)
        painter.fill(ellipse((0, 1.22), (0.5, 0.18)), color, 0.05, 0.9, turned=False)
    if person.beard in ("goatee", "full"):
        tuft = mirrored([(0, 0.72), (0.24, 0.70), (0.30, 1.0), (0.22, 1.32), (0, 1.38)])
        painter.fill(curve(tuft, closed=True), color, 0.04, 0.9)
    if person.beard in ("goatee", "mustache", "full"):
        painter.fill(curve(mirrored([(0, 0.22), (0.22, 0.24), (0.45, 0.44), (0.40, 0.52), (0.20, 0.38), (0, 0.37)]),
                           closed=True), color, 0.03, 0.92)


def front_hair(painter, person, random) -> None:
    """Hair over the forehead and beside the face."""
    if person.hair_length == "bald":
        painter.fill(ellipse((0.15, -1.45), (0.3, 0.12)), WHITE, 0.12, 0.35, inside=True)
        return
    hairline = -0.92 if person.bangs else (-1.42 if person.receding else -1.24)
    inner = [(0, hairline), (0.42, hairline - 0.02), (0.74, min(-0.95, hairline + 0.18)), (0.90, -0.72)]
    if person.receding:
        inner = [(0, -1.30), (0.30, -1.46), (0.62, -1.38), (0.88, -0.95)]
    if person.hair_length in ("medium", "long"):
        end = 0.75 if person.hair_length == "medium" else 1.5
        side_way = [(0.93, -0.3), (0.96, 0.4), (1.0, end), (1.22, end), (1.26, 0.2), (1.18, -0.8)]
        crown = [(0.92, -1.55), (0.50, -1.86), (0, -1.95)]
    else:
        side_way = [(0.96, -0.45), (1.03, -0.45), (1.07, -0.9)]
        crown = [(0.88, -1.50), (0.48, -1.78), (0, -1.86)]
    half = inner + side_way + crown
    outline = mirrored([half[-1]] + half[-2:0:-1] + [half[0]])
    painter.fill(outline if person.receding else curve(outline, closed=True, steps=5), person.hair, 0.025, turned=False)
    painter.line(curve([(-x, y) for x, y in inner[::-1]] + inner[1:]), mix(person.skin, (14, 18, 50), 0.6), 0.05, 0.06,
                 0.4, turned=False, inside=True)
    roots = [(random.uniform(-0.95, 0.95), random.uniform(-1.85, -1.5)) for _ in range(44)]
    _strands(painter, person, random, roots, hairline - 0.02, True)
    if person.hair_length in ("medium", "long"):
        roots = [(side * random.uniform(0.99, 1.2), random.uniform(-1.2, -0.6)) for side in SIDES for _ in range(14)]
        _strands(painter, person, random, roots, side_way[2][1], False)
    if person.earrings:
        for side in SIDES:
            painter.fill(ellipse((side * 1.0, 0.10), (0.05, 0.08)), (120, 220, 250), 0.01, turned=False)


def _strands(painter, person, random, roots, end: float, crown: bool) -> None:
    """Lighter and darker hairs from the roots down to `end`, falling to the sides on the crown."""
    wave = 0.07 if person.wavy else 0.015
    for color in (mix(person.hair, BLACK, 0.45), mix(person.hair, WHITE, 0.28)):
        many = []
        for x, y in roots:
            t = np.linspace(0, 1, 8)
            phase, reach = random.uniform(0, 6.3), random.uniform(0.6, 1.0)
            bend = 0.35 * np.sign(x) * t ** 2 if crown else 0.0
            down = np.maximum(0.05, (end - y) * reach - (0.0 if not crown else 0.35 * abs(x)))
            many.append(np.stack([x + bend + wave * np.sin(phase + 7 * t), y + down * t], 1))
        painter.lines(many, color, 0.02, 0.45, inside=True)


def hat(painter, person, random) -> None:
    """A cap or a woolen hat over the hair."""
    if not person.hat:
        return
    painter.fill(curve(mirrored([(0, -2.05), (0.6, -1.95), (1.02, -1.55), (1.12, -1.05), (0.6, -1.02), (0, -1.0)]),
                       closed=True), person.hat, 0.02, turned=False)
    painter.line(curve([(-1.1, -1.08), (-0.5, -0.98), (0, -0.96), (0.5, -0.98), (1.1, -1.08)]),
                 mix(person.hat, BLACK, 0.45), 0.16, 0.03, 0.9, turned=False)
    painter.fill(ellipse((0.2, -1.6), (0.4, 0.2)), WHITE, 0.2, 0.2, turned=False, inside=True)


def glasses(painter, person, random) -> None:
    """A frame, or sunglasses."""
    if person.glasses == "none":
        return
    for side in SIDES:
        lens = ellipse((side * 0.44, -0.46), (0.33, 0.25))
        if person.glasses == "dark":
            painter.fill(lens, (18, 16, 16), 0.012, 0.93)
            painter.fill(ellipse((side * 0.44 - 0.1, -0.56), (0.1, 0.05)), WHITE, 0.05, 0.3)
        painter.line(np.concatenate([lens, lens[:1]]), (20, 18, 22), 0.05, 0.008, 0.95)
        painter.line([(side * 0.77, -0.52), (side * 1.0, -0.55)], (20, 18, 22), 0.05, 0.008, 0.95, turned=False)
    painter.line(curve([(-0.12, -0.50), (0, -0.54), (0.12, -0.50)]), (20, 18, 22), 0.045, 0.008, 0.95)


def paint(person) -> Tuple[Painter, np.ndarray]:
    """Paint a portrait.Person; return the canvas and the five landmarks in canvas pixels, 5 x 2."""
    painter = Painter(person.yaw)
    random = np.random.default_rng(person.seed)
    for part in (back_hair, body, head, eyes, nose, beard, mouth,
                 front_hair, brows, hat, glasses):
        part(painter, person, random)
    corner = mouth_corner(person)
    eye_points, nose_point = recipe.FACE_TEMPLATE[:2], recipe.FACE_TEMPLATE[2:3]
    corners = [(-corner[0], corner[1]), corner]
    points = np.concatenate([painter.turn(eye_points), painter.turn(nose_point, above=0.3), painter.turn(corners)])
    return painter, points * UNIT + CANVAS / 2
