"""Fetch VGG-Face's weights, check them, and put them where step 1 looks: weights/VGG_FACE.caffemodel.

    python tools/weights.py                                  # from the authors' site, 540 MB; resumes after a break
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

import recipe
from common import command, download
from gender_smile.nets import vgg_face_ports
from gender_smile.nets.vgg_face import VGG_FACE, verify_vgg_face
from gender_smile.nets.vgg_face_sources import fetch, take_file


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
                       stopped="stopped; what has arrived is kept, type it again to resume",
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
