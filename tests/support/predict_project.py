"""Photos for tests of the command predict.py, and its answers."""

from __future__ import annotations

import json

from PIL import Image
from pipeline_fakes import photo


def save(name: str, image=None, **options) -> str:
    """Save an image (Pillow's, or H x W x 3 uint8) in the working folder; returns `name`."""
    image = Image.fromarray(photo() if image is None else image) if not isinstance(image, Image.Image) else image
    image.save(name, **options)
    return name


def answers(capsys) -> list:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
