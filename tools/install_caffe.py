"""Install real Caffe, the referee: Debian 11's own packages, unpacked into .caffe/ (no root, no chroot; CPU only).

    make caffe                                  # or: python tools/install_caffe.py [--mirror http://...]

Needs apt-get and dpkg-deb, which every Debian and Ubuntu has. Elsewhere: docker build -f docker/caffe.Dockerfile .
The packages are fetched from the mirror that this machine's apt uses and are checked by apt against Debian's keys.
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.path.join(ROOT, ".caffe")
PACKAGES = (
    "python3-caffe",
    "caffe",
    "libopenblas0-pthread",
    "python3-lmdb",
    "python3-opencv",
    "python3-skimage",
    "python3-pytest",
)
SUITE = "bullseye"
KEYS = "/usr/share/keyrings/debian-archive-*.gpg"

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
    parser.add_argument("--mirror", help="Debian mirror (default: the one this machine's apt uses)")
    parser.add_argument("--force", action="store_true", help="install again where it is already installed")
    return parser


def find_mirror() -> str:
    """Address of a Debian archive in this machine's apt sources."""
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]:
        if not os.path.isfile(path) or not path.endswith((".list", ".sources")):
            continue
        with open(path, encoding="utf-8") as file:
            for address in re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", file.read(), re.MULTILINE):
                if address.rstrip("/").endswith("/debian"):
                    return address
    raise InstallError(
        "no Debian mirror in this machine's apt sources; name one: make caffe DEBIAN_MIRROR=http://.../debian"
    )


def apt_options(folder, mirror):
    """apt-get options for a world of its own below `folder`: nothing installed, one suite, no root."""
    os.makedirs(os.path.join(folder, "lists/partial"), exist_ok=True)
    os.makedirs(os.path.join(folder, "archives/partial"), exist_ok=True)
    keys = " ".join(glob.glob(KEYS))
    with open(os.path.join(folder, "sources.list"), "w", encoding="utf-8") as file:
        signed = f" signed-by={','.join(keys.split())}" if keys else ""
        file.write(f"deb [arch=amd64{signed}] {mirror} {SUITE} main\n")
    open(os.path.join(folder, "status"), "w").close()
    settings = {
        "Dir::Etc::sourcelist": "sources.list",
        "Dir::Etc::sourceparts": "none",
        "Dir::State::lists": "lists",
        "Dir::State::status": "status",
        "Dir::Cache": "",
        "Dir::Cache::archives": "archives",
    }
    options = [f"-o{name}={os.path.join(folder, value)}" for name, value in settings.items()]
    return options + ["-oAPT::Architecture=amd64", "-oAPT::Install-Recommends=0", "-oAPT::Sandbox::User=", "-qq", "-y"]


def run(command, what):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise InstallError(f"{what} failed: {(result.stderr or result.stdout).strip().splitlines()[-1:]}")
    return result.stdout


def install(mirror=None):
    """Fetch and unpack into .caffe/, replacing what is there only when all is complete. Raises InstallError."""
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise InstallError(f"{program} is not here; use the container: docker build -f docker/caffe.Dockerfile .")
    building = TARGET + ".partial"
    shutil.rmtree(building, ignore_errors=True)
    apt = os.path.join(building, "apt")
    options = apt_options(apt, mirror or find_mirror())
    print(f"reading {SUITE}'s package list ...", flush=True)
    run(["apt-get", *options, "update"], "apt-get update")
    print(f"fetching {', '.join(PACKAGES)} ...", flush=True)
    run(["apt-get", *options, "--download-only", "install", *PACKAGES], "apt-get install --download-only")
    archives = sorted(glob.glob(os.path.join(apt, "archives", "*.deb")))
    print(f"unpacking {len(archives)} packages ...", flush=True)
    for archive in archives:
        run(["dpkg-deb", "-x", archive, building], f"unpacking {os.path.basename(archive)}")
    shutil.rmtree(apt)
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
        install(args.mirror)
        print(f"real Caffe is in .caffe/ (version, layer types: {check()}); use it with ENGINE=caffe")
        return 0
    except InstallError as error:
        print(f"install_caffe: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
