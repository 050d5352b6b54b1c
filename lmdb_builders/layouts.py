"""Finds a data set's folders of photos and its tables, however its archives were unpacked.

Archives unpack into folders of their own (smiles_trset/smiles_trset, Img/img_celeba.7z/img_celeba), downloads add a
prefix (datasets_None_..._smiles_trset), and torchvision a folder above (celeba/): all folders down to DEPTH are looked at.
"""

from __future__ import annotations

import os
import shlex
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from lmdb_builders.errors import BuildError
from lmdb_builders.records import unsafe_name

DEPTH = 4  # folders down: Img/img_celeba.7z/img_celeba with a folder above it
PHOTOS = (".jpg", ".jpeg", ".png")
UNPACK = {  # end of an archive's name -> the command that unpacks it
    ".zip": "unzip {archive} -d {folder}", ".7z": "7z x {archive} -o{folder}", ".7z.001": "7z x {archive} -o{folder}",
    ".tar": "tar xf {archive} -C {folder}", ".tar.gz": "tar xf {archive} -C {folder}", ".tgz": "tar xf {archive} -C {folder}",
    ".rar": "unrar x {archive} {folder}/",
}
LISTED = 6  # archives that a message names


class Folder(NamedTuple):
    """One folder of the tree."""

    path: str
    depth: int  # 0: the data set's folder itself
    files: frozenset
    has_photos: bool

    @property
    def name(self) -> str:
        """Its name, without the end of an archive that was unpacked into it: img_celeba.7z is img_celeba."""
        name = os.path.basename(self.path)
        return next((name[: -len(end)] for end in UNPACK if name.lower().endswith(end)), name)


class Tree:
    """The folders below a data set's folder, each listed once. Raises BuildError where there is no such folder."""

    def __init__(self, root: str, remedy: str):
        if not os.path.isdir(root):
            raise BuildError(f"{root}: no such folder; {remedy}")
        self.root = root = os.fspath(root)
        self.folders: List[Folder] = []
        waiting, seen = [(root, 0)], set()
        for path, depth in waiting:
            real = os.path.realpath(path)
            if real in seen:  # a link into the same tree
                continue
            seen.add(real)
            folder, inner = _list(path, depth)
            self.folders.append(folder)
            if depth < DEPTH:
                waiting += [(os.path.join(path, name), depth + 1) for name in inner]

    def relative(self, path: str) -> str:
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def photos(self, names: Sequence[str]) -> Optional[Folder]:
        """The folder of photos with one of these names, or with one that ends in it (datasets_None_..._smiles_trset).

        An earlier name wins; None where there is none. Raises BuildError where several have the same name.
        """
        for name in names:
            named = [folder for folder in self.folders if folder.name == name or folder.name.endswith("_" + name)]
            found = [folder for folder in named if folder.has_photos] or [folder for folder in named if self._is_empty(folder)]
            if found:
                return self._only(found, [folder.path for folder in found], f"folders of photos named {name}")
        return None

    def _is_empty(self, folder: Folder) -> bool:
        """Whether it holds no folders and no archives: its photos are missing one by one then."""
        return not any(other.path.startswith(folder.path + os.sep) for other in self.folders) and not _archives(folder)

    def table(self, names: Sequence[str], near: Optional[str] = None) -> Optional[str]:
        """Path of the table with one of these file names; an earlier name wins. None where there is none.

        near: of several, the one in this folder is taken, else the one in the nearest folder above it. Raises BuildError
        where it is not clear which is meant.
        """
        for name in names:
            found = [folder for folder in self.folders if name in folder.files]
            above = [folder for folder in found if near is not None and f"{near}{os.sep}".startswith(folder.path + os.sep)]
            found = [max(above, key=lambda folder: folder.depth)] if above else found
            if found:
                path = self._only(found, [os.path.join(folder.path, name) for folder in found], f"tables named {name}").path
                return os.path.join(path, name)
        return None

    def _only(self, folders: List[Folder], paths: List[str], what: str) -> Folder:
        if len(folders) > 1:
            shown = ", ".join(sorted(map(self.relative, paths))[:LISTED])
            raise BuildError(f"{self.root}: {len(folders)} {what}: {shown}; keep one, or give the folder that holds one")
        return folders[0]

    def missing(self, what: str, looked_for: Iterable[str]) -> BuildError:
        """The error for `what` that was not found, with the archives that lie there instead and how to unpack them."""
        archives = sorted(path for folder in self.folders for path in _archives(folder))
        text = f"{self.root}: {what}; looked for {', '.join(looked_for)}, {DEPTH} folders down"
        if archives:
            lines = [_command(path) for path in archives[:LISTED]]
            more = f" and {len(archives) - LISTED} more" if len(archives) > LISTED else ""
            return BuildError(f"{text}; there are archives: unpack them by `{'; '.join(lines)}`{more}")
        lying = sorted(os.path.basename(folder.path) + "/" for folder in self.folders if folder.depth == 1)
        lying += sorted(self.folders[0].files)
        shown = ", ".join(lying[:LISTED]) + (" ..." if len(lying) > LISTED else "") if lying else "nothing"
        return BuildError(f"{text}; there is: {shown}; unpack the data set's archives there, or give their folder")


class Photos:
    """Photos of one folder by the names that a table gives; .JPG or .png is found for a .jpg of a table."""

    def __init__(self, folder: Folder, tree: Tree):
        self._folder = folder
        prefix = tree.relative(folder.path)
        self._prefix = "" if prefix == "." else prefix + "/"
        self._by_stem: Optional[Dict[str, str]] = None

    def find(self, name: str) -> str:
        """Path of a photo relative to the data set's folder. Raises ValueError with the reason where there is none."""
        problem = unsafe_name(name)
        if problem:
            raise ValueError(problem)
        if name in self._folder.files or ("/" in name and os.path.exists(os.path.join(self._folder.path, name))):
            return self._prefix + name
        if self._by_stem is None:
            pairs = (os.path.splitext(file) for file in sorted(self._folder.files))
            self._by_stem = {stem: stem + end for stem, end in pairs if end.lower() in PHOTOS}
        other = self._by_stem.get(os.path.splitext(name)[0])
        if other is None:
            raise ValueError("image file is missing")
        return self._prefix + other


def _list(path: str, depth: int) -> Tuple[Folder, List[str]]:
    """A folder, and the names of the folders in it."""
    files, inner = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    if not entry.name.startswith((".", "__MACOSX")):
                        inner.append(entry.name)
                else:
                    files.append(entry.name)
    except PermissionError:
        if depth == 0:
            raise BuildError(f"{path}: cannot be listed (Permission denied); check its permissions") from None
    has_photos = any(name.lower().endswith(PHOTOS) for name in files)
    return Folder(path, depth, frozenset(files), has_photos), sorted(inner)


def _archives(folder: Folder) -> List[str]:
    return [os.path.join(folder.path, file) for file in folder.files if file.lower().endswith(tuple(UNPACK))]


def _command(archive: str) -> str:
    end = max((end for end in UNPACK if archive.lower().endswith(end)), key=len)
    return UNPACK[end].format(archive=shlex.quote(archive), folder=shlex.quote(os.path.dirname(archive) or "."))
