"""Turn the published files into images that train, their features, and images that evaluate.

Reads   data/raw/*.gz                      four gzipped IDX files
Writes  data/processed/train_images.npy    uint8 [n, 784], the images that train
        data/processed/train_labels.npy    uint8 [n]
        data/processed/train_features.npy  float32 [n, k]
        data/processed/features.npz        the map from pixels to features (FeatureMap)
        data/processed/test.npz            images uint8 [n, 784], labels uint8 [n], class_names
Params  preprocess, features, threads, download.dataset, download.own

Of the images that train, a few thousand are in memory at once; of the images that evaluate, all.
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.preprocess")

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stages.console import StageError, run
from stages.data.arrays import map_rows, write_npz, write_rows
from stages.data.idx import RAW, TEST_FILES, TRAIN_FILES, read_idx, read_images, read_labels
from stages.data.processed import FEATURES, TEST, TRAIN_FEATURES, TRAIN_IMAGES, TRAIN_LABELS, Images
from stages.data.splits import split, stratified
from stages.params import Preprocess, load_params
from stages.training.features import fit_features
from stages.training.threads import fix_threads

MIN_IMAGES_PER_CLASS = 2  # that train: one is too few for a trial model, which leaves some out


def choose(labels: np.ndarray, params: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """Which of the training files' images train, and which are held out; both positions, ascending.

    labels: uint8 [n]; both choices are stratified. Raises StageError where there are fewer images
    than requested.
    """
    rest, held_out = np.arange(len(labels)), np.arange(0)
    if params.validation:
        rest, held_out = split(labels, min(params.validation, len(labels)), params.seed)
    if params.train_limit is None:
        return rest, held_out
    if params.train_limit > len(rest):
        raise StageError(
            f"params.yaml: preprocess.train_limit is {params.train_limit}; "
            f"expected null or at most the {len(rest):,} training images"
            f"{' that preprocess.validation leaves' if params.validation else ''}"
        )
    return rest[stratified(labels[rest], params.train_limit, params.seed)], held_out


def check_classes(labels: np.ndarray, class_names: Sequence[str], params: Preprocess) -> None:
    """Raise StageError when a class has fewer than 2 images, of those with these labels, [n]."""
    counts = np.bincount(labels, minlength=len(class_names))
    limits = {"validation": params.validation, "train_limit": params.train_limit}
    changes = [f"change preprocess.{key}, which is {n}" for key, n in limits.items() if n]
    for label in np.flatnonzero(counts < MIN_IMAGES_PER_CLASS).tolist():
        raise StageError(
            f"{counts[label]} images to train on are of class {class_names[label]!r}; expected "
            f"{MIN_IMAGES_PER_CLASS} or more: {', or '.join([*changes, 'leave the class out'])}"
        )


def take_rows(positions: np.ndarray, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows at these positions of consecutive blocks. positions: int [m], ascending."""
    start = 0
    for block in blocks:
        first, last = np.searchsorted(positions, [start, start + len(block)])
        yield block[positions[first:last] - start]
        start += len(block)


def main() -> None:
    params = load_params()
    fix_threads(params.threads)
    names, (first, transposed) = params.download.class_names, params.download.layout
    images, labels = RAW / TRAIN_FILES[0], read_labels(RAW / TRAIN_FILES[1], names, first)
    chosen, held_out = choose(labels, params.preprocess)
    check_classes(labels[chosen], names, params.preprocess)

    def read(positions: np.ndarray) -> Iterator[np.ndarray]:
        return take_rows(positions, read_images(images, len(labels), transposed))

    write_rows(TRAIN_IMAGES, len(chosen), read(chosen))
    write_rows(TRAIN_LABELS, len(chosen), [labels[chosen]])
    if len(held_out):
        test = Images(np.concatenate(list(read(held_out))), labels[held_out], names)
    else:
        test = read_idx(RAW / TEST_FILES[0], RAW / TEST_FILES[1], names, first, transposed)
    write_npz(TEST, test)
    source = "held out of the training files" if len(held_out) else "of the test files"
    counts = f"{len(chosen):,} images to train on, {len(test.labels):,} {source} to evaluate on"
    print(counts, flush=True)  # before what takes most of the time
    start = time.monotonic()
    fitted = fit_features(map_rows(TRAIN_IMAGES), params.features, TRAIN_FEATURES)
    write_npz(FEATURES, fitted)
    count = map_rows(TRAIN_FEATURES).shape[1]
    print(f"{count} features an image, made in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run(main)
