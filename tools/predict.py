"""Gender and smile of the central face of a photo (Figure 1: detector, crops, GNet and the mean of SNet1 and SNet2).

    python tools/predict.py photo.jpg                       # text
    python tools/predict.py *.jpg --json                    # one JSON object a line, in the order given
    python tools/predict.py photo.jpg --draw out.png        # a picture beside the text
    python tools/predict.py *.jpg --draw pictures           # pictures/<photo>_prediction.png

Exit status: 0 all photos were answered, 1 some were not (unreadable, no face), 2 wrong use or missing weights.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from tools import environment; environment.ensure()

import argparse
import json
import os
import sys

import recipe
from tools.draw import SUFFIXES


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="image", help="photo (JPEG, PNG, ...); its EXIF turn is applied")
    parser.add_argument("--json", action="store_true", help="print one JSON object an image, a line each")
    parser.add_argument(
        "--draw", metavar="PATH",
        help="write a picture with box, landmarks and probabilities: a .png or .jpg file (numbered where there are "
        "several images) or a folder",
    )
    parser.add_argument(
        "--profile", default="auto", choices=("auto", *recipe.PROFILES),
        help="whose step-4 weights: auto takes the paper's where they are, else the demo's (default: auto)",
    )
    parser.add_argument("--engine", default=os.environ.get("ENGINE") or "auto", choices=("auto", "caffe", "torch"))
    parser.add_argument("--gpu", type=int, metavar="NUMBER", help="GPU to run on (default: the CPU)")
    return parser


def picture_paths(draw: str, images: list) -> list:
    """Where the picture of each image goes. Raises ValueError where `draw` is no place for a picture.

    An existing folder, or a path without suffix, is a folder of <image>_prediction.png; a file is used as it is for
    one image and numbered (out_1.png, out_2.png, ...) for several. No input is ever overwritten.
    """
    stem, suffix = os.path.splitext(draw)
    if os.path.isdir(draw) or draw.endswith(os.sep) or not suffix:
        if os.path.isfile(draw):
            raise ValueError(f"--draw: {draw} is a file without suffix; name a folder or a file with {SUFFIXES[0]}")
        paths = _folder_paths(draw, images)
    elif suffix.lower() not in SUFFIXES:
        raise ValueError(f"--draw: {draw}: a picture is {', '.join(SUFFIXES)}; a path without suffix is a folder")
    elif len(images) == 1:
        paths = [draw]
    else:
        digits = len(str(len(images)))
        paths = [f"{stem}_{number:0{digits}d}{suffix}" for number in range(1, len(images) + 1)]
    inputs = {os.path.realpath(image) for image in images}
    for path in paths:
        if os.path.realpath(path) in inputs:
            raise ValueError(f"--draw: {path} would overwrite an input image; name another place")
    return paths


def _folder_paths(folder: str, images: list) -> list:
    paths, used = [], set()
    for image in images:
        stem = os.path.splitext(os.path.basename(image))[0]
        name, number = f"{stem}_prediction.png", 2
        while name in used:  # equal names from several folders
            name, number = f"{stem}_prediction_{number}.png", number + 1
        used.add(name)
        paths.append(os.path.join(folder, name))
    return paths


def percent(probability: float) -> str:
    """As a percentage that never claims certainty."""
    return f"{min(100 * probability, 99.9):5.1f} %"


def describe(prediction) -> str:
    """A prediction without error as four lines of text."""
    x, y, width, height = prediction.face.box
    snet1, snet2 = (percent(prediction.ones[net]).strip() for net in ("snet1", "snet2"))
    return "\n".join((
        printable(prediction.image),
        f"  face    {width:.0f} x {height:.0f} pixels at ({x:.0f}, {y:.0f}), score {prediction.face.score:.3f}",
        f"  gender  {prediction.gender.label:<12} {percent(prediction.gender.probability)}",
        f"  smile   {prediction.smile.label:<12} {percent(prediction.smile.probability)}"
        f"   (smiling: SNet1 {snet1}, SNet2 {snet2})",
    ))


def printable(path: str) -> str:
    """A file's name as text that any terminal takes, however odd its bytes."""
    return path.encode("utf-8", "backslashreplace").decode()


def main(argv=None) -> int:
    arguments = get_parser().parse_args(argv)
    from tools.pipeline import Pipeline, PipelineError

    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    try:
        pictures = picture_paths(arguments.draw, arguments.images) if arguments.draw else [None] * len(arguments.images)
        pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu)
        failed = run(pipeline, arguments.images, pictures, arguments.json)
    except (PipelineError, ValueError) as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as with "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 1 if failed else 0


def run(pipeline, images: list, pictures: list, as_json: bool) -> int:
    """Print the answers and write the pictures; number of images that failed."""
    failed = 0
    for prediction, picture in zip(pipeline.predict_files(images), pictures):
        if as_json:
            print(json.dumps(prediction.as_dict()), flush=True)
        elif prediction.error is None:
            print(describe(prediction), flush=True)
        else:
            print(f"predict.py: {printable(prediction.image)}: {prediction.error}", file=sys.stderr, flush=True)
        if prediction.error is not None:
            failed += 1
        elif picture and not write_picture(prediction, picture, quiet=as_json):
            failed += 1
    return failed


def write_picture(prediction, path: str, quiet: bool) -> bool:
    """Draw one prediction; False, with a line on stderr, where the picture could not be written."""
    from tools.draw import draw
    from tools.pipeline import read_photo

    try:
        draw(read_photo(prediction.image), prediction, path)
    except OSError as error:
        print(f"predict.py: {printable(path)}: cannot write the picture: {error.strerror or error}", file=sys.stderr)
        return False
    if not quiet:
        print(f"  picture {printable(path)}")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
