"""Train the boosted trees.

Reads   data/processed/train_labels.npy, train_features.npy
Writes  models/xgboost/model.json           an XGBClassifier, on the leading features
        models/xgboost/training.json        temperature, parameters, versions of libraries
        metrics/training_curve.csv          log loss by boosting round, of held-out images too
Params  xgboost, calibration
"""

import csv
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from stages.atomic import replacing
from stages.calibration import fit_temperature, held_out_size, write_training
from stages.dataset import read_features, read_train_labels
from stages.errors import StageError, run
from stages.params import Params, Xgboost, load_params
from stages.progress import progress
from stages.split import split

# Idle threads of GNU OpenMP spin for long by default, which makes training many times slower when
# something else runs, a second experiment for instance. Read when XGBoost is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
import xgboost
from xgboost import XGBClassifier

FOLDER, MODEL = Path("models/xgboost"), "model.json"
LIBRARIES = ("numpy", "opencv-python-headless", "xgboost")  # that serving needs
CURVE = Path("metrics/training_curve.csv")
BATCH = 100  # images to check a saved model with
LOSS = "mlogloss"


class Trained(NamedTuple):
    """Trees and what goes with them. trial: the model that chose rounds and temperature."""

    model: XGBClassifier
    temperature: float
    trial: XGBClassifier


class AdvanceEachRound(xgboost.callback.TrainingCallback):
    """Tell a progress bar of each boosting round."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_iteration(self, *_: object) -> bool:
        """Never ask for an early stop."""
        self.advance(1)
        return False


def check_device(device: str) -> None:
    """Raise StageError when there is no such device; XGBoost itself warns and takes the CPU."""
    with warnings.catch_warnings(action="ignore"):
        data = xgboost.DMatrix(np.zeros((1, 1)), [0])
        config = json.loads(xgboost.train({"device": device}, data, 1).save_config())
    taken = config["learner"]["generic_param"]["device"]
    if not taken.startswith(device):
        built = "" if xgboost.build_info()["USE_CUDA"] else ", and is built without GPU support"
        raise StageError(
            f"params.yaml: xgboost.device is {device}, but XGBoost finds no GPU{built}; "
            "use cpu, or a machine with an NVIDIA GPU and its driver"
        )


def train(
    inputs: np.ndarray,
    labels: np.ndarray,
    params: Xgboost,
    rounds: int,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> XGBClassifier:
    """Fit on float32 [n, k] inputs with labels [n], showing progress by boosting round.

    held_out: inputs and labels; the log loss of both sets is followed, and that of these ones stops
    the boosting early.
    """
    values = params.model_dump(exclude={"columns", "n_estimators", "early_stopping_rounds"})
    with progress("boosting", rounds, "rounds") as advance:
        model = XGBClassifier(
            n_estimators=rounds,
            early_stopping_rounds=params.early_stopping_rounds if held_out else None,
            tree_method="hist",
            random_state=values.pop("seed"),
            eval_metric=LOSS,
            callbacks=[AdvanceEachRound(advance)],
            **values,
        )
        followed = [(inputs, labels), held_out] if held_out else None
        return model.fit(inputs, labels, eval_set=followed, verbose=False)


def best_rounds(trial: XGBClassifier) -> int:
    """After how many rounds the held-out log loss was least, or all where nothing could stop it."""
    every: int = trial.get_booster().num_boosted_rounds()
    return trial.best_iteration + 1 if trial.early_stopping_rounds else every


def calibrate(model: XGBClassifier, inputs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of a trial model, fitted on images that it has not seen.

    inputs: float32 [n, k]; labels: [n].
    """
    margins = model.predict(inputs, output_margin=True).astype(np.float64)
    return fit_temperature(lambda t: log_softmax(margins / t, axis=1), labels)


def fit(features: np.ndarray, labels: np.ndarray, params: Params) -> Trained:
    """Fit on the leading ones of float32 [n, k] features, with labels [n].

    A trial model, without the held-out images, tells how many rounds to boost and how sure to be.
    """
    start = time.monotonic()
    inputs = np.ascontiguousarray(features[:, : params.xgboost.columns])
    size = held_out_size(len(labels), params.calibration.held_out)
    rest, held_out = split(labels, size, params.calibration.seed)
    unseen = (inputs[held_out], labels[held_out])
    rounds = params.xgboost.n_estimators
    trial = train(inputs[rest], labels[rest], params.xgboost, rounds, unseen)
    rounds = best_rounds(trial)
    model = train(inputs, labels, params.xgboost, rounds)
    print(f"fitted in {time.monotonic() - start:.0f} s: {rounds} rounds", flush=True)
    return Trained(model, calibrate(trial, *unseen), trial)


def save(folder: Path, trained: Trained, params: Xgboost, features: np.ndarray) -> None:
    """Write what serving needs, reload the model, check that it labels float32 [n, k] alike."""
    batch = features[:, : trained.model.n_features_in_]
    with replacing(folder / MODEL) as part:
        trained.model.save_model(part)
        reloaded = XGBClassifier()
        reloaded.load_model(part)
        if not np.array_equal(reloaded.predict(batch), trained.model.predict(batch)):
            raise RuntimeError(f"{folder / MODEL}: reloaded, it labels images differently")
    engine = f"xgboost {xgboost.__version__}"
    write_training(folder, trained.temperature, engine, params, LIBRARIES)


def write_curve(path: Path, trial: XGBClassifier) -> None:
    """Write round, from 1, and log loss, of training and held-out images, as CSV."""
    curves = [losses[LOSS] for losses in trial.evals_result().values()]
    with replacing(path) as part, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["round", "training", "held_out"])
        for number, losses in enumerate(zip(*curves, strict=True), 1):
            table.writerow([number, *(f"{loss:.6f}" for loss in losses)])


def main() -> None:
    params, labels = load_params(), read_train_labels()
    check_device(params.xgboost.device)
    print(f"XGBoost {xgboost.__version__} on {len(labels):,} images", flush=True)
    features = read_features()[:]
    trained = fit(features, labels, params)
    save(FOLDER, trained, params.xgboost, features[:BATCH])
    write_curve(CURVE, trained.trial)


if __name__ == "__main__":
    run(main)
