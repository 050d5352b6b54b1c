"""tools/install_caffe.py over mirrors of our own: tiny packages behind a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import threading

import pytest

from tools import install_caffe

PATHS = ("pool/main/c/caffe/caffe_1.0+git_amd64.deb", "pool/main/libz/libz/libz_2_amd64.deb")

pytestmark = pytest.mark.skipif(
    not (os.path.exists(install_caffe.APT_HELPER) and shutil.which("dpkg-deb")), reason="needs apt and dpkg-deb"
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """serve(folder) -> address of a mirror that has what lies in `folder`."""
    servers = []

    def start(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/debian"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror's folder with two packages, which are in the lock file; what is installed goes to tmp_path/.caffe."""
    lines = ["# a comment"]
    for number, path in enumerate(PATHS):
        content = tmp_path / f"content{number}"
        (content / "DEBIAN").mkdir(parents=True)
        (content / "DEBIAN/control").write_text(
            f"Package: p{number}\nVersion: 1\nArchitecture: amd64\nMaintainer: m <m@localhost>\nDescription: d\n"
        )
        (content / "usr").mkdir()
        (content / f"usr/file{number}").write_text(str(number))
        package = tmp_path / "mirror/debian" / path
        package.parent.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", content, package], check=True, capture_output=True)
        lines.append(f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {path}")
    (tmp_path / "lock").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(install_caffe, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(install_caffe, "TARGET", str(tmp_path / ".caffe"))
    monkeypatch.setattr(install_caffe, "check", lambda: "1.0.0 80")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "mirror"


def installed(tmp_path):
    return sorted(path.name for path in (tmp_path / ".caffe").rglob("*") if path.is_file())


def test_a_mirror_without_the_release_is_passed_over(mirror, serve, tmp_path, capsys):
    """Debian 11 has moved: the mirror of before answers 404, the next has it."""
    (tmp_path / "empty").mkdir()
    addresses = [serve(tmp_path / "empty"), serve(mirror)]
    assert install_caffe.main(["--mirror", *addresses]) == 0
    assert installed(tmp_path) == ["caffe", "file0", "file1", "python"]
    out = capsys.readouterr().out
    assert all(f"packages from {address} ..." in out for address in addresses) and "unpacking 2 packages" in out
    assert not (tmp_path / ".caffe.partial/archives").exists()


def test_a_package_with_other_bytes_is_never_unpacked(mirror, serve, tmp_path, capsys):
    shutil.copytree(mirror, tmp_path / "forged")
    shutil.copy(mirror / "debian" / PATHS[0], tmp_path / "forged/debian" / PATHS[1])  # a whole package, but another one
    forged = serve(tmp_path / "forged")
    assert install_caffe.main(["--mirror", forged]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and forged in error and "make caffe DEBIAN_MIRROR=http://HOST/debian" in error
    assert not (tmp_path / ".caffe").exists()
    assert install_caffe.main(["--mirror", forged, serve(mirror)]) == 0
    assert (tmp_path / ".caffe/usr/file1").read_text() == "1"


def test_where_no_mirror_answers_what_was_installed_stays(mirror, serve, tmp_path, capsys):
    assert install_caffe.main(["--mirror", serve(mirror)]) == 0
    (tmp_path / "empty").mkdir()
    assert install_caffe.main(["--force", "--mirror", "http://127.0.0.1:1/debian", serve(tmp_path / "empty")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "http://127.0.0.1:1/debian: " in error and "404" in error
    assert installed(tmp_path) == ["caffe", "file0", "file1", "python"]


def test_aptitudes_mirrors_come_before_the_archive():
    mirrors = install_caffe.find_mirrors()
    assert mirrors[-1] == install_caffe.ARCHIVE and len(set(mirrors)) == len(mirrors)


def test_the_lock_names_each_package_once():
    packages = install_caffe.read_lock()
    assert all(len(digest) == 64 and path.startswith("pool/main/") and path.endswith(".deb") for digest, path in packages)
    names = [os.path.basename(path).split("_")[0] for _, path in packages]
    assert len(set(names)) == len(names) and {"python3-caffe", "caffe", "libopenblas0-pthread", "libc6"} <= set(names)
