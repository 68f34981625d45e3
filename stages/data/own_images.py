"""Make the four files of a data set out of pictures, in a sub-folder for each class.

    python -m stages.data.own_images FOLDER TARGET

The models train on the pixels that the server makes of such pictures. This is no stage: it prints
the command that runs the pipeline on what it made.
"""

import argparse
import hashlib
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serving.fashion.model.pictures import NAMES, PixelError, read_picture
from stages.console import StageError, progress, run
from stages.data.idx import TEST_FILES, TRAIN_FILES, Images, write_idx
from stages.data.splits import split
from stages.params import MAX_CLASSES, MIN_CLASSES

FILES = (*TRAIN_FILES, *TEST_FILES)
FEWEST = 3  # pictures of a class: two train, of which a trial model may lack one, and one tests


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    program = argparse.ArgumentParser(
        prog="python -m stages.data.own_images",
        description="Make a data set out of pictures, in a sub-folder for each class.",
    )
    program.add_argument("folder", type=Path, help="holds a sub-folder of pictures for each class")
    program.add_argument("target", type=Path, help="folder to write the four IDX files to")
    program.add_argument(
        "--test-share", type=float, default=0.2, help="of each class (default: 0.2)"
    )
    program.add_argument("--invert", action="store_true", help="the pictures show dark on bright")
    program.add_argument("--seed", type=int, default=7, help="of the choice (default: 7)")
    return program


def classes_in(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, by its name; both in alphabetical order. Raises StageError."""
    if not folder.is_dir():
        raise StageError(
            f"{folder}: no such folder; expected one with a sub-folder of pictures for each class"
        )
    folders = [f for f in sorted(folder.glob("[!.]*")) if f.is_dir()]
    if not MIN_CLASSES <= len(folders) <= MAX_CLASSES:
        raise StageError(
            f"{folder}: {len(folders)} sub-folders; expected {MIN_CLASSES} to {MAX_CLASSES}, "
            "one for each class"
        )
    classes = {f.name: sorted(f.glob("[!.]*")) for f in folders}
    for name, files in classes.items():
        if len(files) < FEWEST:
            raise StageError(
                f"{folder / name}: {len(files)} pictures; expected at least {FEWEST}, "
                "two to train on and one to test on"
            )
    return classes


def read_classes(classes: dict[str, list[Path]], invert: bool) -> Images:
    """The pictures as a server takes them. Raises StageError, naming the file, for another one."""
    images, labels = [], []
    with progress("reading pictures", sum(map(len, classes.values())), "pictures") as advance:
        for label, files in enumerate(classes.values()):
            for path in files:
                images.append(_read(path, invert))
                labels.append(label)
                advance(1)
    return Images(np.array(images), np.array(labels, np.uint8), tuple(classes))


def _read(path: Path, invert: bool) -> np.ndarray:
    try:
        return read_picture(path.read_bytes(), invert)
    except PixelError as error:
        raise StageError(f"{path}: expected {error}; convert it, or take it away") from None
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}; expected a {NAMES} file") from None


def divided(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All positions, as (those that train, those that test), each in random order.

    labels: [n], of each class at least FEWEST; share: above 0, below 1, of each class that tests,
    rounded such that at least two of its images train and one tests.
    """
    parts = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        size = min(max(round(share * len(own)), 1), len(own) - FEWEST + 1)
        parts.append([own[chosen] for chosen in split(labels[own], size, seed)])
    random = np.random.default_rng(seed)
    train, test = (random.permutation(np.concatenate(p)) for p in zip(*parts, strict=True))
    return train, test


def write_set(target: Path, data: Images, parts: Sequence[np.ndarray]) -> None:
    """Write the four files, all of them or none. parts: positions that train, that test."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target, prefix=".part-")
    except OSError as error:
        raise StageError(f"{target}: {error.strerror}; name a folder to write to") from None
    with scratch:
        for (images, labels), chosen in zip((TRAIN_FILES, TEST_FILES), parts, strict=True):
            content = Images(data.images[chosen], data.labels[chosen], data.class_names)
            write_idx(Path(scratch.name, images), Path(scratch.name, labels), content)
        for name in FILES:
            Path(scratch.name, name).replace(target / name)


def command(target: Path, class_names: Sequence[str]) -> str:
    """What runs the pipeline on these files, for a shell.

    With their sums, since DVC runs `download` again only where its parameters changed.
    """
    sums = [hashlib.md5((target / name).read_bytes()).hexdigest() for name in FILES]
    lists = {"sources": [str(target.resolve())], "own.class_names": class_names, "own.md5": sums}
    values = [f"download.{key}=[{','.join(map(_quoted, v))}]" for key, v in lists.items()]
    settings = ["download.dataset=own", *map(shlex.quote, values)]
    return " \\\n  ".join(["dvc exp run", *(f"-S {setting}" for setting in settings)])


def _quoted(text: str) -> str:
    """As Hydra's grammar for overrides wants it, lest it takes a name for a number."""
    return '"' + text.replace('"', '\\"') + '"'


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if not 0 < options.test_share < 1:
        raise StageError(
            f"--test-share is {options.test_share:g}; expected a number above 0, below 1"
        )
    data = read_classes(classes_in(options.folder), options.invert)
    parts = divided(data.labels, options.test_share, options.seed)
    write_set(options.target, data, parts)
    print(
        f"{options.target}: {len(parts[0]):,} pictures to train on and {len(parts[1]):,} to test "
        f"on, of {len(data.class_names)} classes; train and measure with:\n"
    )
    print(command(options.target, data.class_names))


if __name__ == "__main__":
    run(main)
