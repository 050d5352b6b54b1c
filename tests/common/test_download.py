"""common/download.py against an https server on this machine that cuts, changes and refuses."""

from __future__ import annotations

import hashlib
import os
import resource
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from https_server import Server, make_certificate

from common import download

CONTENT = os.urandom(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate):
    server = Server(*certificate)
    server.content = CONTENT
    yield server
    server.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "archive.tar.gz"


def fetch(server: Server, target: Path, md5: str = MD5) -> None:
    download.download(server.url, str(target), md5, pause=0.0, context=server.trust)


def leftovers(target: Path) -> list:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_whole_file(server: Server, target: Path) -> None:
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.seen == [None]
    assert leftovers(target) == []


def test_broken_connection_goes_on_where_it_ended(server: Server, target: Path) -> None:
    server.cut_after = [1_000_000, 500_000]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.seen == [None, "bytes=1000000-", "bytes=1500000-"]
    assert server.conditions == [None, server.etag, server.etag]


def test_later_call_goes_on(server: Server, target: Path) -> None:
    server.cut_after = [1_000_000] + [0] * download.ATTEMPTS
    with pytest.raises(download.DownloadError, match="1,000,000 bytes are kept, type it again to resume"):
        fetch(server, target)
    assert not target.exists()
    server.seen.clear()
    fetch(server, target)
    assert server.seen == ["bytes=1000000-"]
    assert target.read_bytes() == CONTENT


def test_server_that_ignores_range(server: Server, target: Path) -> None:
    server.cut_after, server.ranges = [1_000_000], False
    fetch(server, target)
    assert server.seen == [None, "bytes=1000000-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("if_range", [True, False], ids=["server says so", "server sends the part all the same"])
@pytest.mark.parametrize("size", [500_000, 2_000_000], ids=["shorter", "longer"])
def test_file_that_changed_meanwhile_is_fetched_from_its_start(server: Server, target: Path, size: int,
                                                               if_range: bool) -> None:
    server.if_range = if_range
    server.cut_after = [1_000_000] + [0] * download.ATTEMPTS
    with pytest.raises(download.DownloadError):
        fetch(server, target)
    server.content, server.etag = os.urandom(size), '"second"'
    fetch(server, target, hashlib.md5(server.content).hexdigest())
    assert target.read_bytes() == server.content


def test_everything_there_but_the_name(server: Server, target: Path) -> None:
    server.cut_after = [len(CONTENT) - 10, 0, 0, 0, 0]
    with pytest.raises(download.DownloadError):
        fetch(server, target)
    with open(f"{target}.part", "ab") as stream:
        stream.write(CONTENT[-10:])
    server.seen.clear()
    fetch(server, target)
    assert server.seen == [f"bytes={len(CONTENT)}-"]  # answered 416: nothing is left to send
    assert target.read_bytes() == CONTENT


def test_range_beyond_the_end_starts_anew(server: Server, target: Path) -> None:
    server.cut_after = [1_000_000] + [0] * download.ATTEMPTS
    with pytest.raises(download.DownloadError):
        fetch(server, target)
    with open(f"{target}.part", "ab") as stream:
        stream.write(bytes(5_000_000))
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_part_of_another_address_is_not_continued(server: Server, target: Path) -> None:
    Path(f"{target}.part").write_bytes(b"something else")
    Path(f"{target}.part.json").write_text('{"url": "https://elsewhere/file", "etag": "\\"first\\"", "size": 99}')
    fetch(server, target)
    assert server.seen == [None]
    assert target.read_bytes() == CONTENT


def test_wrong_md5_removes_the_file(server: Server, target: Path) -> None:
    with pytest.raises(download.DownloadError, match=f"md5 is {MD5}, expected {'0' * 32}"):
        fetch(server, target, "0" * 32)
    assert not target.exists() and leftovers(target) == []


def test_plain_http_is_refused(target: Path) -> None:
    with pytest.raises(download.DownloadError, match="only https"):
        download.download("http://127.0.0.1/file", str(target), MD5)


def test_redirect_to_http_is_refused(server: Server, target: Path) -> None:
    server.redirect = "http://127.0.0.1:9/file"
    with pytest.raises(download.DownloadError, match="only https"):
        fetch(server, target)
    assert len(server.seen) == 1


def test_redirect_to_another_https_address_is_followed(server: Server, certificate, target: Path) -> None:
    other = Server(*certificate)
    other.redirect = server.url
    try:
        download.download(other.url, str(target), MD5, pause=0.0, context=server.trust)
    finally:
        other.close()
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["right", None])
def test_more_than_the_limit_is_not_stored(server: Server, target: Path, monkeypatch, length) -> None:
    """Said by the header before a byte is taken, or, where the header says nothing, as soon as it is seen."""
    monkeypatch.setattr(download, "LIMIT", 2_500_000)
    server.length = length
    with pytest.raises(download.DownloadError, match="bytes or more, and the file has less than 2,500,000"):
        fetch(server, target)
    assert not target.exists() and leftovers(target) == []


@pytest.mark.parametrize("length", ["many", "-5"])
def test_a_length_that_is_none_is_passed_over(server: Server, target: Path, length) -> None:
    server.length = length
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_unknown_certificate_is_refused(server: Server, target: Path) -> None:
    with pytest.raises(download.DownloadError, match="not who it says"):
        download.download(server.url, str(target), MD5, pause=0.0, context=ssl.create_default_context())
    assert not target.exists()


def test_busy_server_is_asked_again(server: Server, target: Path) -> None:
    server.status = [503, 500]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_missing_file_is_not_asked_for_again(server: Server, target: Path) -> None:
    server.status = [404]
    with pytest.raises(download.DownloadError, match="404.*VGG_FACE=path"):
        fetch(server, target)
    assert len(server.seen) == 1


def test_no_server(server: Server, target: Path) -> None:
    server.close()
    with pytest.raises(download.DownloadError, match="refused"):
        fetch(server, target)


def test_too_small_disk_is_said_before(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(download.DownloadError, match="3,000,000 bytes are needed, the disk has room for 1,000"):
        fetch(server, target)


def test_two_downloads_do_not_write_into_one_another(server: Server, target: Path) -> None:
    with download._only_download(str(target)):
        with pytest.raises(download.DownloadError, match="archive.tar.gz: another download is writing there; wait"):
            fetch(server, target)
    assert server.seen == [] and leftovers(target) == []
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_no_bar_where_there_is_no_terminal(server: Server, target: Path, capfd) -> None:
    fetch(server, target)
    assert "B/s" not in capfd.readouterr().err


def test_disk_that_fills_keeps_what_arrived(server: Server, target: Path) -> None:
    """A limit on the size of files stands in for the full disk: the system refuses the write in the same place."""
    server.cut_after = [2_500_000]
    certificate = target.parent / "trusted.pem"
    trusted = server.trust.get_ca_certs(binary_form=True)
    certificate.write_text("".join(map(ssl.DER_cert_to_PEM_cert, trusted)))
    code = (f"import ssl; from common import download\n"
            f"try: download.download({server.url!r}, {str(target)!r}, {MD5!r}, 0.0, "
            f"ssl.create_default_context(cafile={str(certificate)!r}))\n"
            f"except download.DownloadError as error: print(error)")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    result = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True,
                            cwd=Path(download.__file__).parent.parent, timeout=60)
    assert "make room and type it again to resume" in result.stdout, result.stderr
    kept = os.path.getsize(f"{target}.part")
    assert 1_000_000 <= kept <= 2_000_000
    fetch(server, target)
    assert server.seen[-1] == f"bytes={kept}-"
    assert target.read_bytes() == CONTENT
