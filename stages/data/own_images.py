"""Make the four files of a data set out of pictures, in a sub-folder for each class.

    python -m stages.data.own_images FOLDER TARGET

The models train on the pixels that the server makes of such pictures. This is no stage: it prints
the command that runs the pipeline on what it made.
"""

import argparse
import hashlib
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra.core.override_parser.types import Quote, QuotedString
from scipy.stats import binom

from stages.console import StageError, run
from stages.data.idx import TEST_FILES, TRAIN_FILES, write_idx
from stages.data.own_pictures import find, note, read
from stages.data.processed import Images
from stages.data.splits import split

FILES = (*TRAIN_FILES, *TEST_FILES)
TRAIN, TEST = 2, 1  # pictures of a class at least: a trial model may lack one that trains
SOUND = 0.8  # accuracy that is expected where there are FEW_TESTS pictures or more to test on
FEW_TESTS = 1000  # with fewer, chance moves the accuracy by some hundredths
CHANCE = 0.001  # that a model of that accuracy is below the floor


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    about = "Make a data set out of pictures, in a sub-folder for each class."
    program = argparse.ArgumentParser("python -m stages.data.own_images", description=about)
    add = program.add_argument
    classes = "holds a sub-folder of pictures for each class, or such in train/ and test/"
    add("folder", type=Path, help=classes)
    add("target", type=Path, help="folder to write the four IDX files to")
    share = "of each class without test/ (default: 0.2)"
    add("--test-share", type=float, default=0.2, help=share)
    add("--invert", action="store_true", help="the pictures show dark on bright")
    add("--skip-bad", action="store_true", help="leave out files that are no pictures")
    add("--seed", type=int, default=7, help="of the choice (default: 7)")
    return program


def first_copies(images: np.ndarray) -> np.ndarray:
    """Of each image, [n, 784], the position of the first one with its pixels, int [n]."""
    first: dict[bytes, int] = {}
    positions = (first.setdefault(image.tobytes(), n) for n, image in enumerate(images))
    return np.fromiter(positions, int, len(images))


def choose_tests(labels: np.ndarray, firsts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images test, bool [n]: copies where the first one does, none that is of two classes.

    firsts: see first_copies; share: above 0, below 1, of the different images of each class,
    rounded such that TEST or more test, but none where fewer than TRAIN would be left to train.
    """
    two_classes = np.isin(firsts, firsts[labels != labels[firsts]])
    chosen = np.empty(0, int)
    for label in np.unique(labels):
        free = np.unique(firsts[(labels == label) & ~two_classes])
        most = len(free) - max(TRAIN - np.sum((labels == label) & two_classes), 0)
        if most >= TEST:
            size = min(max(round(share * len(free)), TEST), most)
            chosen = np.append(chosen, free[split(labels[free], size, seed)[1]])
    return np.isin(firsts, chosen)


def check_counts(folder: Path, names: Sequence[str], labels: np.ndarray, tests: np.ndarray) -> None:
    """Raise StageError, a line for each class of which too few images train or test."""
    train, test = (np.bincount(labels[side], minlength=len(names)) for side in (~tests, tests))
    errors = [
        f"{folder}: {names[n]}: {train[n]} pictures to train on and {test[n]} to test on; expected "
        f"at least {TRAIN} and {TEST} that are no copies: add some, or leave the class out"
        for n in np.flatnonzero((train < TRAIN) | (test < TEST)).tolist()
    ]
    if errors:
        raise StageError("\n".join(errors))


def note_copies(
    paths: Sequence[Path], labels: np.ndarray, firsts: np.ndarray, tests: np.ndarray
) -> None:
    """Name images that are copies: of others, of some that train, of some in another class."""
    for chosen, what in (
        (firsts != np.arange(len(firsts)), "copies of others"),
        (tests & ~tests[firsts], "in test and copies of some in train; leave each in one"),
        (labels != labels[firsts], "copies of some in another class; leave each in one"),
    ):
        pairs = [f"{paths[n]} = {paths[firsts[n]]}" for n in np.flatnonzero(chosen).tolist()]
        if pairs:
            shown = ", ".join([*pairs[:3], "…"][: len(pairs)])
            note(f"{len(pairs):,} of {len(paths):,} pictures are {what}: {shown}")


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


def floor(count: int) -> float:
    """The accuracy on a number of test pictures below which a sound model hardly ever is."""
    return int(binom.ppf(CHANCE, count, SOUND)) * 1000 // count / 1000


def command(target: Path, class_names: Sequence[str], tests: int) -> str:
    """What runs the pipeline on these files, for a shell. tests: pictures to test on.

    With the files' sums, since DVC runs `download` again only where its parameters changed.
    """
    sums = [hashlib.md5((target / name).read_bytes()).hexdigest() for name in FILES]
    lists = {"sources": [str(target.resolve())], "own.class_names": class_names, "own.md5": sums}
    values = [f"download.{key}=[{','.join(map(_quoted, v))}]" for key, v in lists.items()]
    settings = ["download.dataset=own", *map(shlex.quote, values)]
    if tests < FEW_TESTS:
        settings.append(f"evaluate.min_accuracy={floor(tests):g}")
    return " \\\n  ".join(["dvc exp run", *(f"-S {setting}" for setting in settings)])


def _quoted(text: str) -> str:
    """A quoted string of Hydra, lest it reads a number; OmegaConf takes ${ for a reference."""
    return QuotedString(re.sub(r"(\\*)\$\{", r"\1\1\\${", text), Quote.double).with_quotes()


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if not 0 < options.test_share < 1:
        share = f"--test-share is {options.test_share:g}"
        raise StageError(f"{share}; expected a number above 0, below 1")
    found, names = find(options.folder)
    files, images = read(found, options.invert, options.skip_bad)
    data = Images(images, np.array([file.label for file in files], np.uint8), names)
    sides, firsts = np.array([file.side for file in files]), first_copies(images)
    tests = sides == "test"
    if not any(sides):
        tests = choose_tests(data.labels, firsts, options.test_share, options.seed)
    note_copies([file.path for file in files], data.labels, firsts, tests)
    check_counts(options.folder, names, data.labels, tests)
    random = np.random.default_rng(options.seed)
    parts = [random.permutation(np.flatnonzero(tests == side)) for side in (False, True)]
    write_set(options.target, data, parts)
    print(
        f"{options.target}: {len(parts[0]):,} pictures to train on and {len(parts[1]):,} to test "
        f"on, of {len(names)} classes; train and measure with:\n"
    )
    print(command(options.target, names, len(parts[1])))


if __name__ == "__main__":
    run(main)
