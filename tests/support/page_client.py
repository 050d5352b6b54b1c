"""A page that runs in a thread, and its clients: what the tests of the server and of the browser share."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import threading

from PIL import Image

from tools import web
from gender_smile.pages.web_app import Limits


@contextlib.contextmanager
def running(pipeline, host="127.0.0.1", **limits):
    """The address of a page that serves `pipeline` from a thread."""
    server, listener = web.make_server(pipeline, host, 0, Limits(**limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(10)


def ask(address, method="GET", path="/", body=None, **headers):
    """(status, headers, body) of one request."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named, encode_chunked="Transfer-Encoding" in named)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def predict(address, content: bytes, path="/predict", **headers):
    status, _, body = ask(address, "POST", path, content, **{"Content_Type": "application/octet-stream", **headers})
    return status, json.loads(body)


def file_of(image, form="PNG", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, form, **options)
    return content.getvalue()


def picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
