"""A small https server on this machine that serves one file and misbehaves on demand."""

from __future__ import annotations

import http.server
import re
import shutil
import ssl
import subprocess
import threading
from pathlib import Path
from typing import List, Optional, Tuple

import pytest

URL_PATH = "/vgg_face_caffe.tar.gz"


def make_certificate(folder: Path) -> Tuple[Path, Path]:
    """Self-signed certificate for 127.0.0.1 and its key. Skips the test where there is no openssl."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command for a certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True)
    return certificate, key


class Server:
    """Serves `content` at `url`. What it does wrong is set by its attributes, request by request."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.content = b""
        self.etag = '"first"'
        self.ranges = True  # False: answers every request with the whole file
        self.cut_after: List[int] = []  # bytes after which the next connections end
        self.redirect: Optional[str] = None
        self.status: List[int] = []  # answers of the next requests instead of the file
        self.length: Optional[str] = "right"  # or what Content-Length says instead; None: it is not sent
        self.if_range = True  # False: sends the part asked for although the file has changed
        self.seen: List[Optional[str]] = []  # the Range header of each request
        self.conditions: List[Optional[str]] = []  # the If-Range header of each request
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.httpd.socket = context.wrap_socket(self.httpd.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.httpd.server_address[1]}{URL_PATH}"
        self.trust = ssl.create_default_context(cafile=str(certificate))
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.seen.append(wanted)
        self.conditions.append(request.headers.get("If-Range"))
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.end_headers()
            return
        if self.status:
            request.send_error(self.status.pop(0))
            return
        start = 0
        if wanted and self.ranges and (not self.if_range or self.conditions[-1] in (None, self.etag)):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(self.content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(self.content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.length:
            right = str(len(self.content) - start)
            request.send_header("Content-Length", right if self.length == "right" else self.length)
        request.send_header("ETag", self.etag)
        request.end_headers()
        end = start + self.cut_after.pop(0) if self.cut_after else len(self.content)
        request.wfile.write(self.content[start:end])
