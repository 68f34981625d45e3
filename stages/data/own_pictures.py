"""Custom pictures: found in folders, and read as a server reads them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from warnings import catch_warnings

import numpy as np

from serving.client.pictures import bright
from serving.fashion.model.pictures import NAMES, PIXELS, PixelError, read_picture
from stages.console import StageError, progress
from stages.params import MAX_CLASSES, MIN_CLASSES

SIDES = ("train", "test")  # folders in which a user has split the pictures
JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}  # that systems leave behind


class File(NamedTuple):
    """A file in the folder of a class. side: train or test, "" where the user has not split."""

    path: Path
    label: int
    side: str


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in alphabetical order, without what is hidden or junk."""
    return [path for path in sorted(folder.glob("[!.]*")) if path.name.lower() not in JUNK]


def folders(folder: Path) -> list[Path]:
    return list(filter(Path.is_dir, entries(folder)))


def find(folder: Path) -> tuple[list[File], tuple[str, ...]]:
    """The files by side, class and name, and the names of the classes, in alphabetical order.

    Where there are sub-folders train or test, in any case, with sub-folders inside, those
    are the classes', and what else is there is left out. Raises StageError.
    """
    if not folder.is_dir():
        raise StageError(
            f"{folder}: no such folder; expected one with a sub-folder of pictures for each class"
        )
    roots = {f: side for side in SIDES for f in folders(folder) if f.name.lower() == side}
    others = [f for f in folders(folder) if f not in roots]
    if not any(map(folders, roots)):
        roots, others = {folder: ""}, []
    names = sorted({f.name for root in roots for f in folders(root)})
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        expected = f"{MIN_CLASSES} to {MAX_CLASSES}, one for each class"
        raise StageError(f"{folder}: {len(names)} sub-folders; expected {expected}")
    for name in names:
        if name == "???" or name.encode(errors="replace").decode() != name:
            expected = "UTF-8 other than '???'; rename it"
            raise StageError(f"{folder}: class {name!a}; expected {expected}")
    files = [
        File(path, label, side)
        for root, side in roots.items()
        for label, name in enumerate(names)
        for path in entries(root / name)
    ]
    for other in others:
        note(f"{other}: left out; with classes in train or test, only these are read")
    return files, tuple(names)


def read(files: Sequence[File], invert: bool, skip_bad: bool) -> tuple[list[File], np.ndarray]:
    """The files that are pictures, and their pixels as a server takes them, uint8 [n, 784].

    Raises StageError, a line for each other file, or only names them where they are to be skipped.
    """
    images, bad, with_bright_border = {}, {}, []
    bar = progress("reading pictures", len(files) or None, "pictures")
    with catch_warnings(action="ignore"), bar as advance:  # Pillow's, of what is an error here
        for file in files:
            try:
                content = file.path.read_bytes()
                images[file] = read_picture(content, invert)
                with_bright_border += bright({str(file.path): content})
            except PixelError as error:
                bad[file.path] = f"expected {error}"
            except OSError as error:
                bad[file.path] = f"{error.strerror}; expected a {NAMES} file"
            advance(1)
    if bad and not skip_bad:
        remedy = "convert it, take it away, or leave out all such files by --skip-bad"
        raise StageError("\n".join(f"{path}: {why}; {remedy}" for path, why in bad.items()))
    for path, why in bad.items():
        note(f"{path}: left out: {why}")
    if with_bright_border and not invert:
        note(
            f"{len(with_bright_border):,} of {len(images):,} pictures have a bright border, as "
            f"{with_bright_border[0]}; for dark objects on a bright ground, add --invert"
        )
    return list(images), np.array(list(images.values()), np.uint8).reshape(-1, PIXELS)


def note(text: str) -> None:
    """Write what a user may want to mend, but need not, to stderr."""
    print(f"note: {text}", file=sys.stderr)
