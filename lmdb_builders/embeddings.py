"""Write a teacher's embedding of every face of a profile's LMDBs, under the same keys: the labels of its step 1.

    python -m lmdb_builders.embeddings --profile small    # after lmdb_builders.build, whose photos it reads again
    make embeddings PROFILE=small

Each photo is embedded once, and kept; the changed copies of its face get the same numbers.
"""

from __future__ import annotations

import argparse
import functools
import os
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

import recipe
from common import command
from common.files import read_json, write_json
from common.options import add_profile, positive

FACTS = "embeddings.json"  # beside the LMDBs: data set -> what its manifest said of the faces when they were embedded
SPLITS = ("train", "val")


class Photo(NamedTuple):
    """One photo whose face is embedded."""

    path: str
    landmarks: np.ndarray  # 5 x 2, stored pixels


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lmdb_builders.embeddings", description=__doc__.split("\n\n")[0])
    add_profile(parser)
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes; default: %(default)s")
    parser.add_argument("--force", action="store_true", help="also those that are complete")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Return 0 when all embeddings are there, 1 where that failed, 2 on wrong use, 130 when stopped."""
    parser = get_parser()
    options = parser.parse_args(argv)
    profile = recipe.PROFILES[options.profile]
    if profile.teacher is None:
        having = ", ".join(name for name, other in recipe.PROFILES.items() if other.teacher)
        parser.error(f"profile {profile.name} has no teacher, its step 1 reads no embeddings (with one: {having})")
    from lmdb_builders.errors import BuildError

    return command.run("embeddings", lambda: write_embeddings(profile, options.workers, options.force), BuildError,
                       status=1, writes=(), stopped="stopped; nothing half-written is left")


def write_embeddings(profile: recipe.Profile, workers: int = 1, force: bool = False, root: str = recipe.ROOT,
                     say=print) -> int:
    """Embed the faces of all data sets and write the numbers, and those of their shapes, beside the faces.

    Over the training faces each number has mean 0 and spread 1, or shape_weight.

    Raises BuildError where the LMDBs, their photos or the teacher's packages are missing. Returns 0.
    """
    from lmdb_builders import manifest
    from lmdb_builders.files import replace_folder, sole_builder

    teacher, names = profile.teacher, recipe.teacher_data_sets()
    assert teacher is not None
    output = os.path.join(root, recipe.lmdb_folder(profile.name, ""))
    folder = os.path.join(output, teacher.crop)
    with sole_builder(output) as staging:
        keys = {(name, split): face_keys(os.path.join(folder, recipe.DATASETS[name].database(split)), profile)
                for name in names for split in SPLITS}
        facts = {name: {key: manifest.read_entry(folder, name)[key] for key in ("facts", "split_facts", "images")}
                 for name in names}
        if not force and read_json(os.path.join(folder, FACTS)) == facts:
            say(f"embeddings: {folder} has those of {teacher.title} (FORCE=1 makes them again)")
            return 0
        vectors = {}
        for name in names:
            photos = listed(output, folder, name, [key for split in SPLITS for key in keys[name, split]])
            vectors[name] = embed_all(photos, os.path.join(output, "detections", f"{name}_embeddings.npz"),
                                      f"{name}, {teacher.title}", workers, force)
            for image, photo in photos.items():
                vectors[name][image] = np.append(vectors[name][image], shape(photo.landmarks))
        trained = [vectors[name][image] for name in names for image in dict.fromkeys(map(image_of, keys[name, "train"]))]
        mean, spread = np.mean(trained, axis=0), np.std(trained, axis=0)
        spread[teacher.numbers:] /= teacher.shape_weight
        for name, split in keys:
            database = recipe.DATASETS[name].embeddings_database(split)
            write(os.path.join(staging, database), keys[name, split],
                  {image: (vector - mean) / spread for image, vector in vectors[name].items()})
            replace_folder(os.path.join(staging, database), os.path.join(folder, database))
        write_json(os.path.join(folder, FACTS), facts)
    say(f"embeddings: {teacher.title} of {sum(map(len, vectors.values()))} photos, in {folder}")
    return 0


def embed_all(photos: Dict[str, Photo], path: str, title: str, workers: int, force: bool) -> Dict[str, np.ndarray]:
    """File name -> the teacher's numbers for each photo's face.

    Kept in the file `path` with the landmarks, so that a face needs the teacher once, for all crops, copies and splits.
    """
    from common.files import whole_file
    from common.progress import shown
    from lmdb_builders.pool import ordered_map

    kept = {} if force else kept_vectors(path)
    known = {image: kept[image][1] for image, photo in photos.items()
             if image in kept and np.array_equal(kept[image][0], photo.landmarks)}
    asked = {image: photo for image, photo in photos.items() if image not in known}
    if asked:
        answers = shown(ordered_map(embed, asked.values(), workers), len(asked), title)
        known.update(zip(asked, answers))
        with whole_file(path) as part, open(part, "wb") as stream:
            every = {**kept, **{image: (photo.landmarks, known[image]) for image, photo in photos.items()}}
            landmarks, vectors = zip(*every.values())
            np.savez(stream, images=np.array(list(every)), landmarks=np.array(landmarks), vectors=np.array(vectors))
    return known


def kept_vectors(path: str) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
    """File name -> (landmarks, numbers) of embed_all's file; nothing where it is missing or of an earlier form."""
    if not os.path.exists(path):
        return {}
    with np.load(path) as kept:
        if "landmarks" not in kept:
            return {}
        return dict(zip(kept["images"].tolist(), zip(kept["landmarks"], kept["vectors"])))


def shape(landmarks: np.ndarray) -> np.ndarray:
    """Five float64 of a face's shape, in face units (recipe.Crop), the same for the mirrored face.

    Half the distance of the eyes, their height, the nose's, half the width of the mouth, its height (y is down).
    """
    from lmdb_builders.crops import fit_face

    scale, origin = fit_face(landmarks)
    left_eye, right_eye, nose, left_mouth, right_mouth = ((complex(*point) - origin) / scale for point in landmarks)
    return np.array([(right_eye - left_eye).real / 2, (right_eye + left_eye).imag / 2, nose.imag,
                     (right_mouth - left_mouth).real / 2, (right_mouth + left_mouth).imag / 2])


def image_of(key: bytes) -> str:
    """The photo's file name in a record's key (lmdb_writer.record_key)."""
    return key[9:].decode("utf-8", "surrogateescape")


def face_keys(path: str, profile: recipe.Profile) -> List[bytes]:
    """Keys of an LMDB of faces, in its order. Raises BuildError where it is missing."""
    from lmdb_builders.errors import BuildError
    from torchcaffe.data.datasource import Environment

    if not os.path.isdir(path):
        crop = profile.teacher.crop if profile.teacher else ""
        raise BuildError(f"{path} is missing: make lmdb CROP={crop} PROFILE={profile.name}, with the data sets' folders")
    with Environment.open(path).lmdb.begin() as transaction:
        return [bytes(key) for key, _ in transaction.cursor()]


def listed(output: str, folder: str, name: str, keys: List[bytes]) -> Dict[str, Photo]:
    """File name -> photo, of the faces with these keys of a data set, as its build found them."""
    from lmdb_builders import manifest
    from lmdb_builders.detections import OK, read_detections
    from lmdb_builders.errors import BuildError

    source = manifest.read_entry(folder, name).get("folder", "")
    path = os.path.join(output, "detections", f"{name}.csv")
    found: Dict[str, Tuple[str, np.ndarray]] = {
        os.path.basename(image): (image, detection.landmarks)
        for image, detection in read_detections(path).items() if detection.status == OK}
    photos = {}
    for image in dict.fromkeys(image_of(key) for key in keys):
        if image not in found:
            raise BuildError(f"{path} has no face of {image}, which lies in {folder}: build the LMDBs again (make lmdb)")
        photos[image] = Photo(os.path.join(source, found[image][0]), found[image][1])
    return photos


@functools.lru_cache(maxsize=1)
def _teacher():
    """One teacher a process."""
    from lmdb_builders.teacher import Dlib

    return Dlib()


def embed(photo: Photo) -> np.ndarray:
    """The teacher's numbers for a photo's face. Raises BuildError where the photo cannot be read."""
    from lmdb_builders.errors import BuildError, ImageError
    from lmdb_builders.images import read_with_orientation

    moved = "if the data set's folder has moved, build the LMDBs again (make lmdb)"
    try:
        pixels, orientation = read_with_orientation(photo.path)
    except ImageError as error:
        raise BuildError(f"{photo.path}: {error}; {moved}") from None
    return _teacher().embed(pixels, orientation.upright_points(photo.landmarks))


def write(path: str, keys: List[bytes], vectors: Dict[str, np.ndarray]) -> None:
    """Write an LMDB of the vectors of the keys' photos, in the keys' order."""
    from lmdb_builders.lmdb_writer import LmdbWriter, labels_datum

    writer = LmdbWriter(path)
    try:
        for key in keys:
            writer.put(key, labels_datum(vectors[image_of(key)]))
        writer.close()
    finally:
        writer.abandon()


if __name__ == "__main__":
    raise SystemExit(main())
