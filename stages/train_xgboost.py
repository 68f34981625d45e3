"""Train the boosted trees.

Reads   data/processed/train_labels.npy, train_features.npy
Writes  models/xgboost/model.json           an XGBClassifier, on the leading features
        models/xgboost/training.json        temperature, parameters, versions of libraries
        metrics/training_curve.csv          log loss by boosting round, of held-out images too
Params  xgboost, scores.landmarks, calibration, threads
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.train_xgboost")

import csv
import os
import time
from pathlib import Path
from typing import NamedTuple

# Idle threads of GNU OpenMP spin for long by default, which makes training many times slower when
# something else runs, a second experiment for instance. Read when XGBoost is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
import numpy as np
import xgboost
from scipy.special import log_softmax
from xgboost import XGBClassifier

from stages.console import run
from stages.data.arrays import atomic_write, map_rows
from stages.data.idx import TRAIN_FEATURES, TRAIN_LABELS
from stages.data.splits import split
from stages.params import Params, Xgboost, load_params
from stages.training.boosting import (
    HELD_OUT,
    TRAINING,
    Boosted,
    Subset,
    as_classifier,
    boost,
    check_device,
    check_engine,
)
from stages.training.calibration import fit_temperature, held_out_size, write_training
from stages.training.threads import fix_threads

FOLDER, MODEL = Path("models/xgboost"), "model.json"
LIBRARIES = ("numpy", "opencv-python-headless", "xgboost")  # that serving needs
CURVE = Path("metrics/training_curve.csv")
BATCH = 100  # images to check a saved model with


class Trained(NamedTuple):
    """Trees and what goes with them. losses: of the trial model, by round; see Boosted."""

    model: XGBClassifier
    temperature: float
    losses: dict[str, list[float]]


def best_rounds(trial: Boosted, params: Xgboost) -> int:
    """After how many rounds the held-out log loss was least, or all where nothing could stop it."""
    every: int = trial.booster.num_boosted_rounds()
    return trial.booster.best_iteration + 1 if params.early_stopping_rounds else every


def calibrate(trial: Boosted, rounds: int, held_out: Subset) -> float:
    """The temperature of a trial model of so many rounds, fitted on images it has not seen."""
    inputs, labels = held_out.whole()
    margins = trial.booster.predict(
        xgboost.DMatrix(inputs), output_margin=True, iteration_range=(0, rounds)
    ).astype(np.float64)
    return fit_temperature(lambda t: log_softmax(margins / t, axis=1), labels)


def columns_seen(labels: np.ndarray, params: Params) -> int:
    """How many leading features the trees see: scores of all classes, if any, and components."""
    scores = int(labels.max()) + 1 if params.scores.landmarks else 0
    return scores + params.xgboost.components


def fit(features: np.ndarray, labels: np.ndarray, params: Params) -> Trained:
    """Fit on the leading ones of float32 [n, k] features, with labels [n].

    A trial model, without the held-out images, tells how many rounds to boost and how sure to be.
    """
    start = time.monotonic()
    section = params.xgboost
    size = held_out_size(len(labels), params.calibration.held_out)
    positions = np.arange(len(labels)), *split(labels, size, params.calibration.seed)
    columns = columns_seen(labels, params)
    every, rest, held_out = (Subset(features, labels, p, columns) for p in positions)
    trial = boost(rest, section, section.n_estimators, held_out)
    rounds = best_rounds(trial, section)
    temperature = calibrate(trial, rounds, held_out)
    model = as_classifier(boost(every, section, rounds).booster)
    print(f"fitted in {time.monotonic() - start:.0f} s: {rounds} rounds", flush=True)
    return Trained(model, temperature, trial.losses)


def save(folder: Path, trained: Trained, params: Xgboost, features: np.ndarray) -> None:
    """Write what serving needs, reload the model, check that it labels float32 [n, k] alike."""
    batch = features[:, : trained.model.n_features_in_]
    with atomic_write(folder / MODEL) as part:
        trained.model.save_model(part)
        reloaded = XGBClassifier()
        reloaded.load_model(part)
        if not np.array_equal(reloaded.predict(batch), trained.model.predict(batch)):
            raise RuntimeError(f"{folder / MODEL}: reloaded, it labels images differently")
    engine = f"xgboost {xgboost.__version__}"
    public = params.model_copy(update={"scheduler": None})  # a host, which changes no tree
    write_training(folder, trained.temperature, engine, public, LIBRARIES)


def write_curve(path: Path, losses: dict[str, list[float]]) -> None:
    """Write round, from 1, and log loss, of training and held-out images, as CSV."""
    with atomic_write(path) as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["round", TRAINING, HELD_OUT])
        pairs = zip(losses[TRAINING], losses[HELD_OUT], strict=True)
        for number, pair in enumerate(pairs, 1):
            table.writerow([number, *(f"{loss:.6f}" for loss in pair)])


def main() -> None:
    params, labels = load_params(), map_rows(TRAIN_LABELS)
    fix_threads(params.threads)
    check_device(params.xgboost.device)
    check_engine(params.xgboost)
    print(f"XGBoost {xgboost.__version__} on {len(labels):,} images", flush=True)
    features = map_rows(TRAIN_FEATURES)
    trained = fit(features, labels, params)
    save(FOLDER, trained, params.xgboost, features[:BATCH])
    write_curve(CURVE, trained.losses)


if __name__ == "__main__":
    run(main)
