"""Measure XGBoost's engines and the SVM's approximation on up to 960,000 images.

The images are the 60,000 training images and copies of these, shifted and mirrored; accuracy is on
the 10,000 test images, which are never copied and choose nothing. Both models see the features of
one map, fitted on the training images, without class scores: accuracies are lower than those of
params.yaml, and compare with each other only.

Engines: each boosts 40 rounds on the leading components. A machine is one core here: local is one
core, Dask has one and two workers of a core each. SVM: exact and approximated. Each measurement
has a separate process.

Run: make bench-beyond, or python -m benchmarks.scaling [--quick], after dvc repro download; half
an hour on two cores, and 1 GB in the folder for temporary files
Writes benchmarks/scaling.json, or with --quick only prints.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from xgboost import Booster

from benchmarks import results
from benchmarks.processes import in_new_process, only_cores, peak_mb
from benchmarks.results import published
from serving.fashion.contract import PIXELS, SIDE
from serving.fashion.model.svm import decisions, pairwise_log_proba
from stages import train_sklearn, train_xgboost
from stages.console import run
from stages.data import idx
from stages.data.arrays import map_rows, write_rows
from stages.data.processed import Images
from stages.data.splits import stratified
from stages.params import load_params
from stages.training.boosting import Subset
from stages.training.features import features_of, fit_map
from stages.training.threads import fix_threads

RESULT = Path("benchmarks/scaling.json")
FEATURES, LABELS, TEST_FEATURES, TEST_LABELS = (
    f"{name}.npy" for name in ("features", "labels", "test_features", "test_labels")
)
SEED = 7
COPIES = (1, 4, 16)
ROUNDS = 40
ENGINES = {"local": 0, "dask, 1 worker": 1, "dask, 2 workers": 2}
SVM_SIZES = {  # by the number of landmarks, of which the exact SVM has none
    None: (5_000, 15_000, 60_000, 120_000),
    2_000: (5_000, 15_000, 60_000, 240_000, 960_000),
}
QUICK_SIZES = {None: (2_000, 6_000), 300: (2_000, 6_000, 24_000)}
SHIFT = 2  # pixels at most, in each direction
BLOCK = 10_000  # images at once
_OFFSETS = range(-SHIFT, SHIFT + 1)
# Down, right, mirrored; the least shifted first, as they are likest to what there is.
SHIFTS = sorted(
    product(_OFFSETS, _OFFSETS, (False, True)), key=lambda s: (s[0] ** 2 + s[1] ** 2, s[2])
)
Row = dict[str, Any]


def augmented(
    images: np.ndarray, labels: np.ndarray, copies: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the images, uint8 [≤ 10,000, 784], and their labels, copy after copy.

    images: uint8 [n, 784]; copies: 1 to 50. Copy 0 is the images as they are; each other one is
    all of them, shifted and perhaps mirrored alike, and unlike every other copy.
    """
    for shift in SHIFTS[:copies]:
        for start in range(0, len(images), BLOCK):
            block = slice(start, start + BLOCK)
            yield shifted(images[block], *shift), labels[block]


def shifted(images: np.ndarray, down: int, right: int, mirrored: bool) -> np.ndarray:
    """Images, uint8 [n, 784], mirrored left to right, then shifted; what comes in is black."""
    pictures = images.reshape(-1, SIDE, SIDE)[:, :, :: -1 if mirrored else 1]
    padded = np.pad(pictures, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = SHIFT - down, SHIFT - right
    return padded[:, top : top + SIDE, left : left + SIDE].reshape(-1, PIXELS)


def write_features(folder: Path, train: Images, test: Images, copies: int) -> None:
    """Write features and labels of the images and their copies, and of the test images."""
    fitted = fit_map(train.images, load_params().features)
    parts = (
        part
        for images, _ in augmented(train.images, train.labels, copies)
        for part in features_of(images, fitted)
    )
    write_rows(folder / FEATURES, len(train.labels) * copies, parts)
    np.save(folder / LABELS, np.tile(train.labels, copies))
    np.save(folder / TEST_FEATURES, fitted(test.images))
    np.save(folder / TEST_LABELS, test.labels)


def boost(folder: Path, size: int, engine: str, scheduler: str | None) -> tuple[float, Booster]:
    """Boost on so many images of a folder; seconds without the start of anything, and the trees."""
    changes = {"engine": engine, "scheduler": scheduler, "early_stopping_rounds": None}
    params = load_params().xgboost.model_copy(update=changes)
    labels, features = np.load(folder / LABELS)[:size], map_rows(folder / FEATURES)
    subset = Subset(features[:size, : params.components], labels, np.arange(size))
    start = time.perf_counter()
    boosted = train_xgboost.boost(subset, params, ROUNDS)
    return time.perf_counter() - start, boosted.booster


def measure_engine(folder: Path, size: int, workers: int) -> Row:
    """Boost with so many workers of Dask, or locally with none.

    client_mb is without pages of files, worker_mb with those of libraries.
    """
    peaks: dict[str, float] = {}
    engine: tuple[str, str | None] = "local", None
    with only_cores(max(workers, 1)), ExitStack() as stack:
        if workers:
            from distributed import Client, LocalCluster  # noqa: PLC0415  an optional extra

            options = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            engine = "dask", cluster.scheduler_address
        (seconds, booster), peak = in_new_process(boost, folder, size, *engine)
        if workers:
            peaks = client.run(peak_mb)
    model = train_xgboost.as_classifier(booster)
    predicted = model.predict(np.load(folder / TEST_FEATURES)[:, : model.n_features_in_])
    accuracy, worker_mb = _accuracy(folder, predicted), list(peaks.values())
    return {"seconds": seconds, "client_mb": peak, "accuracy": accuracy, "worker_mb": worker_mb}


def fit_svm(folder: Path, size: int, originals: int, landmarks: int | None) -> Row:
    """Train on so many images of a folder, with the threads of params.yaml; seconds, accuracy."""
    params = load_params()
    fix_threads(params.threads)  # Dask has set OMP_NUM_THREADS=1 in the parent process
    features, labels = map_rows(folder / FEATURES), np.load(folder / LABELS)
    rows = stratified(labels[:originals], size, SEED) if size < originals else slice(size)
    chosen = features[rows] if landmarks else np.array(features[rows])
    section = params.svm.model_copy(update={"approximation": landmarks})
    start = time.perf_counter()
    model = train_sklearn.train(chosen, labels[rows], section)
    seconds = time.perf_counter() - start
    decide = decisions(model)
    blocks = np.array_split(np.load(folder / TEST_FEATURES), 40)
    scores = pairwise_log_proba(np.concatenate([decide(block) for block in blocks]), 1.0)
    return {"seconds": seconds, "accuracy": _accuracy(folder, scores.argmax(axis=1))}


def _accuracy(folder: Path, predicted: np.ndarray) -> float:
    return float((predicted == np.load(folder / TEST_LABELS)).mean())


def measure(train: Images, test: Images, sizes: dict[int | None, tuple[int, ...]]) -> Row:
    """Engines by the number of copies, and SVMs by the number of images."""
    originals = len(train.labels)
    engines, svms = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        write_features(folder, train, test, max(COPIES))
        for copies, (engine, workers) in product(COPIES, ENGINES.items()):
            row = {"images": copies * originals, "engine": engine}
            engines.append(row | measure_engine(folder, copies * originals, workers))
            print(engines[-1], flush=True)
        for landmarks, size in ((k, size) for k, of in sizes.items() for size in of):
            row, peak = in_new_process(fit_svm, folder, size, originals, landmarks)
            svms.append({"images": size, "landmarks": landmarks, "peak_mb": peak} | row)
            print(svms[-1], flush=True)
    return {"engines": engines, "svm": svms}


def engines_table(rows: list[Row]) -> str:
    """Markdown: a line a size and engine."""
    local = {row["images"]: row["seconds"] for row in rows if row["engine"] == "local"}
    return results.markdown(
        {
            "images": f"{row['images']:,}",
            "engine": row["engine"],
            "seconds": f"{row['seconds']:.1f}",
            "times local": f"{row['seconds'] / local[row['images']]:.2f}",
            "MB, client": f"{row['client_mb']:,.0f}",
            "MB, each worker": f"{max(row['worker_mb']):,.0f}" if row["worker_mb"] else "–",
            "accuracy": f"{row['accuracy']:.4f}",
        }
        for row in rows
    )


def svm_table(rows: list[Row]) -> str:
    """Markdown: a line a model and size."""
    return results.markdown(
        {
            "SVM": f"{row['landmarks']:,} landmarks" if row["landmarks"] else "exact",
            "images": f"{row['images']:,}",
            "seconds": f"{row['seconds']:,.1f}",
            "MB": f"{row['peak_mb']:,.0f}",
            "accuracy": f"{row['accuracy']:.4f}",
        }
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    quick, train = parser.parse_args().quick, published(idx.TRAIN_FILES)
    if quick:
        some = stratified(train.labels, 6_000, SEED)
        train = Images(train.images[some], train.labels[some], train.class_names)
    result = measure(train, published(idx.TEST_FILES), QUICK_SIZES if quick else SVM_SIZES)
    print(f"\n{engines_table(result['engines'])}\n\n{svm_table(result['svm'])}\n")
    if not quick:
        results.write(RESULT, result)


if __name__ == "__main__":
    run(main)
