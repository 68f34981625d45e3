"""Train the boosted trees.

Reads   data/processed/train.npz
Writes  models/xgboost/model.json       an XGBClassifier
        metrics/training_curve.csv      log loss on the training images, by boosting round
Params  xgboost.*
"""

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.atomic import replacing
from stages.dataset import PROCESSED, read_npz
from stages.errors import run
from stages.params import Xgboost, load_params
from stages.progress import progress

# Idle threads of GNU OpenMP spin for long by default, which makes training many times slower when
# something else runs, a second experiment for instance. Read when XGBoost is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
import xgboost
from xgboost import XGBClassifier

MODEL, CURVE = Path("models/xgboost/model.json"), Path("metrics/training_curve.csv")
BATCH = 100  # images to check a saved model with
LOSS = "mlogloss"


class AdvanceEachRound(xgboost.callback.TrainingCallback):
    """Tell a progress bar of each boosting round."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_iteration(self, *_: object) -> bool:
        """Never ask for an early stop."""
        self.advance(1)
        return False


def train(images: np.ndarray, labels: np.ndarray, params: Xgboost) -> XGBClassifier:
    """Fit on uint8 [n, 784] images with labels [n], showing progress by boosting round."""
    values = params.model_dump()
    with progress("boosting", params.n_estimators, "rounds") as advance:
        model = XGBClassifier(
            tree_method="hist",
            random_state=values.pop("seed"),
            eval_metric=LOSS,
            callbacks=[AdvanceEachRound(advance)],
            **values,
        )
        return model.fit(images, labels, eval_set=[(images, labels)], verbose=False)


def save(path: Path, model: XGBClassifier, batch: np.ndarray) -> None:
    """Write the model, reload it, and check that both label a batch, uint8 [n, 784], alike."""
    with replacing(path) as part:
        model.save_model(part)
        reloaded = XGBClassifier()
        reloaded.load_model(part)
        if not np.array_equal(reloaded.predict(batch), model.predict(batch)):
            raise RuntimeError(f"{path}: reloaded, it labels images differently")


def write_curve(path: Path, model: XGBClassifier) -> None:
    """Write round, from 1, and log loss, as CSV."""
    curve = model.evals_result()["validation_0"][LOSS]
    with replacing(path) as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["round", "log_loss"])
        table.writerows((number, f"{loss:.6f}") for number, loss in enumerate(curve, 1))


def main() -> None:
    params, data = load_params().xgboost, read_npz(PROCESSED / "train.npz")
    print(f"XGBoost {xgboost.__version__} on {len(data.labels):,} images", flush=True)
    start = time.monotonic()
    model = train(data.images, data.labels, params)
    print(f"fitted in {time.monotonic() - start:.0f} s: {params.n_estimators} rounds", flush=True)
    save(MODEL, model, data.images[:BATCH])
    write_curve(CURVE, model)


if __name__ == "__main__":
    run(main)
