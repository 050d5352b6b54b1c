"""Fetch VGG-Face's weights, check them, and put them where step 1 looks: weights/VGG_FACE.caffemodel.

    python tools/weights.py                                  # from the authors' site, 540 MB; goes on after a break
    python tools/weights.py --file ~/vgg_face_caffe.tar.gz   # the archive, or the caffemodel itself, from your disk
    python tools/weights.py --url https://mirror/vgg_face_caffe.tar.gz
    python tools/weights.py --file port.safetensors --channels rgb   # or port.onnx: VGG-Face as PyTorch has it
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import shutil
import tarfile
import zlib

import recipe
from common import command, download
from gender_smile.nets import vgg_face_ports
from gender_smile.nets.vgg_face import VGG_FACE, check_vgg_face, same_as_first, verify_vgg_face, write_random_vgg_face

__all__ = ["check_vgg_face", "fetch", "take_file", "verify_vgg_face", "write_random_vgg_face"]
GZIP = b"\x1f\x8b"


def fetch(url: str = recipe.VGG_FACE_URL, target: str = VGG_FACE, md5: str = recipe.VGG_FACE_ARCHIVE_MD5) -> str:
    """Download the archive at `url` (https), check its md5 and take the caffemodel out to `target`; return its sha256.

    Raises download.DownloadError or torchcaffe.core.errors.WeightsError; what a broken download brought is kept.
    """
    target = recipe.absolute(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    archive = os.path.join(os.path.dirname(target), os.path.basename(recipe.VGG_FACE_URL))
    if not (os.path.exists(archive) and download.md5_of(archive) == md5):
        download.download(url, archive, md5)
    sha256 = _install(archive, target)
    os.remove(archive)
    return sha256


def take_file(path: str, target: str = VGG_FACE, md5: str = recipe.VGG_FACE_ARCHIVE_MD5,
              channels: str | None = None) -> str:
    """Take the caffemodel from a file on this machine, the archive or the caffemodel itself; return its sha256.

    A port in safetensors or ONNX becomes one; `channels` ("rgb" or "bgr") is what its first layer reads.
    Raises download.DownloadError for an archive with another md5, torchcaffe.core.errors.WeightsError, OSError.
    """
    target = recipe.absolute(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(path, "rb") as stream:
        is_archive = stream.read(2) == GZIP
    if is_archive and (found := download.md5_of(path)) != md5:
        raise download.DownloadError(f"{path}: md5 is {found}, expected {md5}; to use another archive, "
                                     "unpack it and pass the caffemodel")
    return _install(path, target, channels)


def _install(source: str, target: str, channels: str | None = None) -> str:
    """Put the caffemodel of `source` (archive, caffemodel or port) at `target`, once its structure is checked."""
    from torchcaffe.core.errors import WeightsError
    from torchcaffe.formats.files import atomic_write

    if os.path.exists(target) and os.path.samefile(source, target):
        return verify_vgg_face(target)
    record = os.path.splitext(target)[0] + ".json"
    with atomic_write(target) as temporary:
        with open(source, "rb") as stream:
            is_archive = stream.read(2) == GZIP
        if is_archive:
            _extract(source, temporary)
        elif vgg_face_ports.kind(source):
            vgg_face_ports.convert(source, temporary, channels)
        elif channels:
            raise WeightsError(f"{source}: --channels is for safetensors and ONNX files; a caffemodel reads B G R")
        else:
            shutil.copyfile(source, temporary)
        try:
            check_vgg_face(temporary)
        except WeightsError as error:
            raise WeightsError(str(error).replace(temporary, source)) from None  # which the user knows
        if os.path.exists(record):
            os.remove(record)  # it described the file that is now replaced, on the user's word
    return same_as_first(target)


def _extract(archive: str, target: str) -> None:
    """Copy the one member that is wanted, a plain file, to `target`. No path and no link of the archive is used."""
    from torchcaffe.core.errors import WeightsError

    try:
        with tarfile.open(archive, mode="r|gz") as members:
            for member in members:
                if member.name.removeprefix("./") != recipe.VGG_FACE_MEMBER:
                    continue
                if not member.isreg():
                    raise WeightsError(f"{archive}: {recipe.VGG_FACE_MEMBER} is not a plain file in it")
                if member.size > download.LIMIT:
                    raise WeightsError(f"{archive}: {recipe.VGG_FACE_MEMBER} has {member.size:,} bytes in it, more than "
                                       f"VGG-Face's: it is another file, or a bomb")
                with open(target, "wb") as stream:
                    shutil.copyfileobj(members.extractfile(member), stream, download.CHUNK)
                if os.path.getsize(target) != member.size:
                    raise EOFError
                return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise WeightsError(f"{archive}: damaged or cut short ({error or 'unexpected end'}); fetch it anew") from None
    raise WeightsError(f"{archive}: holds no {recipe.VGG_FACE_MEMBER}")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--file", metavar="PATH", help="VGG_FACE.caffemodel or vgg_face_caffe.tar.gz on this machine, "
                        "or a port of it as .safetensors or .onnx")
    source.add_argument("--url", default=recipe.VGG_FACE_URL, help="https address of the archive; default: %(default)s")
    parser.add_argument("--channels", choices=vgg_face_ports.CHANNELS, help="order that a port's first layer reads")
    parser.add_argument("--force", action="store_true", help="fetch again although the weights are there")
    return parser


def main(argv=None) -> int:
    """Return 0 when VGG-Face's weights are in place and checked, 1 when not."""
    parser = get_parser()
    options = parser.parse_args(argv)
    if options.channels and options.file is None:
        parser.error("--channels is of a port: name it with --file")
    from torchcaffe.core.errors import CaffeError

    return command.run("weights", lambda: take(options), CaffeError, download.DownloadError, status=1,
                       stopped="stopped; what has arrived is kept, type it again to go on",
                       writes=() if _only_checks(options) else [recipe.absolute(VGG_FACE)])


def _only_checks(options: argparse.Namespace) -> bool:
    return options.file is None and os.path.exists(recipe.absolute(VGG_FACE)) and not options.force


def take(options: argparse.Namespace) -> int:
    """Take the weights from where the command line says; the exit status."""
    target = recipe.absolute(VGG_FACE)
    if options.file is not None:
        sha256 = take_file(options.file, channels=options.channels)
    elif _only_checks(options):
        print(f"{VGG_FACE} is there; checking it")
        sha256 = verify_vgg_face(target)
    else:
        sha256 = fetch(options.url)
    print(f"{VGG_FACE}: 16 layers checked, sha256 {sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
