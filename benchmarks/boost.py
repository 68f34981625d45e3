"""Boost with one engine in a process of its own, for benchmarks/engines.py.

Run: python -m benchmarks.boost ENGINE SCHEDULER WORKERS, in a project that is preprocessed
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from serving.fashion.model.features import FeatureMap, read_features
from stages import dataset, train_xgboost
from stages.boosting import Part
from stages.errors import run
from stages.params import load_params


def main() -> None:
    engine, scheduler, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if workers:
        from distributed import Client  # noqa: PLC0415  an optional extra

        with Client(scheduler) as client:
            client.wait_for_workers(workers)
    changes = {"engine": engine, "scheduler": None if scheduler == "null" else scheduler}
    params = load_params().xgboost.model_copy(update=changes)
    labels = dataset.read_train_labels()
    part = Part(dataset.read_features(), labels, np.arange(len(labels)), params.columns)
    start = time.perf_counter()
    boosted = train_xgboost.boost(part, params, params.n_estimators)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    test = dataset.read_npz(dataset.TEST)
    inputs = FeatureMap(read_features(dataset.FEATURES))(test.images)[:, : params.columns]
    predicted = train_xgboost.as_classifier(boosted.booster).predict(inputs)
    accuracy = float((predicted == test.labels).mean())
    print(json.dumps({"seconds": seconds, "client_mb": peak_mb, "accuracy": accuracy}))


if __name__ == "__main__":
    run(main)
