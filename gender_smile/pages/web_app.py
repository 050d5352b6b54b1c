"""The page's server as an ASGI application: a photo comes in as the body of a request, answers go out as JSON.

Nothing is written to disk: bodies are read into memory up to a limit, and forgotten with the request.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from anyio import CapacityLimiter, Lock, fail_after, get_cancelled_exc_class, to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import recipe
from gender_smile.pages import html
from lmdb_builders.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    from gender_smile.inference.pipeline import Pipeline, Prediction

STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")  # other names that lead here are another page's trick (rebinding)
PREVIEW_SIDE = 1280  # pixels of the longer side of the photo that goes back
CROP_SIDE = 224  # pixels of a crop that goes back, at least
CLIENTS = 10_000  # addresses whose rates are remembered
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Limits:
    """What one server accepts."""

    upload_bytes: int = 20 * 2**20  # of a photo's file
    upload_seconds: float = 30.0  # for it to arrive
    megapixels: float = 25.0  # of a photo; larger JPEGs are decoded at a half, a quarter or an eighth of their sides
    held_bytes: int = 400 * 2**20  # of all files that are arriving, waiting or being answered
    per_minute: float = 60.0  # photos of one address, in the long run
    at_once: int = 10  # photos of one address that may come without a pause, and that may be arriving at a time
    waiting: int = 16  # photos of all addresses that have arrived and are not answered yet
    workers: int = 2  # photos being decoded or predicted: one can be decoded while the nets have another
    faces: int = 12  # answered of one photo


class Refusal(Exception):
    """A request that is refused: the status and the sentence for the user."""

    def __init__(self, status: int, message: str, headers: Optional[Dict[str, str]] = None):
        super().__init__(message)
        self.status, self.headers = status, headers


class Rate:
    """A token bucket for each address: `at_once` photos, refilled by `per_minute`."""

    def __init__(self, per_minute: float, at_once: int, clock: Callable[[], float] = time.monotonic):
        self.interval, self.at_once, self.clock = 60 / per_minute, at_once, clock
        self.full: Dict[str, float] = {}  # address -> when its bucket is full again, the longest unheard first

    def take(self, address: str) -> float:
        """Take a token; 0 where there was one, else the seconds until there is."""
        now = self.clock()
        full = max(now, self.full.pop(address, now))
        wait = max(0.0, full - now - (self.at_once - 1) * self.interval)
        self.full[address] = full if wait else full + self.interval
        while len(self.full) > CLIENTS:
            del self.full[next(iter(self.full))]
        return wait


def secured(app: ASGIApp) -> ASGIApp:
    """Middleware that adds HEADERS to every response."""
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        await app(scope, receive, send_secured if scope["type"] == "http" else send)

    return call


class Predictions:
    """The requests for predictions, and what they may take."""

    def __init__(self, pipeline: "Pipeline", limits: Limits):
        self.pipeline, self.limits = pipeline, limits
        self.rate = Rate(limits.per_minute, limits.at_once)
        self.workers = CapacityLimiter(limits.workers)
        self.arriving: Counter = Counter()  # address -> photos
        self.waiting = 0
        self.held_bytes = 0

    async def respond(self, request: Request) -> Response:
        """POST, the photo's file as the body; ?explain=1 adds heat maps."""
        try:
            return JSONResponse(await self._answer(request), headers={"Cache-Control": "no-store"})
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, refusal.status, headers=refusal.headers)
        except ClientDisconnect:
            return Response(status_code=499)
        except get_cancelled_exc_class():  # the server ends, and this photo does not arrive
            return JSONResponse({"error": "The page is being closed."}, 503)

    async def _answer(self, request: Request) -> Dict[str, Any]:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "Photos are taken from this page only.")
        if request.headers.get("content-type") != "application/octet-stream":  # no form of another page can send that
            raise Refusal(415, "Send the photo's file as it is, with Content-Type: application/octet-stream.")
        address = request.client.host if request.client else ""
        wait = self.rate.take(address)
        if wait:
            raise Refusal(429, f"That was a lot of photos: wait {max(1, round(wait))} s.", {"Retry-After": f"{wait + 1:.0f}"})
        parts: List[bytes] = []
        try:
            await self._receive(request, address, parts)
            if self.waiting >= self.limits.waiting:
                raise busy()
            self.waiting += 1
            try:
                explain = request.query_params.get("explain") == "1"
                return await to_thread.run_sync(self._predict, b"".join(parts), explain, limiter=self.workers)
            finally:
                self.waiting -= 1
        finally:
            self.held_bytes -= sum(map(len, parts))

    async def _receive(self, request: Request, address: str, parts: List[bytes]) -> None:
        """Add the body to `parts`, whose bytes count as held."""
        most = self.limits.upload_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 20 or int(length) > most):
            raise Refusal(413, too_large(most))
        if self.arriving[address] >= self.limits.at_once:
            raise Refusal(429, "Your other photos have not arrived yet: wait until they have.", {"Retry-After": "5"})
        self.arriving[address] += 1
        try:
            size = 0
            with fail_after(self.limits.upload_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Refusal(413, too_large(most))
                    if self.held_bytes + len(part) > self.limits.held_bytes:
                        raise busy()
                    parts.append(part)
                    self.held_bytes += len(part)
        except TimeoutError:
            raise Refusal(408, "The photo took too long to arrive.") from None
        finally:
            self.arriving[address] -= 1
            if not self.arriving[address]:
                del self.arriving[address]

    def _predict(self, content: bytes, explain: bool) -> Dict[str, Any]:
        """In a thread of its own: bytes to what page.js draws."""
        from lmdb_builders.images import decode_image
        from gender_smile.inference.pipeline import PipelineError

        try:
            photo = decode_image(content, self.limits.megapixels)
        except ImageError as error:
            reason = "the file is empty" if not content else str(error)
            raise Refusal(400, f"This photo cannot be read: {reason}.") from None
        try:
            predictions = self.pipeline.predict_faces(photo, crops=True, explain=explain, most=self.limits.faces)
        except PipelineError as error:
            raise Refusal(500, f"The nets cannot run: {error}") from None
        answers = [shown(prediction) for prediction in predictions if prediction.error is None]
        return {
            "width": photo.shape[1], "height": photo.shape[0], "preview": preview(photo), "profile": self.pipeline.profile,
            "model": self.pipeline.model.as_dict(),
            "answers": answers, "found": predictions[0].faces,
            "error": None if answers else predictions[0].error,
        }


def too_large(most: int) -> str:
    return f"This file is larger than {most / 2**20:g} MB: send a smaller copy of the photo."


def busy() -> Refusal:
    return Refusal(503, "Too many people at once: try again in a few seconds.", {"Retry-After": "5"})


def shown(prediction: "Prediction") -> Dict[str, Any]:
    """A prediction as JSON, with each net's input and heat map, where it has one, as pictures."""
    from gender_smile.inference.heatmaps import overlay

    pictures = {net: html.data_url(enlarged(crop), ".png") for net, crop in prediction.crops.items()}
    heat = {net: html.data_url(overlay(enlarged(prediction.crops[net]), enlarged(heat)), ".png")
            for net, heat in prediction.heat.items()}
    return {**prediction.as_dict(), "p_positive": prediction.p_positive, "crops": pictures, "heat": heat}


def shown_nets() -> List[Dict[str, str]]:
    """What the page says of each net of the ensembles: its name, what its probability is of, and what it sees."""
    return [
        {"net": net, "title": recipe.NETS[net].title, "task": task, "answer": recipe.TASKS[task].classes[1],
         "view": recipe.CROPS[recipe.NETS[net].crop].describes.split(":")[0]}
        for task, nets in recipe.ENSEMBLES.items() for net in nets
    ]


def enlarged(tile: "np.ndarray") -> "np.ndarray":
    """A crop or a heat map of at least CROP_SIDE pixels a side."""
    import cv2

    side = max(CROP_SIDE, tile.shape[0])
    return cv2.resize(tile, (side, side), interpolation=cv2.INTER_LINEAR)


def preview(photo: "np.ndarray") -> str:
    """The photo, upright and no larger than a screen: some files (TIFF, CMYK, 16 bits) no browser shows."""
    import cv2

    scale = min(1.0, PREVIEW_SIDE / max(photo.shape[:2]))
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return html.data_url(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), ".jpg")


class Examples:
    """Photos to try the page with, made when they are first asked for: scikit-image's astronaut and faces we draw."""

    def __init__(self) -> None:
        self.files: Dict[str, bytes] = {}  # by name
        self.lock = Lock()

    async def respond(self, request: Request) -> Response:
        async with self.lock:  # a page asks for all at once
            if not self.files:
                self.files = await to_thread.run_sync(self._make)
        content = self.files.get(request.path_params["name"])
        if content is None:
            return Response("there is no such example", 404)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    def _make(self) -> Dict[str, bytes]:
        import numpy as np
        from skimage import data

        from gender_smile.synthetic import portrait

        photos = [data.astronaut()[:, :, ::-1]]
        for seed, female in ((3, False), (8, True)):
            random = np.random.default_rng(seed)
            person = portrait.invent(random, female=female, smiling=female)
            photos.append(portrait.photograph(person, random, 320, 320, 0.5)[0])
        return {f"{number}.jpg": html.encode(np.ascontiguousarray(photo), quality=95) for number, photo in enumerate(photos)}


def application(pipeline: "Pipeline", limits: Optional[Limits] = None, hosts: Sequence[str] = LOCAL_HOSTS) -> Starlette:
    """The page of a pipeline.

    hosts: names by which browsers may call it ("*": any); a page whose own name leads here is refused with 400.
    """
    limits = limits or Limits()
    page = html.render("index.html", upload_bytes=limits.upload_bytes, nets=shown_nets(), model=pipeline.model)

    async def index(request: Request) -> Response:
        return HTMLResponse(page)

    async def model_card(request: Request) -> Response:
        with open(recipe.absolute("docs/model-card.md"), encoding="utf-8") as file:
            return PlainTextResponse(file.read())

    routes = [
        Route("/", index),
        Route("/model-card", model_card),
        Route("/predict", Predictions(pipeline, limits).respond, methods=["POST"]),
        Route("/examples/{name}", Examples().respond),
        Mount("/page", StaticFiles(directory=STATIC)),
    ]
    middleware = [Middleware(secured), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))]
    return Starlette(routes=routes, middleware=middleware)
