"""Figure 3 for any photo: the detected face with its five landmarks (a), and the five crops side by side (b) to (f).

    python tools/crops.py photo.jpg                            # writes photo_crops.png here
    python tools/crops.py photo.jpg --output figure3.png --size 224
    make crops IMAGE=photo.jpg

Exit status: 0 written, 1 the photo is unreadable or shows no face, 2 wrong use.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from tools import environment; environment.ensure()

import argparse
import os
import sys

import recipe

CAPTION_CHARACTERS = 28  # of a caption's line at the size of the panels


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crops.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="photo (JPEG, PNG, ...); its EXIF turn is applied")
    parser.add_argument("--output", metavar="PNG", help="default: <image>_crops.png in the current folder")
    parser.add_argument(
        "--size", type=int, default=recipe.PAPER.crop_size, help="side of a crop in pixels (default: %(default)s)"
    )
    return parser


def main(argv=None) -> int:
    parser = get_parser()
    arguments = parser.parse_args(argv)
    if not 8 <= arguments.size <= 2048:
        parser.error("--size is 8 to 2048 pixels")
    stem = os.path.splitext(os.path.basename(arguments.image))[0]
    output = arguments.output or f"{stem}_crops.png"
    if os.path.realpath(output) == os.path.realpath(arguments.image):
        parser.error(f"--output {output} would overwrite the photo")
    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    from detector import Detector, DetectorError, nearest_to_center
    from lmdb_builders.errors import ImageError
    from lmdb_builders.images import read_image

    try:
        photo = read_image(arguments.image, apply_orientation=True)
        face = nearest_to_center(Detector().detect(photo), photo.shape)
        if face is None:
            raise ImageError("no face found")
        figure(photo, face, arguments.size).savefig(output)
    except (ImageError, DetectorError) as error:
        print(f"crops.py: {arguments.image}: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:  # a folder that is not there, an ending that is no picture's
        print(f"crops.py: cannot write {output}: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


def figure(photo, face, size: int):
    """The six panels as a matplotlib figure; crops of `size` pixels are drawn pixel for pixel at its resolution.

    photo: height x width x 3 uint8, BGR; face: detector.Face in pixels of the photo.
    """
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from lmdb_builders.crops import crop_face

    crops = list(recipe.CROPS.values())
    panels = [("(a) photo", f"face (score {face.score:.3f}) and five landmarks", photo)]
    for letter, crop in zip("bcdef", crops):
        pixels = crop_face(photo, face.landmarks, crop, size)
        panels.append((f"({letter}) {crop.name}", crop.describes.split(":")[0], pixels))
    gap, text, dpi = size // 16, size * 3 // 8, 100
    width, height = len(panels) * (size + gap) + gap, size + 2 * gap + text
    picture = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(picture)
    for number, (title, caption, pixels) in enumerate(panels):
        left = gap + number * (size + gap)
        axes = picture.add_axes((left / width, (gap + text) / height, size / width, size / height))
        axes.imshow(pixels[:, :, ::-1], interpolation="antialiased")
        axes.set_axis_off()
        picture.text(
            (left + size / 2) / width, text / height, title + "\n" + textwrap.fill(caption, CAPTION_CHARACTERS),
            ha="center", va="top", fontsize=size / 22, linespacing=1.4,
        )
        if number == 0:
            x, y, box_width, box_height = face.box
            line = size / 112
            axes.add_patch(Rectangle((x, y), box_width, box_height, fill=False, color="#ffd34d", linewidth=line))
            axes.scatter(*face.landmarks.T, s=4 * line**2, color="#5fd38d")
    return picture


if __name__ == "__main__":
    raise SystemExit(main())
