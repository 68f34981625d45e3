"""Turn the published files into the images that train and the images that evaluate.

Reads   data/raw/*.gz                      four gzipped IDX files
Writes  data/processed/{train,test}.npz    images uint8 [n, 784], labels uint8 [n], class_names
Params  preprocess.train_limit, preprocess.validation, preprocess.seed, download.dataset
"""

import numpy as np

from serving.fashion.contract import CLASS_NAMES
from stages.dataset import PROCESSED, RAW, TEST_FILES, TRAIN_FILES, Images, read_idx, write_npz
from stages.errors import StageError, run
from stages.params import load_params


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Choose `size` positions at random such that each class keeps its share.

    labels: [n]; size: 1 to n; returns int [size], ascending. A class's count is off its exact
    share by less than one (largest remainders first, ties to the lower label).
    """
    random = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * size / len(labels)
    quotas = np.floor(shares).astype(int)
    quotas[np.argsort(quotas - shares, kind="stable")[: size - quotas.sum()]] += 1
    chosen = [
        random.choice(np.flatnonzero(labels == label), quota, replace=False)
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def subset(data: Images, positions: np.ndarray) -> Images:
    """The images at these positions. positions: int [k]."""
    return Images(data.images[positions], data.labels[positions], data.class_names)


def hold_out(data: Images, size: int, seed: int) -> tuple[Images, Images]:
    """Split off `size` images, stratified: (the rest, those held out). Raises StageError."""
    if size >= len(data.labels):
        raise StageError(
            f"params.yaml: preprocess.validation is {size}; "
            f"expected less than the {len(data.labels):,} training images"
        )
    held_out = stratified(data.labels, size, seed)
    rest = np.setdiff1d(np.arange(len(data.labels)), held_out)
    return subset(data, rest), subset(data, held_out)


def limit(data: Images, size: int, seed: int) -> Images:
    """Keep `size` images, stratified. Raises StageError when there are fewer."""
    if size > len(data.labels):
        raise StageError(
            f"params.yaml: preprocess.train_limit is {size}; "
            f"expected null or at most the {len(data.labels):,} training images"
        )
    return subset(data, stratified(data.labels, size, seed))


def main() -> None:
    params = load_params()
    chosen, names = params.preprocess, CLASS_NAMES[params.download.dataset]
    train = read_idx(RAW / TRAIN_FILES[0], RAW / TRAIN_FILES[1], names)
    if chosen.validation:
        train, test = hold_out(train, chosen.validation, chosen.seed)
    else:
        test = read_idx(RAW / TEST_FILES[0], RAW / TEST_FILES[1], names)
    if chosen.train_limit:
        train = limit(train, chosen.train_limit, chosen.seed)
    write_npz(PROCESSED / "train.npz", train)
    write_npz(PROCESSED / "test.npz", test)
    source = "held out of the training files" if chosen.validation else "of the test files"
    print(f"{len(train.labels):,} images to train on, {len(test.labels):,} {source} to evaluate on")


if __name__ == "__main__":
    run(main)
