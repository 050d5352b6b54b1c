"""Draw portraits and write them as CelebA and FotW are laid out, to run everything without the data sets.

    python tools/draw_faces.py                                  # 900 and 600 photos into data/demo/faces
    python tools/draw_faces.py --sheet sheet.png --celeba 24    # also a sheet of the first ones, to look at

Gender and smile are painted in: by hair, jaw, brows, beard and lips; by mouth, teeth, cheeks and eyes. What the
painting decides of CelebA's other attributes is told truly; the rest is -1. The same seed gives the same files.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os

import recipe
from lmdb_builders.errors import BuildError
from common import command
from gender_smile.synthetic.data_sets import FACES, draw_data_sets, draw_sheet
from common.options import natural, positive
from gender_smile.inference.photos import PICTURE_SUFFIXES

def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=FACES, metavar="FOLDER", help="default: the project's %(default)s")
    parser.add_argument("--celeba", type=natural, default=900, metavar="PHOTOS", help="default: %(default)s")
    parser.add_argument("--fotw", type=natural, default=600, metavar="PHOTOS", help="default: %(default)s")
    parser.add_argument("--seed", type=natural, default=2016, help="default: %(default)s")
    parser.add_argument("--workers", type=positive, help="processes (default: one a core)")
    parser.add_argument("--sheet", metavar="PNG", help="also write a sheet of the first 48 photos")
    parser.add_argument("--force", action="store_true", help="draw again what is drawn")
    return parser


def main(argv=None) -> int:
    """Return 0 when the photos are drawn, 1 when they could not be written."""
    parser = get_parser()
    options = parser.parse_args(argv)
    if options.sheet and not options.sheet.lower().endswith(PICTURE_SUFFIXES):
        parser.error(f"--sheet: {options.sheet}: a picture is {', '.join(PICTURE_SUFFIXES)}")
    return command.run("draw_faces", lambda: draw(options), BuildError, status=1,
                       writes=[options.sheet] if options.sheet else ())


def draw(options: argparse.Namespace) -> int:
    """Draw what the command line asks for; the exit status."""
    folder = options.output if options.output != FACES else recipe.absolute(FACES)
    celeba, fotw = draw_data_sets(folder, options.celeba, options.fotw, options.seed, options.workers, options.force)
    if options.sheet:
        photos = os.path.join(celeba, "Img", "img_celeba")
        draw_sheet([os.path.join(photos, name) for name in sorted(os.listdir(photos))[:48]], options.sheet)
    print(f"{options.celeba} photos in {celeba}\n{options.fotw} photos in {fotw}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
