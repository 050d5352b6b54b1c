"""Gender and smile of the faces in photos (Figure 1: detector, crops, GNet and the mean of SNet1 and SNet2).

    python tools/predict.py photo.jpg                       # text: the face nearest the center
    python tools/predict.py photos/ 'more/**/*.png' --json  # folders, patterns; one JSON object a face, in order
    python tools/predict.py group.jpg --all-faces --csv     # every face, a row each
    python tools/predict.py clip.mp4 --every 10             # every tenth frame of a video
    python tools/predict.py - < photo.jpg                   # a photo from standard input
    python tools/predict.py photo.jpg --draw pictures --explain    # pictures, with the crops and where the nets looked

From Python (docs/predict.md):

    from tools.predict import Pipeline
    print(Pipeline.load().predict("photo.jpg").as_dict())

Exit status: 0 all photos answered, 1 some not (unreadable, no face), 2 wrong usage, missing weights, or output that
cannot be written.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import contextlib
import os
import sys
from typing import Any, Iterator, Optional, Sequence, TextIO

from common.options import add_engine, add_threshold, add_trained_profile, positive, whole_number
from lmdb_builders.errors import ImageError
from common import command
from gender_smile.inference import photos
from gender_smile.inference.output import Pictures, PlaceError, Say, plain_say, printable, writer
from gender_smile.inference.photos import Photo, Source
from gender_smile.inference.pipeline import UNCERTAIN_BELOW, Pipeline, PipelineError, Prediction

__all__ = ["Photo", "Pipeline", "PipelineError", "Prediction", "main"]

PATIENCE = 1.0  # seconds of work before a progress bar appears


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "inputs", nargs="*", metavar="photo",
        help="photo (JPEG, PNG, ...; its EXIF turn is applied), video, folder of them, pattern in quotes, or -",
    )
    parser.add_argument("--camera", type=_camera, metavar="NUMBER", help="this camera (0 is the first) until Ctrl-C")
    parser.add_argument("--every", type=positive, metavar="N",
                        help="of videos and cameras each N-th frame (default: about one a second)")
    parser.add_argument("--all-faces", action="store_true", help="every face, not only the one nearest the center")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a face, a line each")
    form.add_argument("--csv", action="store_true", help="print a table, a row a face")
    parser.add_argument("--spreadsheet", action="store_true", help="with --csv: put ' before names that a spreadsheet would "
                        "read as formulas (=, +, -, @); off by default, since programs expect the names unchanged")
    parser.add_argument(
        "--draw", metavar="PATH",
        help="write a picture of each photo with box, landmarks and probabilities: into a folder, or a .png or .jpg "
        "file (numbered where there are several)",
    )
    parser.add_argument("--show-crops", action="store_true", help="add the input of each net to the pictures")
    parser.add_argument("--explain", action="store_true", help="add that and a heat map for each net")
    add_threshold(parser, UNCERTAIN_BELOW)
    add_trained_profile(parser)
    add_engine(parser, predicting=True)
    return parser


def _camera(text: str) -> int:
    """A camera's index, as an argument's type."""
    if not 0 <= (value := whole_number(text)) < 2**31:  # OpenCV reads negative ones as "any", and some builds crash
        raise argparse.ArgumentTypeError(f"{text}: a camera index is an integer from 0 on")
    return value


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = get_parser()
    arguments = parser.parse_args(argv)
    if bool(arguments.inputs) == (arguments.camera is not None):
        parser.error("name photos, videos or folders, or a --camera")
    if (arguments.show_crops or arguments.explain) and not arguments.draw:
        parser.error("--show-crops and --explain go into the pictures: add --draw FOLDER")
    if arguments.spreadsheet and not arguments.csv:
        parser.error("--spreadsheet is for the table: add --csv")
    return command.run("predict.py", lambda: answer(arguments), PipelineError, ImageError, PlaceError)


def answer(arguments: argparse.Namespace) -> int:
    """Answer what the command line names; the exit status."""
    sources = photos.expand(arguments.inputs)
    pictures = Pictures(arguments.draw, sources) if arguments.draw is not None else None
    pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu, arguments.variant, arguments.threshold)
    if pipeline.model.warning:
        plain_say(f"predict.py: {pipeline.model.warning}", sys.stderr)
    return 1 if run(pipeline, sources, pictures, arguments) else 0


def run(pipeline: Pipeline, sources: Sequence[Source], pictures: Optional[Pictures], arguments: Any) -> int:
    """Print the answers and write the pictures; number of photos that failed."""
    if arguments.camera is not None:
        stream: Iterator[Photo] = photos.camera(arguments.camera, arguments.every)
    else:
        stream = photos.read_all(sources, arguments.every)
    options = {"all_faces": arguments.all_faces, "crops": arguments.show_crops, "explain": arguments.explain,
               "ahead": arguments.camera is None}
    failed = 0
    with progress(sources, arguments.every) as bar, \
            contextlib.closing(writer(arguments.json, arguments.csv, _past(bar), arguments.spreadsheet)) as output:
        for photo, predictions in pipeline.predict_photos(stream, **options):
            output.write(predictions)
            answered = [prediction for prediction in predictions if prediction.error is None]
            problem: Optional[str] = None
            if answered and pictures is not None:
                problem, path = pictures.write(photo, answered)
                if problem:
                    output.say(f"predict.py: {problem}", sys.stderr)
                elif not output.quiet:
                    output.say(f"  picture {printable(path)}", sys.stdout)
            failed += problem is not None or len(answered) < len(predictions)
            if bar is not None:
                bar.update()
    return failed


@contextlib.contextmanager
def progress(sources: Sequence[Source], every: Optional[int]) -> Iterator[Any]:
    """A bar over all photos on stderr, where that is a terminal and the work is long; else None."""
    if not sources or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    from common.progress import bar_size

    total = photos.count_photos(sources, every)
    size = bar_size(sys.stderr)
    with tqdm(total=total, unit=" photos", delay=PATIENCE, disable=total < 2, leave=False, **size) as bar:
        yield bar


def _past(bar: Any) -> Say:
    """Writes lines past the bar, if there is one."""
    if bar is None:
        return plain_say

    def say(line: str, stream: TextIO) -> None:
        if stream.isatty():
            bar.write(line, file=stream)
        else:
            plain_say(line, stream)

    return say


if __name__ == "__main__":
    raise SystemExit(main())
