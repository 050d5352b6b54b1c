"""Build the LMDBs of the paper's crops from CelebA and FotW.

    python -m lmdb_builders.build --celeba ~/CelebA --fotw ~/FotW --crop scheme5    # another data set: recipe.DATASETS
    make lmdb CROP=scheme5 CELEBA=~/CelebA FOTW=~/FotW PROFILE=paper

Without --crop: the schemes that GNet, SNet1 and SNet2 need. A build that is complete for the same sources and settings
is kept; one that was stopped resumes with the faces detected so far.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Dict, List, Optional

import recipe
from common import command
from common.options import add_profile, natural, positive, random_seed

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
    add_profile(parser)
    for data_set in recipe.DATASETS.values():
        parser.add_argument(f"--{data_set.name}", metavar="FOLDER", help=f"{data_set.title} {data_set.layout} (default: the "
                            f"environment's {data_set.variable}, if it is set)")
    parser.add_argument(
        "--landmarks", default="dataset", choices=("dataset", "detector"),
        help="five points of a face: the data set's own where it has them (FotW has none), or the detector's; "
             "default: %(default)s",
    )
    for data_set in recipe.DATASETS.values():
        if data_set.editions:
            parser.add_argument(
                f"--{data_set.name}-images", default="auto", choices=("auto", *data_set.editions),
                help=f"edition of {data_set.title}'s photos; auto: the first of these that is there",
            )
    parser.add_argument(
        "--corrections", metavar="FILE",
        help=f"corrections.csv of {recipe.target().title}'s training labels (make suspects)",
    )
    parser.add_argument("--test", action="store_true", help="also build the test partitions")
    parser.add_argument("--encode", default="raw", choices=("raw", "jpg", "png"), help="default: %(default)s")
    parser.add_argument("--seed", type=random_seed, help="of the order, shuffled once; default: the profile's")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes; default: %(default)s")
    parser.add_argument("--gpu", type=natural, metavar="NUMBER", help="GPU to find faces on (default: the CPU)")
    parser.add_argument(
        "--max-lost", type=float, default=0.02, metavar="SHARE",
        help="fail when a split loses more than this share of its faces; default: %(default)s",
    )
    parser.add_argument("--force", action="store_true", help="rebuild complete LMDBs too, and detect the faces again")
    parser.add_argument("--output", metavar="FOLDER", help="default: the project's data/PROFILE")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    parser = get_parser()
    options = parser.parse_args(argv)
    options.folders = _folders(options)
    if not options.folders:
        flags = ", ".join(f"--{name} FOLDER" for name in recipe.DATASETS)
        variables = " ".join(f"{entry.variable}=folder" for entry in recipe.DATASETS.values())
        parser.error(f"give the folder of at least one data set: {flags} (make lmdb {variables})")
    target = recipe.target()
    if options.corrections and target.name not in options.folders:
        parser.error(f"--corrections are for {target.title}'s labels: give --{target.name} FOLDER too")
    if not 0 <= options.max_lost <= 1:
        parser.error("--max-lost is a share, 0 to 1")
    from lmdb_builders.errors import BuildError

    return command.run(
        "build", lambda: _build(options), BuildError, status=1, writes=(),
        stopped="stopped; nothing half-written is left, and the next run uses the faces detected so far",
    )


def _folders(options: argparse.Namespace) -> Dict[str, str]:
    """Data set -> its folder: the command line's, else the environment's, where make puts its variables."""
    folders = {}
    for name, entry in recipe.DATASETS.items():
        folder = getattr(options, name) or os.path.expanduser(os.environ.get(entry.variable, ""))
        if folder.strip():
            folders[name] = folder
    return folders


def _build(options: argparse.Namespace) -> int:
    """main's work, imports that take long among it."""
    from detector import DetectorError
    from lmdb_builders.errors import BuildError
    from torchcaffe.core.errors import CaffeError

    try:
        _build_all(options)
    except (DetectorError, CaffeError, MemoryError) as error:
        raise BuildError(str(error)) from None
    return 0


def _build_all(options: argparse.Namespace) -> None:
    from common.progress import shown
    from lmdb_builders import corrections, readers
    from lmdb_builders.builder import Settings, build_dataset
    from lmdb_builders.files import sole_builder
    from lmdb_builders.pool import keep_freed_memory

    keep_freed_memory()
    _check_gpu(options.gpu)
    profile = recipe.PROFILES[options.profile]
    splits = ("train", "val", "test") if options.test else ("train", "val")
    settings = Settings(
        profile=profile,
        crops=tuple(recipe.CROPS) if "all" in options.crop else tuple(dict.fromkeys(options.crop)),
        output=os.path.abspath(options.output or recipe.absolute(recipe.lmdb_folder(profile.name, ""))),
        splits=splits, encode=options.encode,
        seed=profile.random_seed if options.seed is None else options.seed,
        landmarks=options.landmarks, workers=options.workers, gpu=options.gpu, max_lost=options.max_lost,
        force=options.force, progress=shown,
    )
    with sole_builder(settings.output) as staging:
        # All tables are read before anything is written: a mistake in the second data set shows at once.
        datasets = [readers.read(name, folder, splits, getattr(options, f"{name}_images", "auto"))
                    for name, folder in options.folders.items()]
        for dataset in datasets:
            if options.corrections and dataset.name == recipe.target().name:
                corrections.apply(dataset, options.corrections)
        for dataset in datasets:
            for note in dataset.notes:
                settings.say(f"{dataset.name}: {note}")
            present = tuple(split for split in recipe.DATASETS[dataset.name].splits if split in splits)
            build_dataset(dataset, replace(settings, splits=present), staging)


def _check_gpu(gpu: Optional[int]) -> None:
    """Raise BuildError where PyTorch cannot compute on that GPU."""
    if gpu is None:
        return
    from lmdb_builders.errors import BuildError
    from torchcaffe.core import mode

    reason = mode.why_no_gpu(gpu)
    if reason:
        raise BuildError(f"{reason}; leave out --gpu (GPU= of make) to find faces on the CPU")


if __name__ == "__main__":
    raise SystemExit(main())
