"""Get VGG-Face's weights from the authors' site, from an archive, a caffemodel or a port, and check them.

    from gender_smile.nets.vgg_face_sources import take_file
    take_file("vgg_face_caffe.tar.gz")    # into weights/VGG_FACE.caffemodel
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib

import recipe
from common import download
from gender_smile.nets import vgg_face_ports
from gender_smile.nets.vgg_face import VGG_FACE, check_vgg_face, same_as_first, verify_vgg_face

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
    if is_archive and (actual := download.md5_of(path)) != md5:
        raise download.DownloadError(f"{path}: md5 is {actual}, expected {md5}; to use another archive, "
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
                content = members.extractfile(member)
                assert content is not None  # a plain file's is there
                with open(target, "wb") as stream:
                    shutil.copyfileobj(content, stream, download.CHUNK)
                if os.path.getsize(target) != member.size:
                    raise EOFError
                return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise WeightsError(f"{archive}: damaged or cut short ({error or 'unexpected end'}); fetch it again") from None
    raise WeightsError(f"{archive}: holds no {recipe.VGG_FACE_MEMBER}")
