"""Figure 3 for any photo: the detected face with its five landmarks (a), and every crop side by side, (b) to (f).

    python tools/crops.py photo.jpg                            # writes photo_crops.png here
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
import random
import string
import sys

import recipe
from common import command

CAPTION_CHARACTERS = 28  # of a caption's line at the size of the panels


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crops.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", help="photo (JPEG, PNG, ...); its EXIF turn is applied")
    parser.add_argument("--folder", help="draw photos from here, and from the folders in it, instead")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="faces of a sheet (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=recipe.PAPER.random_seed, help="of the drawing (default: %(default)s)")
    parser.add_argument("--output", metavar="PNG", help="default: <image or folder>_crops.png in the current folder")
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
    output = arguments.output or f"{stem}_crops.png"
    if arguments.image and os.path.realpath(output) == os.path.realpath(arguments.image):
        parser.error(f"--output {output} would overwrite the photo")
    return command.run("crops.py", lambda: draw(arguments, output), writes=[output])


def draw(arguments, output: str) -> int:
    """Write the picture; the exit status."""
    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    from detector import DetectorError
    from lmdb_builders.errors import ImageError

    try:
        faces = draw_faces(arguments) if arguments.folder else [find_face(arguments.image)]
    except (ImageError, DetectorError) as error:
        print(f"crops.py: {arguments.image or arguments.folder}: {error}", file=sys.stderr)
        return 1
    picture = figure(faces, arguments.size)
    try:
        picture.savefig(output)
    except (OSError, ValueError) as error:  # a folder that is not there, an ending that is no picture's
        print(f"crops.py: cannot write {output}: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


def find_face(path: str, detector=None):
    """(photo, face nearest the middle). Raises ImageError where there is none, or no photo."""
    from detector import Detector, nearest_to_center
    from lmdb_builders.errors import ImageError
    from gender_smile.inference.photos import read_photo

    photo = read_photo(path)
    face = nearest_to_center((detector or Detector()).detect(photo), photo.shape)
    if face is None:
        raise ImageError("no face found")
    return photo, face


def draw_faces(arguments) -> list:
    """(photo, face) of photos drawn at random; one without a face is named on stderr, and another drawn for it."""
    from detector import Detector
    from lmdb_builders.errors import ImageError
    from gender_smile.inference.photos import expand

    paths = [source.path for source in expand([arguments.folder]) if not source.is_video and source.error is None]
    random.Random(arguments.seed).shuffle(paths)
    detector, found = Detector(), []
    for path in paths:
        if len(found) == arguments.count:
            break
        try:
            found.append(find_face(path, detector))
        except ImageError as error:
            print(f"crops.py: {path}: {error}: another photo is drawn", file=sys.stderr)
    if not found:
        raise ImageError("no photo with a face")
    return found


def figure(faces, size: int):
    """A matplotlib figure, a row a face: a panel of the photo and one of each crop; crops of `size` pixels are drawn pixel for
    pixel.

    faces: (photo, face) pairs; photo: height x width x 3 uint8, BGR; face: detector.Face in pixels of the photo.
    """
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from lmdb_builders.crops import crop_face

    crops = list(recipe.CROPS.values())
    captions = [("(a) photo", f"face (score {faces[0][1].score:.3f}) and five landmarks" if len(faces) == 1
                 else "face and five landmarks")]
    captions += [(f"({letter(number)}) {crop.name}", crop.describes.split(":")[0]) for number, crop in enumerate(crops, 1)]
    gap, text, dpi = size // 16, size * 3 // 8, 100
    width, height = len(captions) * (size + gap) + gap, len(faces) * (size + gap) + gap + text
    picture = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(picture)
    for row, (photo, face) in enumerate(faces):
        bottom = gap + text + (len(faces) - 1 - row) * (size + gap)
        panels = [photo, *(crop_face(photo, face.landmarks, crop, size) for crop in crops)]
        for number, pixels in enumerate(panels):
            left = gap + number * (size + gap)
            axes = picture.add_axes((left / width, bottom / height, size / width, size / height))
            axes.imshow(pixels[:, :, ::-1], interpolation="antialiased")
            axes.set_axis_off()
            if number == 0:
                mark(axes, face, size)
    for number, (title, caption) in enumerate(captions):
        left = gap + number * (size + gap)
        picture.text(
            (left + size / 2) / width, text / height, title + "\n" + textwrap.fill(caption, CAPTION_CHARACTERS),
            ha="center", va="top", fontsize=size / 22, linespacing=1.4,
        )
    return picture


def letter(number: int) -> str:
    """a, b, ... z, aa, bb, ..., counted from 0."""
    return string.ascii_lowercase[number % 26] * (number // 26 + 1)


def mark(axes, face, size: int) -> None:
    """Draw the face's box and landmarks over its photo."""
    from matplotlib.patches import Rectangle

    x, y, box_width, box_height = face.box
    line = size / 112
    axes.add_patch(Rectangle((x, y), box_width, box_height, fill=False, color="#ffd34d", linewidth=line))
    axes.scatter(*face.landmarks.T, s=4 * line**2, color="#5fd38d")


if __name__ == "__main__":
    raise SystemExit(main())
