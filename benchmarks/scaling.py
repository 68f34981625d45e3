"""Measure preprocessing, XGBoost's engines and the SVM's approximation on up to 960,000 images.

The images are copies of the published ones, shifted and mirrored; those that measure accuracy are
never copied and choose nothing.

Engines: a machine is one core here. 55,000 training images, and 4 and 16 times as many, go through
`preprocess` as a data set of one's own; then each engine boosts 40 rounds: local on one core, Dask
with one and two workers of a core each. Accuracy is that on the other 5,000 training images.

SVM: exact and approximated, each in a process of its own, on components of one map that is fitted
on the published images, and on 10,000 test images. There are no class scores among the features,
since those of an image that their own regression was trained on would tell its label; so accuracies
are lower than those of params.yaml, and compare with each other only.

Run: python -m benchmarks.scaling [--quick], after make dask and dvc repro download; half an hour on
two cores, and 1 GB in the folder for temporary files
Writes benchmarks/engines.json and approximation.json, or with --quick only prints.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from xgboost import Booster

from benchmarks import results
from benchmarks.processes import in_new_process, only_cores, peak_mb
from benchmarks.results import published
from serving.fashion.contract import PIXELS, SIDE
from serving.fashion.model.inputs import read_features
from serving.fashion.model.svm import decisions, pairwise_log_proba
from stages import preprocess, train_sklearn, train_xgboost
from stages.console import run
from stages.data import idx, processed
from stages.data.arrays import map_rows, write_rows
from stages.data.processed import Images
from stages.data.splits import split, stratified
from stages.params import PARAMS, load_params
from stages.training.boosting import Subset
from stages.training.features import features_of, fit_map

ENGINES_RESULT, SVM_RESULT = (Path(f"benchmarks/{n}.json") for n in ("engines", "approximation"))
SEED = 7
TIMES = (1, 4, 16)
HELD_OUT, ROUNDS = 5_000, 40
ENGINES = {"local": 0, "dask, 1 worker": 1, "dask, 2 workers": 2}
SIZES = {  # by the number of landmarks, of which the exact SVM has none
    None: (5_000, 15_000, 60_000, 120_000),
    2_000: (5_000, 15_000, 60_000, 240_000, 960_000),
}
QUICK_SIZES = {None: (2_000, 6_000), 300: (2_000, 6_000, 24_000)}
SHIFT = 2  # pixels at most, in each direction
BLOCK = 10_000  # images at once
_PLACES = range(-SHIFT, SHIFT + 1)
# Down, right, mirrored; the least shifted first, as they are likest to what there is.
CHANGES = sorted(
    product(_PLACES, _PLACES, (False, True)), key=lambda c: (c[0] ** 2 + c[1] ** 2, c[2])
)
Row = dict[str, Any]


def augmented(
    images: np.ndarray, labels: np.ndarray, copies: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the images, uint8 [≤ 10,000, 784], and their labels, copy after copy.

    images: uint8 [n, 784]; copies: 1 to 50. Copy 0 is the images as they are; each other one is
    all of them, shifted and perhaps mirrored alike, and unlike every other copy.
    """
    for change in CHANGES[:copies]:
        for start in range(0, len(images), BLOCK):
            block = slice(start, start + BLOCK)
            yield changed(images[block], *change), labels[block]


def changed(images: np.ndarray, down: int, right: int, mirrored: bool) -> np.ndarray:
    """Images, uint8 [n, 784], mirrored left to right, then shifted; what comes in is black."""
    pictures = images.reshape(-1, SIDE, SIDE)[:, :, :: -1 if mirrored else 1]
    around = np.pad(pictures, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = SHIFT - down, SHIFT - right
    return around[:, top : top + SIDE, left : left + SIDE].reshape(-1, PIXELS)


def write_project(folder: Path, data: Images, held_out: Images, copies: int) -> None:
    """Write a project's params.yaml, and its data set as IDX files."""
    params = load_params().model_dump(mode="json")
    params["download"]["dataset"] = "own"
    params["download"]["own"]["class_names"] = list(data.class_names)
    params["xgboost"] |= {"n_estimators": ROUNDS, "early_stopping_rounds": None}
    (folder / PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")
    parts = list(augmented(data.images, data.labels, copies))
    images, labels = (np.concatenate(of) for of in zip(*parts, strict=True))
    every, raw = Images(images, labels, data.class_names), folder / idx.RAW
    idx.write_idx(raw / idx.TRAIN_FILES[0], raw / idx.TRAIN_FILES[1], every, level=1)
    idx.write_idx(raw / idx.TEST_FILES[0], raw / idx.TEST_FILES[1], held_out)


def run_preprocess(folder: Path) -> float:
    """Run the stage; seconds."""
    os.chdir(folder)
    start = time.perf_counter()
    preprocess.main()
    return time.perf_counter() - start


def boost(folder: Path, engine: str, scheduler: str | None) -> tuple[float, Booster]:
    """Boost with an engine; seconds without the start of anything, and the trees."""
    os.chdir(folder)
    changes = {"engine": engine, "scheduler": scheduler}
    params = load_params().xgboost.model_copy(update=changes)
    labels, features = map_rows(processed.TRAIN_LABELS), map_rows(processed.TRAIN_FEATURES)
    subset = Subset(features[:, : params.components], labels, np.arange(len(labels)))
    start = time.perf_counter()
    boosted = train_xgboost.boost(subset, params, params.n_estimators)
    return time.perf_counter() - start, boosted.booster


def measure(folder: Path, workers: int) -> Row:
    """Boost in a process of its own, with so many workers of Dask, or locally with none.

    client_mb is without pages of files, worker_mb with those of libraries.
    """
    peaks: dict[str, float] = {}
    engine: tuple[str, str | None] = "local", None
    with only_cores(max(workers, 1)), ExitStack() as stack:
        if workers:
            from distributed import Client, LocalCluster  # noqa: PLC0415  an optional extra

            options = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            engine = "dask", cluster.scheduler_address
        (seconds, booster), peak = in_new_process(boost, folder, *engine)
        if workers:
            peaks = client.run(peak_mb)
    test = processed.read_npz(folder / processed.TEST)
    inputs = read_features(folder / processed.FEATURES)(test.images)
    model = train_xgboost.as_classifier(booster)
    right = model.predict(inputs[:, : model.n_features_in_]) == test.labels
    accuracy, worker_mb = float(right.mean()), list(peaks.values())
    return {"seconds": seconds, "client_mb": peak, "accuracy": accuracy, "worker_mb": worker_mb}


def measure_engines(data: Images, quick: bool) -> Row:
    """Preprocessing by size, and boosting by size and engine."""
    rest, chosen = split(data.labels, HELD_OUT, seed=SEED)
    rest = rest[::10] if quick else rest
    train, held_out = (
        Images(data.images[p], data.labels[p], data.class_names) for p in (rest, chosen)
    )
    preprocessing, rows = [], []
    for times in TIMES:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="data") as scratch:
            folder, size = Path(scratch).resolve(), {"images": times * len(rest)}
            write_project(folder, train, held_out, times)
            seconds, peak = in_new_process(run_preprocess, folder)
            preprocessing.append(size | {"seconds": seconds, "peak_mb": peak})
            print(preprocessing[-1], flush=True)
            for engine, workers in ENGINES.items():
                rows.append(size | {"engine": engine} | measure(folder, workers))
                print(rows[-1], flush=True)
    return {"rounds": ROUNDS, "preprocess": preprocessing, "boosting": rows}


def preprocess_table(rows: list[Row]) -> str:
    """Markdown: a line a size."""
    return results.markdown(
        "| images | `preprocess`, seconds | MB |",
        ([f"{r['images']:,}", f"{r['seconds']:.0f}", f"{r['peak_mb']:,.0f}"] for r in rows),
    )


def engines_table(rows: list[Row]) -> str:
    """Markdown: a line a size and engine."""
    local = {row["images"]: row["seconds"] for row in rows if row["engine"] == "local"}
    return results.markdown(
        "| images | engine | seconds | times local | MB, client | MB, each worker | accuracy |",
        (
            [
                *(f"{row['images']:,}", row["engine"], f"{row['seconds']:.1f}"),
                *(f"{row['seconds'] / local[row['images']]:.2f}", f"{row['client_mb']:,.0f}"),
                f"{max(row['worker_mb']):,.0f}" if row["worker_mb"] else "–",
                f"{row['accuracy']:.4f}",
            ]
            for row in rows
        ),
    )


def write_features(folder: Path, train: Images, test: Images, copies: int) -> None:
    """Write features and labels of the images and their copies, and of the test images."""
    fitted = fit_map(train.images, load_params().features)
    parts = (
        part
        for images, _ in augmented(train.images, train.labels, copies)
        for part in features_of(images, fitted)
    )
    write_rows(folder / "features.npy", len(train.labels) * copies, parts)
    np.save(folder / "labels.npy", np.tile(train.labels, copies))
    np.save(folder / "test.npy", fitted(test.images))
    np.save(folder / "test_labels.npy", test.labels)


def fit_svm(folder: Path, size: int, originals: int, landmarks: int | None) -> Row:
    """Train on so many images of a folder; seconds, and accuracy."""
    features, labels = map_rows(folder / "features.npy"), np.load(folder / "labels.npy")
    rows = stratified(labels[:originals], size, SEED) if size < originals else slice(size)
    chosen = features[rows] if landmarks else np.array(features[rows])
    section = load_params().svm.model_copy(update={"approximation": landmarks})
    start = time.perf_counter()
    model = train_sklearn.train(chosen, labels[rows], section)
    seconds = time.perf_counter() - start
    decide = decisions(model)
    blocks = np.array_split(np.load(folder / "test.npy"), 40)
    scores = pairwise_log_proba(np.concatenate([decide(block) for block in blocks]), 1.0)
    right = scores.argmax(axis=1) == np.load(folder / "test_labels.npy")
    return {"seconds": seconds, "accuracy": float(right.mean())}


def measure_svm(train: Images, quick: bool) -> Row:
    """The exact SVM and its approximation, by the number of images."""
    sizes = QUICK_SIZES if quick else SIZES
    if quick:
        some = stratified(train.labels, 6_000, SEED)
        train = Images(train.images[some], train.labels[some], train.class_names)
    originals, most = len(train.labels), max(max(of) for of in sizes.values())
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        write_features(folder, train, published(idx.TEST_FILES), most // originals)
        for landmarks, size in ((k, size) for k, of in sizes.items() for size in of):
            row, peak = in_new_process(fit_svm, folder, size, originals, landmarks)
            rows.append({"images": size, "landmarks": landmarks, "peak_mb": peak} | row)
            print(rows[-1], flush=True)
    return {"rows": rows}


def svm_table(rows: list[Row]) -> str:
    """A Markdown table: a line a number of images; of each model, seconds, MB and accuracy."""
    kinds = list(dict.fromkeys(row["landmarks"] for row in rows))
    heads = (f"{f'{kind:,} landmarks' if kind else 'exact'}, s | MB | accuracy" for kind in kinds)
    cells = {
        (r["images"], r["landmarks"]): (
            *(f"{r['seconds']:,.1f}", f"{r['peak_mb']:,.0f}", f"{r['accuracy']:.4f}"),
        )
        for r in rows
    }
    none = ("–", "–", "–")
    return results.markdown(
        f"| images | {' | '.join(heads)} |",
        (
            [f"{size:,}", *(cell for kind in kinds for cell in cells.get((size, kind), none))]
            for size in sorted({row["images"] for row in rows})
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    quick, train = parser.parse_args().quick, published(idx.TRAIN_FILES)
    engines = measure_engines(train, quick)
    print(f"\n{preprocess_table(engines['preprocess'])}\n\n{engines_table(engines['boosting'])}\n")
    if not quick:
        results.write(ENGINES_RESULT, engines)
    svm = measure_svm(train, quick)
    print(f"\n{svm_table(svm['rows'])}\n")
    if not quick:
        results.write(SVM_RESULT, svm)


if __name__ == "__main__":
    run(main)
