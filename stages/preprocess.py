"""Turn the published files into images that train, their features, and images that evaluate.

Reads   data/raw/*.gz                      four gzipped IDX files
Writes  data/processed/{train,test}.npz    images uint8 [n, 784], labels uint8 [n], class_names
        data/processed/features.npz        the map from pixels to features (Features)
        data/processed/train_features.npy  float32 [n, k], the features of the images that train
Params  preprocess, features, scores, download.dataset, download.own
"""

import time

import numpy as np
from scipy.linalg import eigh

from serving.fashion import features as maps
from serving.fashion.features import DIRECTION_PLACES, FEATURE_PLACES, Features, rounded
from stages import params as sections
from stages.atomic import replacing
from stages.dataset import (
    FEATURES,
    PROCESSED,
    RAW,
    TEST_FILES,
    TRAIN_FEATURES,
    TRAIN_FILES,
    Images,
    read_idx,
    write_npz,
)
from stages.errors import StageError, run
from stages.params import Params, load_params
from stages.scores import fit_scores
from stages.split import split, stratified

SAMPLE = 20_000  # images at most, evenly spread, to find principal components with


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
    rest, held_out = split(data.labels, size, seed)
    return subset(data, rest), subset(data, held_out)


def limit(data: Images, size: int, seed: int) -> Images:
    """Keep `size` images, stratified. Raises StageError when there are fewer."""
    if size > len(data.labels):
        raise StageError(
            f"params.yaml: preprocess.train_limit is {size}; "
            f"expected null or at most the {len(data.labels):,} training images"
        )
    return subset(data, stratified(data.labels, size, seed))


def fit_features(
    images: np.ndarray, labels: np.ndarray, params: Params
) -> tuple[Features, np.ndarray]:
    """Fit the map on uint8 [n, 784] images with labels [n].

    Returns it, and the features of these images: scores, then components; float32 [n, classes + k].
    Raises StageError when the images are all alike.
    """
    fitted, components = fit_components(images, params.features)
    if params.scores.landmarks is None:
        return fitted, components
    landmarks, gamma, weights, own = fit_scores(components, labels, params.scores)
    fitted = fitted._replace(landmarks=landmarks, gamma=gamma, weights=weights)
    return fitted, np.hstack([rounded(own, FEATURE_PLACES), components])


def fit_components(images: np.ndarray, params: sections.Features) -> tuple[Features, np.ndarray]:
    """Fit a map without scores on uint8 [n, 784] images.

    Returns it, and the components of these images, float32 [n, k]: principal ones of the
    descriptors, by falling variance, scaled such that their variances add up to 1; where
    params.components is null, the descriptors so scaled. Raises StageError when the images are all
    alike.
    """
    hog, nothing = params.kind == "hog", np.empty((0, 0), np.float32)
    fitted = Features(
        cells=np.array(params.cells if hog else [], np.int64),
        bins=np.array(params.bins),
        pixel_weight=np.array(params.pixel_weight if hog else 1.0),
        projection=nothing,
        offset=np.zeros(1, np.float32),
        scale=np.ones(1, np.float32),
        landmarks=nothing,
        gamma=np.ones((), np.float32),
        weights=nothing,
    )
    descriptors = maps.describe(images, fitted)
    if hog and params.components:
        fitted = fitted._replace(projection=_principal(descriptors, params.components))
    values = maps.along(descriptors, fitted)
    variance = values.var(axis=0).sum(keepdims=True)
    if not variance:
        raise StageError(f"the {len(images):,} training images are all alike; nothing to learn")
    fitted = fitted._replace(offset=values.mean(axis=0), scale=1 / np.sqrt(variance))
    return fitted, maps.scaled(values, fitted)


def _principal(descriptors: np.ndarray, count: int) -> np.ndarray:
    """Directions of most variance, first first, at most as many as rows; float32 [d, count].

    descriptors: float32 [n, d]; a sample gives the directions, which more would change little.
    scikit-learn's PCA finds all d of them, which takes twice as long.
    """
    sample = descriptors[:: -(-len(descriptors) // SAMPLE)]
    centred = sample - sample.mean(axis=0)
    last = centred.shape[1] - 1
    kept = [last - min(count, *centred.shape) + 1, last]
    vectors = eigh(centred.T @ centred, subset_by_index=kept, check_finite=False)[1]
    return rounded(np.ascontiguousarray(vectors[:, ::-1]), DIRECTION_PLACES)


def read(files: tuple[str, str], params: sections.Download) -> Images:
    """Read images and labels as the data set has them. Raises StageError."""
    images, labels = (RAW / name for name in files)
    if params.dataset != "own":
        return read_idx(images, labels, params.class_names)
    own = params.own
    return read_idx(images, labels, params.class_names, own.first_label, own.transposed)


def check_classes(data: Images) -> None:
    """Raise StageError when a class has no image to train on."""
    for label in np.setdiff1d(np.arange(len(data.class_names)), data.labels):
        raise StageError(
            f"no image to train on is of class {data.class_names[label]!r}; "
            "take more of them (preprocess.train_limit), or leave the class out"
        )


def main() -> None:
    params = load_params()
    chosen = params.preprocess
    train = read(TRAIN_FILES, params.download)
    if chosen.validation:
        train, test = hold_out(train, chosen.validation, chosen.seed)
    else:
        test = read(TEST_FILES, params.download)
    if chosen.train_limit:
        train = limit(train, chosen.train_limit, chosen.seed)
    check_classes(train)
    write_npz(PROCESSED / "train.npz", train)
    write_npz(PROCESSED / "test.npz", test)
    source = "held out of the training files" if chosen.validation else "of the test files"
    print(f"{len(train.labels):,} images to train on, {len(test.labels):,} {source} to evaluate on")
    start = time.monotonic()
    fitted, features = fit_features(train.images, train.labels, params)
    with replacing(FEATURES) as part:
        np.savez(part, **fitted._asdict())
    with replacing(TRAIN_FEATURES) as part, part.open("wb") as file:
        np.save(file, features)
    print(f"{features.shape[1]} features an image, made in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run(main)
