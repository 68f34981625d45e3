"""Boost trees in memory; the other engine, on several machines, is boosting_dask.py."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xgboost

from stages.console import progress
from stages.data.arrays import blocks
from stages.params import Xgboost

BATCH = 20_000  # images that are read, or sent to a worker, at once
LOSS = "mlogloss"
NOT_OF_XGBOOST = {"columns", "n_estimators", "early_stopping_rounds", "engine", "scheduler"}
TRAINING, HELD_OUT = "training", "held_out"


class Subset(NamedTuple):
    """Some of the images. features: [n, k], of which leading columns count; labels: [n].

    positions: of the images, int [m], ascending.
    """

    features: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    columns: int

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Inputs, float32 [up to size, columns], and labels, one batch in memory at a time."""
        for rows in blocks(len(self.positions), size):
            chosen = self.positions[rows]
            yield (
                np.ascontiguousarray(self.features[chosen][:, : self.columns]),
                self.labels[chosen],
            )

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """All inputs, float32 [m, columns], and labels."""
        inputs, labels = zip(*self.batches(BATCH), strict=True)
        return np.concatenate(inputs), np.concatenate(labels)


class Boosted(NamedTuple):
    """losses: log loss by round, of `training` and `held_out` images, where these were given."""

    booster: xgboost.Booster
    losses: dict[str, list[float]]


class AdvanceEachRound(xgboost.callback.TrainingCallback):
    """Tell a progress bar of each boosting round."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_iteration(self, *_: object) -> bool:
        """Never ask for an early stop."""
        self.advance(1)
        return False


def booster_params(params: Xgboost, classes: int) -> dict[str, Any]:
    """What XGBoost calls the parameters of its training."""
    fixed = {"objective": "multi:softprob", "tree_method": "hist", "eval_metric": LOSS}
    return fixed | {"num_class": classes} | params.model_dump(exclude=NOT_OF_XGBOOST)


def boost_in_memory(part: Subset, params: Xgboost, rounds: int, held_out: Subset | None) -> Boosted:
    """Boost at most so many rounds, showing progress by round.

    The losses of both parts are followed, and that of those held out stops the boosting early.
    """
    data = xgboost.QuantileDMatrix(*part.whole(), max_bin=params.max_bin)
    losses: dict[str, dict[str, list[float]]] = {}
    followed = (
        [(data, TRAINING), (xgboost.DMatrix(*held_out.whole()), HELD_OUT)] if held_out else []
    )
    with progress("boosting", rounds, "rounds") as advance:
        booster = xgboost.train(
            booster_params(params, int(part.labels.max()) + 1),
            data,
            rounds,
            evals=followed,
            early_stopping_rounds=params.early_stopping_rounds if held_out else None,
            evals_result=losses,
            verbose_eval=False,
            callbacks=[AdvanceEachRound(advance)],
        )
    return Boosted(booster, {name: values[LOSS] for name, values in losses.items()})
