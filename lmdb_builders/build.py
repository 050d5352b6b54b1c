"""Build the LMDBs of the paper's crops from CelebA and FotW.

    python -m lmdb_builders.build --celeba ~/CelebA --fotw ~/FotW --crop scheme5
    make lmdb CROP=scheme5 CELEBA=~/CelebA FOTW=~/FotW PROFILE=paper

Without --crop: the schemes that GNet, SNet1 and SNet2 need. A build that is complete for the same sources and settings
is left as it is; one that was stopped keeps the faces it has found and goes on with them.
"""

from __future__ import annotations

import argparse
import os
from typing import List, Optional

import recipe
from tools import command
from tools.options import positive, random_seed

EPILOG = """exit status: 0 done (or nothing to do), 1 the build failed (one line says why), 2 wrong use, 130 stopped"""


def get_parser() -> argparse.ArgumentParser:
    needed = tuple(dict.fromkeys(recipe.NETS[net].crop for net in recipe.PIPELINE_NETS))
    parser = argparse.ArgumentParser(
        prog="python -m lmdb_builders.build", description=__doc__.split("\n\n")[0], epilog=EPILOG
    )
    parser.add_argument(
        "--crop", nargs="+", default=list(needed), choices=(*recipe.CROPS, "all"), metavar="SCHEME",
        help=f"{', '.join(recipe.CROPS)} or all; default: {' '.join(needed)}",
    )
    parser.add_argument("--profile", default="paper", choices=tuple(recipe.PROFILES), help="default: %(default)s")
    parser.add_argument("--celeba", metavar="FOLDER", help="CelebA as unpacked: Anno, Eval, Img")
    parser.add_argument("--fotw", metavar="FOLDER", help="FotW as unpacked: smiles_trset, smiles_valset")
    parser.add_argument(
        "--landmarks", default="dataset", choices=("dataset", "detector"),
        help="CelebA's five points: its own or the detector's (FotW has none of its own); default: %(default)s",
    )
    parser.add_argument(
        "--celeba-images", default="auto", choices=("auto", "wild", "aligned"),
        help="img_celeba or img_align_celeba; auto: the first of them that is there",
    )
    parser.add_argument("--corrections", metavar="FILE", help="corrections.csv of FotW's training labels (make suspects)")
    parser.add_argument("--test", action="store_true", help="also build the test partitions")
    parser.add_argument("--encode", default="raw", choices=("raw", "jpg", "png"), help="default: %(default)s")
    parser.add_argument("--seed", type=random_seed, help="of the order, shuffled once; default: the profile's")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes; default: %(default)s")
    parser.add_argument(
        "--max-lost", type=float, default=0.02, metavar="SHARE",
        help="fail when a split loses more than this share of its faces; default: %(default)s",
    )
    parser.add_argument("--force", action="store_true", help="build again what is complete, faces included")
    parser.add_argument("--output", metavar="FOLDER", help="default: the project's data/PROFILE")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    parser = get_parser()
    options = parser.parse_args(argv)
    if not options.celeba and not options.fotw:
        parser.error("give --celeba FOLDER, --fotw FOLDER or both (make lmdb CELEBA=... FOTW=...)")
    if options.corrections and not options.fotw:
        parser.error("--corrections are for FotW's labels: give --fotw FOLDER too")
    if not 0 <= options.max_lost <= 1:
        parser.error("--max-lost is a share, 0 to 1")
    from lmdb_builders.errors import BuildError

    return command.run(
        "build", lambda: _build(options), BuildError, status=1, writes=(),
        stopped="stopped; nothing half-written is left, and the next run uses the faces found so far",
    )


def _build(options: argparse.Namespace) -> int:
    """main's work, imports that take long among it."""
    from detector import DetectorError
    from lmdb_builders.errors import BuildError
    from torchcaffe.errors import CaffeError

    try:
        _build_all(options)
    except (DetectorError, CaffeError) as error:
        raise BuildError(str(error)) from None
    return 0


def _build_all(options: argparse.Namespace) -> None:
    from lmdb_builders import corrections
    from lmdb_builders.builder import Settings, build_dataset
    from lmdb_builders.celeba import read_celeba
    from lmdb_builders.files import sole_builder
    from lmdb_builders.fotw import read_fotw
    from lmdb_builders.pool import keep_freed_memory

    keep_freed_memory()
    profile = recipe.PROFILES[options.profile]
    splits = ("train", "val", "test") if options.test else ("train", "val")
    settings = Settings(
        profile=profile,
        crops=tuple(recipe.CROPS) if "all" in options.crop else tuple(dict.fromkeys(options.crop)),
        output=os.path.abspath(options.output or recipe.absolute(recipe.lmdb_folder(profile.name, ""))),
        splits=splits, encode=options.encode,
        seed=profile.random_seed if options.seed is None else options.seed,
        celeba_landmarks=options.landmarks, workers=options.workers, max_lost=options.max_lost,
        force=options.force, progress=_progress_bar,
    )
    with sole_builder(settings.output) as staging:
        # All tables are read before anything is written: a mistake in the second data set shows at once.
        datasets = [read_celeba(options.celeba, options.celeba_images, splits)] if options.celeba else []
        if options.fotw:
            datasets.append(read_fotw(options.fotw, splits))
            if options.corrections:
                corrections.apply(datasets[-1], options.corrections)
        for dataset in datasets:
            for note in dataset.notes:
                settings.say(f"{dataset.name}: {note}")
            build_dataset(dataset, settings, staging)


def _progress_bar(answers, total: int, title: str):
    from tqdm import tqdm

    return tqdm(answers, total=total, desc=title, unit=" images", disable=None, dynamic_ncols=True)


if __name__ == "__main__":
    raise SystemExit(main())
