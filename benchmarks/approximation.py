"""Measure where the exact SVM ends, and how its approximation goes on, by the number of images.

Each model trains in a process of its own, on the published training images or on shifted and
mirrored copies of them too (augmented.py), and predicts the 10,000 test images, which are never
copied and choose nothing. All see the same features: components of a map that is fitted on the
published images and applied to their copies. There are no class scores among them, since those of
an image that their own regression was trained on would tell its label; so accuracies are lower
than those of params.yaml, and compare with each other only.

Run: python -m benchmarks.approximation [--quick], after dvc repro download; about 15 minutes on two
cores, and 1 GB in the folder for temporary files.
Writes benchmarks/approximation.json, or with --quick only prints.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.augmented import augmented, published
from benchmarks.processes import in_new_process
from serving.fashion.model.svm import decisions, pairwise_log_proba
from stages import train_sklearn
from stages.console import run
from stages.data.arrays import map_rows, write_rows
from stages.data.idx import TEST_FILES, TRAIN_FILES
from stages.data.processed import Images
from stages.data.splits import stratified
from stages.params import load_params
from stages.training.features import features_of, fit_map

RESULT = Path("benchmarks/approximation.json")
SIZES = {  # by the number of landmarks, of which the exact SVM has none
    None: (5_000, 15_000, 60_000, 120_000),
    2_000: (5_000, 15_000, 60_000, 240_000, 960_000),
}
QUICK_SIZES = {None: (2_000, 6_000), 300: (2_000, 6_000, 24_000)}
SEED = 7
Row = dict[str, Any]


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


def fit(folder: Path, size: int, originals: int, landmarks: int | None) -> Row:
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


def table(rows: list[Row]) -> str:
    """A Markdown table: a line a number of images; of each model, seconds, MB and accuracy."""
    kinds = list(dict.fromkeys(row["landmarks"] for row in rows))
    heads = (f"{f'{kind:,} landmarks' if kind else 'exact'}, s | MB | accuracy" for kind in kinds)
    found = {(row["images"], row["landmarks"]): _cells(row) for row in rows}
    none = ("–", "–", "–")
    return results.markdown(
        f"| images | {' | '.join(heads)} |",
        (
            [f"{size:,}", *(cell for kind in kinds for cell in found.get((size, kind), none))]
            for size in sorted({row["images"] for row in rows})
        ),
    )


def _cells(row: Row) -> tuple[str, str, str]:
    return f"{row['seconds']:,.1f}", f"{row['peak_mb']:,.0f}", f"{row['accuracy']:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="24,000 images at most")
    quick = parser.parse_args().quick
    train, test = published(TRAIN_FILES), published(TEST_FILES)
    sizes = QUICK_SIZES if quick else SIZES
    if quick:
        some = stratified(train.labels, 6_000, SEED)
        train = Images(train.images[some], train.labels[some], train.class_names)
    originals, most = len(train.labels), max(max(of) for of in sizes.values())
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        write_features(folder, train, test, most // originals)
        for landmarks, of in sizes.items():
            for size in of:
                row, peak = in_new_process(fit, folder, size, originals, landmarks)
                rows.append({"images": size, "landmarks": landmarks, "peak_mb": peak} | row)
                print(rows[-1], flush=True)
    print(f"\n{table(rows)}\n")
    if not quick:
        results.write(RESULT, {"rows": rows})


if __name__ == "__main__":
    run(main)
