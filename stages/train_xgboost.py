"""Train the boosted trees.

Reads   data/processed/train_labels.npy, train_features.npy, features.npz
Writes  models/xgboost              model.json, an XGBClassifier on class scores and the leading
                                    features; features.npz; scores.npz, the map from features to
                                    class scores; training.json, how it was trained and is served
        metrics/training_curve.csv  log loss by boosting round, of held-out images too
Params  xgboost, calibration, threads
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.train_xgboost")

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

# Idle threads of GNU OpenMP spin for long by default, which makes training many times slower when
# something else runs, a second experiment for instance. Read when XGBoost is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
import numpy as np
import xgboost
from scipy.special import log_softmax
from xgboost import XGBClassifier

from serving.fashion.contract import SCORES_FILE
from serving.fashion.model.scores import ScoreArrays
from stages.console import run
from stages.data.arrays import atomic_write, map_rows, write_npz
from stages.data.processed import TRAIN_FEATURES, TRAIN_LABELS
from stages.params import Calibration, Xgboost, load_params
from stages.training.boosting import Subset, as_classifier, boost, check_device, check_engine
from stages.training.calibration import fit_temperature, hold_out
from stages.training.class_scores import fit_class_scores
from stages.training.saved import by_xgboost, save_model
from stages.training.threads import fix_threads

FOLDER, SERVED = Path("models/xgboost"), by_xgboost("fashion-xgboost")
CURVE = Path("metrics/training_curve.csv")
BATCH = 100  # images to check a saved model with


class Trained(NamedTuple):
    """Trees and what goes with them. losses: of the trial model, by round; see Boosted."""

    model: XGBClassifier
    temperature: float
    losses: dict[str, list[float]]


def calibrate(trial: xgboost.Booster, rounds: int, held_out: Subset) -> float:
    """The temperature of a trial model of so many rounds, fitted on held-out images."""
    inputs, labels = held_out.whole()
    margins = trial.predict(
        xgboost.DMatrix(inputs), output_margin=True, iteration_range=(0, rounds)
    ).astype(np.float64)
    return fit_temperature(lambda t: log_softmax(margins / t, axis=1), labels)


def tree_inputs(
    features: np.ndarray, labels: np.ndarray, params: Xgboost
) -> tuple[np.ndarray, ScoreArrays | None]:
    """The trees' inputs for training images, and the map to the class scores, if there are any.

    features: float32 [n, k]; labels: [n]; returns float32 [n, classes + components].
    """
    leading = features[:, : params.components]
    if params.scores.landmarks is None:
        return np.ascontiguousarray(leading), None
    fitted = fit_class_scores(features, labels, params.scores)
    return np.hstack([fitted.out_of_fold, leading]), fitted.arrays


def fit(
    inputs: np.ndarray, labels: np.ndarray, params: Xgboost, calibration: Calibration
) -> Trained:
    """Fit on float32 [n, k] inputs with labels [n].

    A trial model, without the held-out images, sets the number of rounds and the temperature.
    """
    positions = np.arange(len(labels)), *hold_out(labels, calibration)
    every, rest, held_out = (Subset(inputs, labels, p) for p in positions)
    trial, losses = boost(rest, params, params.n_estimators, held_out)
    rounds = trial.num_boosted_rounds()
    if params.early_stopping_rounds:
        rounds = trial.best_iteration + 1  # after which the held-out loss was least
    temperature = calibrate(trial, rounds, held_out)
    model = as_classifier(boost(every, params, rounds).booster)
    return Trained(model, temperature, losses)


def save(
    folder: Path,
    trained: Trained,
    scores: ScoreArrays | None,
    params: Xgboost,
    rows: np.ndarray,
    **more: Any,
) -> None:
    """Write what `package` takes; see save_model."""
    public = params.model_copy(update={"scheduler": None})  # a host, which changes no tree
    more |= {"temperature": trained.temperature}
    save_model(folder, SERVED, trained.model, public, rows, **more)
    if scores:
        write_npz(folder / SCORES_FILE, scores)


def write_curve(path: Path, losses: dict[str, list[float]]) -> None:
    """Write round, from 1, and log loss, of training and held-out images, as CSV."""
    rounds = range(1, len(next(iter(losses.values()))) + 1)
    table, form = np.column_stack([rounds, *losses.values()]), ["%d", *["%.6f"] * len(losses)]
    header = ",".join(["round", *losses])
    with atomic_write(path) as tmp:
        np.savetxt(tmp, table, form, ",", newline="\r\n", header=header, comments="")


def main() -> None:
    params, labels = load_params(), map_rows(TRAIN_LABELS)
    fix_threads(params.threads)
    check_device(params.xgboost.device)
    check_engine(params.xgboost)
    print(f"XGBoost {xgboost.__version__} on {len(labels):,} images", flush=True)
    start = time.monotonic()
    inputs, scores = tree_inputs(map_rows(TRAIN_FEATURES), labels, params.xgboost)
    trained = fit(inputs, labels, params.xgboost, params.calibration)
    rounds = trained.model.get_booster().num_boosted_rounds()
    print(f"fitted in {time.monotonic() - start:.0f} s: {rounds} rounds", flush=True)
    save(FOLDER, trained, scores, params.xgboost, inputs[:BATCH])
    write_curve(CURVE, trained.losses)


if __name__ == "__main__":
    run(main)
