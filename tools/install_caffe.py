"""Install real Caffe, the referee: Debian 11's own packages, unpacked into .caffe/ (no root, no chroot; CPU only).

    make caffe                                  # or: python tools/install_caffe.py [--mirror http://...]

Needs apt and dpkg-deb, which every Debian and Ubuntu has. Elsewhere: docker build -f docker/caffe.Dockerfile .
The packages are fetched from the mirror that this machine's apt uses, then from Debian's archive, where releases go
after the end of their support. tools/caffe_packages.lock holds the SHA-256 of each; any mirror will do.
`.caffe/python` then starts Debian's Python 3.9 with pycaffe, `.caffe/caffe` Caffe's command line.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from typing import List, Optional, Sequence, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.path.join(ROOT, ".caffe")
# python3-caffe, caffe, libopenblas0-pthread, python3-lmdb, python3-opencv, python3-skimage, python3-pytest and all that
# they need: "SHA-256  path below a mirror", a line each. Debian 11 gets no more point releases.
LOCK = os.path.join(ROOT, "tools", "caffe_packages.lock")
ARCHIVE = "http://archive.debian.org/debian"
APT_HELPER = "/usr/lib/apt/apt-helper"  # fetches as apt does, with its proxies, and checks the hash

LAUNCHER = """#!/bin/sh
# {what} of Debian 11 in the user's own file system: Debian's loader over Debian's libraries.
here=$(dirname "$(readlink -f "$0")")
lib="$here/lib/x86_64-linux-gnu" usr="$here/usr/lib/x86_64-linux-gnu"
export PYTHONHOME="$here/usr" PYTHONNOUSERSITE=1
export PYTHONPATH="$here/usr/lib/python3/dist-packages${{PYTHONPATH:+:$PYTHONPATH}}"
exec "$lib/ld-linux-x86-64.so.2" --library-path \\
  "$usr/openblas-pthread:$usr/blas:$usr/lapack:$usr/hdf5/serial:$usr:$here/usr/lib:$lib" "$here/usr/bin/{binary}" "$@"
"""


class InstallError(Exception):
    """Something the user can mend; the message says how."""


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--mirror", nargs="+", metavar="URL", dest="mirrors",
                        help="Debian mirrors to try in order (default: those of this machine's apt, then Debian's archive)")
    parser.add_argument("--force", action="store_true", help="install again where it is already installed")
    return parser


def find_mirrors() -> List[str]:
    """Addresses to try in order: Debian mirrors of this machine's apt sources, then Debian's archive."""
    mirrors = []
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]:
        if not os.path.isfile(path) or not path.endswith((".list", ".sources")):
            continue
        with open(path, encoding="utf-8") as file:
            for address in re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", file.read(), re.MULTILINE):
                if address.rstrip("/").endswith("/debian"):
                    mirrors.append(address.rstrip("/"))
    return list(dict.fromkeys([*mirrors, ARCHIVE]))


def read_lock() -> List[Tuple[str, str]]:
    """(SHA-256, path below a mirror) of each package."""
    with open(LOCK, encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    return [(digest, path) for digest, path in rows]


def fetch(folder: str, mirrors: Sequence[str]) -> None:
    """Fetch all packages into `folder` from the first of `mirrors` that has them. Raises InstallError."""
    problems = []
    for mirror in mirrors:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        print(f"fetching Debian 11's packages from {mirror} ...", flush=True)
        arguments = []
        for digest, path in read_lock():
            url = f"{mirror.rstrip('/')}/{urllib.parse.quote(path)}"
            arguments += [url, os.path.join(folder, os.path.basename(path)), f"SHA256:{digest}"]
        command = [APT_HELPER, "-qq", "-oAPT::Sandbox::User=", "-oAcquire::Retries=2", "download-file", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            return
        lines = [line[3:] for line in result.stderr.splitlines() if line.startswith("E: ")] or [result.stderr.strip()]
        problems.append(f"{mirror}: {lines[0]}")
    raise InstallError(
        f"no mirror gave all packages of Debian 11 ({'; '.join(problems)}). Name one that has them: "
        "make caffe DEBIAN_MIRROR=http://HOST/debian"
    )


def run(command, what):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise InstallError(f"{what} failed: {(result.stderr or result.stdout).strip().splitlines()[-1:]}")
    return result.stdout


def install(mirrors: Optional[Sequence[str]] = None) -> None:
    """Fetch and unpack into .caffe/, replacing what is there only when all is complete. Raises InstallError."""
    for program in (APT_HELPER, "dpkg-deb"):
        if not shutil.which(program):
            raise InstallError(f"{program} is not here; use the container: docker build -f docker/caffe.Dockerfile .")
    building = TARGET + ".partial"
    shutil.rmtree(building, ignore_errors=True)
    archives = os.path.join(building, "archives")
    fetch(archives, mirrors or find_mirrors())
    packages = sorted(glob.glob(os.path.join(archives, "*.deb")))
    print(f"unpacking {len(packages)} packages ...", flush=True)
    for package in packages:
        run(["dpkg-deb", "-x", package, building], f"unpacking {os.path.basename(package)}")
    shutil.rmtree(archives)
    write_launchers(building)
    shutil.rmtree(TARGET, ignore_errors=True)
    os.rename(building, TARGET)


def write_launchers(folder):
    programs = (("python", "python3.9", "Python 3.9 with pycaffe"), ("caffe", "caffe", "Caffe's command line"))
    for name, binary, what in programs:
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(LAUNCHER.format(what=what, binary=binary))
        os.chmod(path, 0o755)


def check() -> str:
    """Version that the installed pycaffe states. Raises InstallError."""
    code = "import caffe; print(caffe.__version__, len(caffe.layer_type_list()))"
    return run([os.path.join(TARGET, "python"), "-c", code], "importing caffe").strip()


def main(argv=None) -> int:
    args = get_parser().parse_args(argv)
    try:
        if os.path.exists(os.path.join(TARGET, "python")) and not args.force:
            print(f"real Caffe is already in .caffe/ (version, layer types: {check()}); FORCE=1 installs it again")
            return 0
        install(args.mirrors)
        print(f"real Caffe is in .caffe/ (version, layer types: {check()}); use it with ENGINE=caffe")
        return 0
    except InstallError as error:
        print(f"install_caffe: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
