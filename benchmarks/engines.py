"""Measure preprocessing and XGBoost's engines on 1, 4 and 16 times the training images.

A machine is one core here. Copies of 55,000 training images, shifted and mirrored, go through
`preprocess` as a data set of one's own; then each engine boosts 40 rounds: local on one core, Dask
with one and two workers of a core each. Accuracy is that on the other 5,000 training images.

Run: python -m benchmarks.engines [--quick], after make dask and dvc repro download
Writes benchmarks/engines.json, or with --quick, on 5,500 images, only prints.
"""

import argparse
import logging
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from xgboost import Booster

from benchmarks import results
from benchmarks.augmented import augmented, published
from benchmarks.processes import in_new_process, only_cores, peak_mb
from serving.fashion.model.inputs import read_features
from stages import preprocess, train_xgboost
from stages.console import run
from stages.data import idx, processed
from stages.data.arrays import map_rows
from stages.data.splits import split
from stages.params import PARAMS, load_params
from stages.training.boosting import Subset

RESULT = Path("benchmarks/engines.json")
TIMES = (1, 4, 16)
HELD_OUT, ROUNDS = 5_000, 40
ENGINES = {"local": 0, "dask, 1 worker": 1, "dask, 2 workers": 2}
Row = dict[str, Any]


def write_project(
    folder: Path, data: processed.Images, held_out: processed.Images, copies: int
) -> None:
    """Write a project's params.yaml, and its data set as IDX files."""
    params = load_params().model_dump(mode="json")
    params["download"]["dataset"] = "own"
    params["download"]["own"]["class_names"] = list(data.class_names)
    params["xgboost"] |= {"n_estimators": ROUNDS, "early_stopping_rounds": None}
    (folder / PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")
    parts = list(augmented(data.images, data.labels, copies))
    images, labels = (np.concatenate(of) for of in zip(*parts, strict=True))
    every, raw = processed.Images(images, labels, data.class_names), folder / idx.RAW
    idx.write_idx(raw / idx.TRAIN_FILES[0], raw / idx.TRAIN_FILES[1], every, level=1)
    idx.write_idx(raw / idx.TEST_FILES[0], raw / idx.TEST_FILES[1], held_out)


def run_preprocess(folder: Path) -> Row:
    """Run the stage; seconds."""
    os.chdir(folder)
    start = time.perf_counter()
    preprocess.main()
    return {"seconds": time.perf_counter() - start}


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
    with only_cores(max(workers, 1)), ExitStack() as stack:
        if workers:
            from distributed import Client, LocalCluster  # noqa: PLC0415  an optional extra

            options = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            engine = "dask", cluster.scheduler_address
        else:
            engine = "local", None
        (seconds, booster), peak = in_new_process(boost, folder, *engine)
        if workers:
            peaks = client.run(peak_mb)
    test = processed.read_npz(folder / processed.TEST)
    inputs = read_features(folder / processed.FEATURES)(test.images)
    model = train_xgboost.as_classifier(booster)
    predicted = model.predict(inputs[:, : model.n_features_in_])
    return {
        "seconds": seconds,
        "client_mb": peak,
        "accuracy": float((predicted == test.labels).mean()),
        "worker_mb": list(peaks.values()),
    }


def preprocess_table(rows: list[Row]) -> str:
    """Markdown: a line a size."""
    return results.markdown(
        "| images | `preprocess`, seconds | MB |",
        ([f"{r['images']:,}", f"{r['seconds']:.0f}", f"{r['peak_mb']:,.0f}"] for r in rows),
    )


def table(rows: list[Row]) -> str:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    quick = parser.parse_args().quick
    data = published(idx.TRAIN_FILES)
    rest, chosen = split(data.labels, HELD_OUT, seed=7)
    rest = rest[::10] if quick else rest
    train, held_out = (
        processed.Images(data.images[p], data.labels[p], data.class_names) for p in (rest, chosen)
    )
    preprocessing, rows = [], []
    for times in TIMES:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="data") as scratch:
            folder, size = Path(scratch).resolve(), {"images": times * len(rest)}
            write_project(folder, train, held_out, times)
            row, peak = in_new_process(run_preprocess, folder)
            preprocessing.append(size | row | {"peak_mb": peak})
            print(preprocessing[-1], flush=True)
            for engine, workers in ENGINES.items():
                rows.append(size | {"engine": engine} | measure(folder, workers))
                print(rows[-1], flush=True)
    print(f"\n{preprocess_table(preprocessing)}\n\n{table(rows)}\n")
    if not quick:
        measured = {"rounds": ROUNDS, "preprocess": preprocessing, "boosting": rows}
        results.write(RESULT, measured)


if __name__ == "__main__":
    run(main)
