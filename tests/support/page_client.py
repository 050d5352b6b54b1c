"""A page that runs in a thread, and its clients: what the tests of the server and of the browser share."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import socket
import threading

from PIL import Image

from gender_smile.pages.server import make_server
from gender_smile.pages.web_app import Limits


@contextlib.contextmanager
def running(pipeline, host="127.0.0.1", proxy_headers=False, **limits):
    """The address of a page that serves `pipeline` from a thread."""
    server, listener = make_server(pipeline, host, 0, Limits(**limits), proxy_headers)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(10)


def ask(address, method="GET", path="/", body=None, source=None, **headers):
    """(status, headers, body) of one request; `source`: the client's own address, such as 127.0.0.2."""
    connection = http.client.HTTPConnection(*address, timeout=30, source_address=source and (source, 0))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named, encode_chunked="Transfer-Encoding" in named)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def predict(address, content: bytes, path="/predict", source=None, **headers):
    status, _, body = ask(address, "POST", path, content, source, **{"Content_Type": "application/octet-stream", **headers})
    return status, json.loads(body)


def begin_upload(address, head_only=False) -> socket.socket:
    """A connection whose request never ends: in its body, or in its headers."""
    connection = socket.create_connection(address, timeout=20)
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n")
    if not head_only:
        connection.sendall(b"Content-Length: 100\r\n\r\nabc")
    return connection


def file_of(image, form="PNG", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, form, **options)
    return content.getvalue()


def picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
