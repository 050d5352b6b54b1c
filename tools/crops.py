"""Figure 3 for any photo: the detected face with its five landmarks (a), and every crop side by side, (b) to (f).

    python tools/crops.py photo.jpg                            # writes runs/pictures/photo_crops.png
    python tools/crops.py photo.jpg --output figure3.png --size 224
    python tools/crops.py --folder FotW --count 8              # a sheet of photos drawn at random, a row a face
    make figure3 IMAGE=photo.jpg; make crops FOTW=/data/FotW

Exit status: 0 written, 1 a photo is unreadable or shows no face, 2 wrong use.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import sys

import recipe
from common import command


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crops.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", help="photo (JPEG, PNG, ...); its EXIF turn is applied")
    parser.add_argument("--folder", help="draw photos from here, and from the folders in it, instead")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="faces of a sheet (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=recipe.PAPER.random_seed, help="of the drawing (default: %(default)s)")
    parser.add_argument("--output", metavar="PNG", help="default: the project's runs/pictures/<image or folder>_crops.png")
    parser.add_argument(
        "--size", type=int, default=recipe.PAPER.crop_size, help="side of a crop in pixels (default: %(default)s)"
    )
    return parser


def main(argv=None) -> int:
    parser = get_parser()
    arguments = parser.parse_args(argv)
    if not 8 <= arguments.size <= 2048:
        parser.error("--size is 8 to 2048 pixels")
    if bool(arguments.image) == bool(arguments.folder):
        parser.error("give a photo (IMAGE=), or --folder with photos (FOTW=, CELEBA=)")
    if not 1 <= arguments.count <= 100:
        parser.error("--count is 1 to 100 faces")
    if arguments.folder and not os.path.isdir(arguments.folder):
        parser.error(f"--folder {arguments.folder}: no such folder")
    stem = os.path.splitext(os.path.basename(os.path.abspath(arguments.image or arguments.folder)))[0]
    output = arguments.output or recipe.absolute(f"runs/pictures/{stem}_crops.png")
    if arguments.image and os.path.realpath(output) == os.path.realpath(arguments.image):
        parser.error(f"--output {output} would overwrite the photo")
    if not arguments.output:
        os.makedirs(os.path.dirname(output), exist_ok=True)
    return command.run("crops.py", lambda: draw(arguments, output), writes=[output])


def draw(arguments, output: str) -> int:
    """Write the picture; the exit status."""
    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    from detector import DetectorError
    from gender_smile.inference import crop_figure
    from lmdb_builders.errors import ImageError

    def skipped(path: str, error: Exception) -> None:
        print(f"crops.py: {path}: {error}: another photo is drawn", file=sys.stderr)

    try:
        if arguments.folder:
            faces = crop_figure.sample_faces(arguments.folder, arguments.count, arguments.seed, skipped)
        else:
            faces = [crop_figure.find_face(arguments.image)]
    except (ImageError, DetectorError) as error:
        print(f"crops.py: {arguments.image or arguments.folder}: {error}", file=sys.stderr)
        return 1
    try:
        crop_figure.figure(faces, arguments.size).savefig(output)
    except (OSError, ValueError) as error:  # a folder that is not there, a suffix of no picture format
        print(f"crops.py: cannot write {output}: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
