"""HTML by the templates of this package, and pictures as data: addresses, so that a page needs no other file."""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    import numpy as np


def render(template: str, **values: Any) -> str:
    """A template of templates/ with its values, which are escaped. Raises jinja2.UndefinedError for a missing value."""
    return _environment().get_template(template).render(values)


@functools.lru_cache(maxsize=1)
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("gender_smile.pages"), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True)
    environment.filters.update(percent=percent, number="{:,}".format, data_url=data_url)
    return environment


def percent(share: Any) -> str:
    """A share, 0..1, as "87.50 %"; "-" for None."""
    return "-" if share is None else f"{100 * share:.2f} %"


def encode(pixels: "np.ndarray", suffix: str = ".jpg", quality: int = 90) -> bytes:
    """An image file (".jpg", ".png") of `pixels`, height x width x 3 uint8, BGR; quality: of a JPEG, 0..100."""
    import cv2

    return cv2.imencode(suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [])[1].tobytes()


def data_url(pixels: "np.ndarray", suffix: str = ".jpg", quality: int = 90) -> str:
    """data: address of encode()'s file."""
    return bytes_url(encode(pixels, suffix, quality), "image/png" if suffix == ".png" else "image/jpeg")


def bytes_url(content: bytes, media_type: str) -> str:
    """data: address of a file's content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
