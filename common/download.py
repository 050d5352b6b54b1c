"""Fetch one large file over https: checked, with a progress bar, resuming an earlier attempt.

Not a command of its own; `tools/weights.py` uses it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Dict, Iterator, Optional

from common.files import CHUNK, digest_of, read_json, write_json

ATTEMPTS = 4  # connections in a row that bring no byte before giving up
TIMEOUT = 60  # seconds without a byte
LIMIT = 1 << 30  # bytes of a file; the only one that is fetched has 540 MB


class DownloadError(RuntimeError):
    """The file could not be fetched; the message says why and what to do."""


class _Interrupted(Exception):
    """The connection broke: what has arrived is kept, and the next attempt resumes there."""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https and to nothing else."""

    def redirect_request(self, request, response, code, message, headers, url):
        check_https(url)
        return super().redirect_request(request, response, code, message, headers, url)


def check_https(url: str) -> None:
    """Raise DownloadError unless `url` begins with https."""
    if urllib.parse.urlsplit(url).scheme != "https":
        raise DownloadError(f"{url}: only https is used; a file from elsewhere is passed as VGG_FACE=path")


def download(url: str, path: str, md5: str, pause: float = 2.0, context: Optional[ssl.SSLContext] = None) -> None:
    """Fetch `url` to `path`, which exists only when complete and its md5 is `md5` (32 hexadecimal digits).

    Until then the bytes lie in `path`.part, and `path`.part.json says what they are part of: a later call resumes
    there if the server still has the same file. A broken connection is resumed after `pause` seconds.
    Raises DownloadError, also for more than LIMIT bytes, and while another download writes there; a full disk is one,
    and keeps what has arrived.
    """
    check_https(url)
    handlers = [_HttpsOnly(), urllib.request.HTTPSHandler(context=context or ssl.create_default_context())]
    opener = urllib.request.build_opener(*handlers)
    with _only_download(path):
        partial = _Partial(url, path + ".part")
        _fetch(opener, partial, pause)
        if (actual := md5_of(partial.path)) != md5:
            partial.discard()
            raise DownloadError(f"{url}: md5 is {actual}, expected {md5}; the file was removed, "
                                "type it again to fetch it once more")
        os.replace(partial.path, path)
        partial.discard()


@contextlib.contextmanager
def _only_download(path: str) -> Iterator[None]:
    """Hold the folder of `path` for one download at a time. Raises DownloadError where another one does."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of file systems that cannot lock
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DownloadError(f"{path}: another download is writing there; wait for it or stop it") from None
        yield
    finally:
        os.close(folder)


def _fetch(opener: urllib.request.OpenerDirector, partial: _Partial, pause: float) -> None:
    """As many connections as it takes, `pause` seconds apart, until the file is complete. Raises DownloadError."""
    failures = 0
    while True:
        before = partial.size()
        try:
            _fetch_rest(opener, partial)
            break
        except _Interrupted as error:
            failures = 0 if partial.size() > before else failures + 1
            if failures == ATTEMPTS:
                raise DownloadError(f"{partial.url}: {error}; {partial.size():,} bytes are kept, "
                                    "type it again to resume") from None
            time.sleep(pause)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DownloadError(f"{partial.url}: {error}") from None
            raise DownloadError(f"{partial.path}: {error.strerror} after {partial.size():,} bytes; "
                                "make room and type it again to resume") from None


def md5_of(path: str) -> str:
    """md5 of a file, 32 hexadecimal digits."""
    return digest_of(path, hashlib.md5(usedforsecurity=False))


class _Partial:
    """What has arrived of a file: its bytes, and a record of the server's description of the whole."""

    def __init__(self, url: str, path: str) -> None:
        self.url, self.path, self.record_path = url, path, path + ".json"
        self.record: Dict[str, object] = read_json(self.record_path) or {}
        if self.record.get("url") != url or not self.validator():
            self.discard()  # of another address, or nothing to tell by whether the file has changed

    def size(self) -> int:
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def validator(self) -> str:
        """What If-Range compares: a strong ETag, else the date of the last change."""
        etag = str(self.record.get("etag") or "")
        return etag if etag and not etag.startswith("W/") else str(self.record.get("last_modified") or "")

    def describe(self, response: http.client.HTTPResponse, total: Optional[int]) -> None:
        """Note what a fresh answer says about the whole file."""
        headers = response.headers
        self.record = {"url": self.url, "size": total, "etag": headers.get("ETag"),
                       "last_modified": headers.get("Last-Modified")}
        write_json(self.record_path, self.record)

    def continued_by(self, response: http.client.HTTPResponse) -> bool:
        """Whether a 206 answer brings the very next byte of the same file."""
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        same = all(response.headers.get(name) in (None, self.record.get(key))
                   for name, key in (("ETag", "etag"), ("Last-Modified", "last_modified")))
        return bool(part) and same and int(part[1]) == self.size() and int(part[2]) == self.record.get("size")

    def discard(self) -> None:
        self.record = {}
        for path in (self.path, self.record_path):
            if os.path.exists(path):
                os.remove(path)


def _fetch_rest(opener: urllib.request.OpenerDirector, partial: _Partial) -> None:
    """One connection: return when the file is complete, raise _Interrupted when it broke."""
    have = partial.size()
    request = urllib.request.Request(partial.url, headers={"Accept-Encoding": "identity"})
    if have and partial.validator():
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", partial.validator())
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            if response.status == 206 and not partial.continued_by(response):
                partial.discard()
                raise _Interrupted("the server sent another part than the one asked for")
            if response.status != 206:  # the whole file: no Range asked for, none understood, or it has changed
                have = 0
                _check_size(partial, response.length or 0)
                partial.describe(response, response.length)
                _check_room(partial, response.length or 0)
            _store(response, partial, have)
    except urllib.error.HTTPError as error:
        _after_refusal(error, partial)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{partial.url}: {error.reason.verify_message}; "
                                "the server is not who it says") from None
        raise _Interrupted(str(error.reason)) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _after_refusal(error: urllib.error.HTTPError, partial: _Partial) -> None:
    """Return if the refusal means "nothing is left to send"; raise otherwise."""
    if error.code == 416:  # the range asked for begins at or behind the end
        if error.headers.get("Content-Range") == f"bytes */{partial.size()}":
            return
        partial.discard()
        raise _Interrupted("the file on the server has changed") from None
    if error.code in (408, 429) or error.code >= 500:
        raise _Interrupted(f"the server answered {error.code} {error.reason}") from None
    raise DownloadError(f"{partial.url}: the server answered {error.code} {error.reason}; "
                        "fetch the file elsewhere and pass it as VGG_FACE=path") from None


def _check_size(partial: _Partial, size: int) -> None:
    """Raise DownloadError, and keep nothing, where the server sends more than the file can have."""
    if size > LIMIT:
        partial.discard()
        raise DownloadError(f"{partial.url}: the server sends {size:,} bytes or more, and the file has less than "
                            f"{LIMIT:,}: it is another one; check the address")


def _check_room(partial: _Partial, size: int) -> None:
    room = shutil.disk_usage(os.path.dirname(partial.path)).free + partial.size()
    if room < size:
        raise DownloadError(f"{partial.path}: {size:,} bytes are needed, the disk has room for {room:,}")


def _store(response: http.client.HTTPResponse, partial: _Partial, have: int) -> None:
    from tqdm import tqdm

    total = partial.record.get("size")
    with open(partial.path, "ab" if have else "wb") as stream, tqdm(
            total=total, initial=have, unit="B", unit_scale=True, desc=os.path.basename(partial.path)[:-5],
            disable=None) as bar:
        while chunk := response.read(CHUNK):
            have += len(chunk)
            _check_size(partial, have)
            stream.write(chunk)
            bar.update(len(chunk))
    if total is not None and partial.size() < total:
        raise _Interrupted(f"the connection ended at {partial.size():,} of {total:,} bytes")
