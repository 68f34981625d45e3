"""Boost trees in memory; the other engine, on several machines, is boosting_dask.py."""

import json
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import xgboost
from xgboost import XGBClassifier

from stages.console import StageError, progress
from stages.data.arrays import blocks
from stages.params import Xgboost

LOSS = "mlogloss"
EXCLUDED = {
    "components",
    "n_estimators",
    "early_stopping_rounds",
    "engine",
    "scheduler",
    "scores",
}
TRAINING, HELD_OUT = "training", "held_out"


class Subset(NamedTuple):
    """Some of the images. inputs: [n, k] of all; labels: [n]; positions: int [m], ascending."""

    inputs: np.ndarray
    labels: np.ndarray
    positions: np.ndarray

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Inputs, float32 [up to size, k], and labels, one batch in memory at a time."""
        for rows in blocks(len(self.positions), size):
            chosen = self.positions[rows]
            yield self.inputs[chosen], self.labels[chosen]

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """All inputs, float32 [m, k], and labels."""
        return self.inputs[self.positions], self.labels[self.positions]


class Boosted(NamedTuple):
    """losses: log loss by round, of `training` and `held_out` images, if there were any."""

    booster: xgboost.Booster
    losses: dict[str, list[float]]


class AdvanceEachRound(xgboost.callback.TrainingCallback):
    """Advances a progress bar after each boosting round."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_iteration(self, *_: object) -> bool:
        self.advance(1)
        return False  # no early stop


def booster_params(params: Xgboost, classes: int) -> dict[str, Any]:
    """The parameters of xgboost.train."""
    fixed = {"objective": "multi:softprob", "tree_method": "hist", "eval_metric": LOSS}
    return fixed | {"num_class": classes} | params.model_dump(exclude=EXCLUDED)


def boost(images: Subset, params: Xgboost, rounds: int, held_out: Subset | None = None) -> Boosted:
    """Boost at most so many rounds by the engine of the params, showing progress by round.

    The losses of both subsets are recorded; the held-out one stops boosting early.
    """
    if params.engine == "dask":
        from stages.training.boosting_dask import boost_on_dask  # noqa: PLC0415  an optional extra

        return boost_on_dask(images, params, rounds, held_out)
    data = xgboost.QuantileDMatrix(*images.whole(), max_bin=params.max_bin)
    losses: dict[str, dict[str, list[float]]] = {}
    evals = []
    if held_out:
        evals = [(data, TRAINING), (xgboost.DMatrix(*held_out.whole()), HELD_OUT)]
    with progress("boosting", rounds, "rounds") as advance:
        booster = xgboost.train(
            booster_params(params, int(images.labels.max()) + 1),
            data,
            rounds,
            evals=evals,
            early_stopping_rounds=params.early_stopping_rounds if held_out else None,
            evals_result=losses,
            verbose_eval=False,
            callbacks=[AdvanceEachRound(advance)],
        )
    return Boosted(booster, {name: values[LOSS] for name, values in losses.items()})


def as_classifier(booster: xgboost.Booster) -> XGBClassifier:
    """The same trees as an XGBClassifier."""
    booster.set_attr(scikit_learn=json.dumps({"_estimator_type": "classifier"}))
    model = XGBClassifier()
    model.load_model(booster.save_raw())
    return model


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


def check_engine(params: Xgboost) -> None:
    """Raise StageError when the engine is not installed."""
    if params.engine == "dask":
        missing = [name for name in ("dask", "distributed", "pyarrow") if not find_spec(name)]
        if missing:
            raise StageError(
                f"params.yaml: xgboost.engine is dask, but {', '.join(missing)} is not installed; "
                "install it with: pip install -r requirements-dask.txt, or use local"
            )
