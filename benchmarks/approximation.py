"""Measure where the exact SVM ends, and how its approximation goes on, by the number of images.

Each model trains in a process of its own, on the published training images or on shifted and
mirrored copies of them too (augmented.py), and labels the 10,000 test images, which are never
copied and choose nothing. All see the same features: components of a map that is fitted on the
published images and applied to their copies. There are no class scores among them, since those of
an image that their own regression was trained on would tell its label; so accuracies are lower
than those of params.yaml, and compare with each other only.

Run: python -m benchmarks.approximation [--quick] [--landmarks M ...], after dvc repro download;
about 15 minutes on two cores, and 1 GB in the folder for temporary files.
Writes benchmarks/approximation.json, or with --quick only prints.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.augmented import augmented
from benchmarks.conditions import conditions
from serving.fashion.contract import CLASS_NAMES
from serving.fashion.model.features import FeatureMap
from serving.fashion.model.svm import decisions, pairwise_log_proba
from stages import train_sklearn
from stages.dataset import RAW, TEST_FILES, TRAIN_FILES, Images, read_idx
from stages.errors import StageError, run
from stages.features import components, fit_components
from stages.params import load_params
from stages.rows import write_rows
from stages.split import stratified

RESULT = Path("benchmarks/approximation.json")
SIZES = (5_000, 15_000, 60_000, 240_000, 960_000)
EXACT_SIZES = (5_000, 15_000, 60_000, 120_000)
QUICK_SIZES, QUICK_EXACT, QUICK_LANDMARKS = (2_000, 6_000, 24_000), (2_000, 6_000), (300,)
LANDMARKS = (2_000,)
LIMIT_S = 600  # of a training
SEED = 7
POLL_S, MB = 0.1, 1e6

Row = dict[str, Any]


def write_features(folder: Path, train: Images, test: Images, copies: int) -> None:
    """Write features and labels of the images and their copies, and of the test images."""
    fitted = fit_components(train.images, load_params().features)
    parts = (
        part
        for images, _ in augmented(train.images, train.labels, copies)
        for part in components(images, fitted)
    )
    write_rows(folder / "features.npy", len(train.labels) * copies, parts)
    np.save(folder / "labels.npy", np.tile(train.labels, copies))
    np.save(folder / "test.npy", FeatureMap(fitted)(test.images))
    np.save(folder / "test_labels.npy", test.labels)


def fit(folder: Path, size: int, originals: int, landmarks: int | None) -> Row:
    """Train on so many images of a folder, in this process; seconds, and accuracy."""
    features, labels = (
        np.load(folder / "features.npy", mmap_mode="r"),
        np.load(folder / "labels.npy"),
    )
    rows = stratified(labels[:originals], size, SEED) if size < originals else slice(size)
    chosen = features[rows] if landmarks else np.array(features[rows])
    section = load_params().svm.model_copy(update={"approximation": landmarks})
    start = time.perf_counter()
    model = train_sklearn.train(chosen, labels[rows], section)
    seconds = time.perf_counter() - start
    test_features = np.load(folder / "test.npy")
    decide = decisions(model)
    decided = np.concatenate([decide(block) for block in np.array_split(test_features, 40)])
    right = pairwise_log_proba(decided, 1.0).argmax(axis=1) == np.load(folder / "test_labels.npy")
    return {"seconds": seconds, "accuracy": float(right.mean())}


def measure(folder: Path, size: int, originals: int, landmarks: int | None) -> Row:
    """The same in a process of its own, and the most memory it took, beside what it reads.

    seconds is null where the limit was reached. Raises StageError when the process fails.
    """
    given = [str(folder), str(size), str(originals), str(landmarks or 0)]
    command = [sys.executable, "-m", "benchmarks.approximation", "--fit", *given]
    peak, start = 0.0, time.perf_counter()
    with (
        (folder / "said").open("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        watched = psutil.Process(process.pid)
        while process.poll() is None and time.perf_counter() - start < LIMIT_S:
            peak = max(peak, _memory_mb(watched))
            time.sleep(POLL_S)
        ended = process.poll() is not None
        process.kill()
    row: Row = {"images": size, "landmarks": landmarks, "peak_mb": peak}
    if not ended:
        return row | {"seconds": None, "accuracy": None}
    lines = (folder / "said").read_text(encoding="utf-8").splitlines()
    if process.returncode:
        raise StageError(f"{size:,} images, {landmarks} landmarks: {lines[-1]}")
    return row | json.loads(lines[-1])


def _memory_mb(process: psutil.Process) -> float:
    """Without the pages of files, which the system takes back when it needs them."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return (memory.rss - memory.shared) / MB


def table(rows: list[Row]) -> str:
    """A Markdown table: a line a number of images; of each model, seconds, MB and accuracy."""
    kinds = list(dict.fromkeys(row["landmarks"] for row in rows))
    names = [f"{kind:,} landmarks" if kind else "exact" for kind in kinds]
    head = " | ".join(f"{name}, s | MB | accuracy" for name in names)
    lines = [f"| images | {head} |", "|---" * (1 + 3 * len(kinds)) + "|"]
    for size in sorted({row["images"] or 0 for row in rows}):
        found = {row["landmarks"]: row for row in rows if row["images"] == size}
        cells = " | ".join(_cells(found.get(kind)) for kind in kinds)
        lines.append(f"| {size:,} | {cells} |")
    return "\n".join(lines)


def _cells(row: Row | None) -> str:
    if row is None:
        return "– | – | –"
    if row["seconds"] is None:
        return f"over {LIMIT_S} | {row['peak_mb']:,.0f} | –"
    return f"{row['seconds']:,.1f} | {row['peak_mb']:,.0f} | {row['accuracy']:.4f}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZES[-1]:,} images at most")
    parser.add_argument("--landmarks", type=int, nargs="+", help="of the approximations")
    parser.add_argument("--fit", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = parsed()
    if given.fit:
        size, count, landmarks = map(int, given.fit[1:])
        print(json.dumps(fit(Path(given.fit[0]), size, count, landmarks or None)))
        return
    names = CLASS_NAMES["fashion-mnist"]
    train, test = (
        read_idx(RAW / images, RAW / labels, names) for images, labels in (TRAIN_FILES, TEST_FILES)
    )
    sizes = QUICK_SIZES if given.quick else SIZES
    exact = QUICK_EXACT if given.quick else EXACT_SIZES
    kinds = given.landmarks or (QUICK_LANDMARKS if given.quick else LANDMARKS)
    if given.quick:
        some = stratified(train.labels, QUICK_EXACT[-1], SEED)
        train = Images(train.images[some], train.labels[some], names)
    originals = len(train.labels)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        start = time.perf_counter()
        write_features(Path(scratch), train, test, sizes[-1] // originals)
        print(f"features of {sizes[-1]:,} images: {time.perf_counter() - start:.0f} s", flush=True)
        for size, kind in [(s, None) for s in exact] + [(s, m) for m in kinds for s in sizes]:
            rows.append(measure(Path(scratch), size, originals, kind))
            name = f"{kind:,} landmarks" if kind else "exact"
            print(f"{size:,} images, {name}; s, MB, accuracy: {_cells(rows[-1])}", flush=True)
    print(f"\n{table(rows)}\n")
    if given.quick:
        return
    result = conditions("benchmarks.approximation") | {"limit_s": LIMIT_S, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{RESULT} written")


if __name__ == "__main__":
    run(main)
