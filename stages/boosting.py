"""Boost trees in memory, or on batches from disk; both give a Booster and its losses.

The third engine, on several machines, is stages/boosting_dask.py.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xgboost

from stages.params import Xgboost
from stages.progress import progress
from stages.rows import Rows, blocks

BATCH = 20_000  # images that are handed over at once, where not all are
LOSS = "mlogloss"
OWN = {"columns", "n_estimators", "early_stopping_rounds", "engine", "scheduler"}  # not XGBoost's
TRAINING, HELD_OUT = "training", "held_out"


class Part(NamedTuple):
    """Some of the images. features: [n, k], of which leading columns count; labels: [n].

    positions: of the images, int [m], ascending.
    """

    features: Rows
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


Engine = Callable[[Part, Xgboost, int, Part | None], Boosted]


class AdvanceEachRound(xgboost.callback.TrainingCallback):
    """Tell a progress bar of each boosting round."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def after_iteration(self, *_: object) -> bool:
        """Never ask for an early stop."""
        self.advance(1)
        return False


class Batches(xgboost.DataIter):
    """Gives XGBoost one batch after the other, as often as it asks; it keeps them in files."""

    def __init__(self, part: Part, folder: str) -> None:
        self._part, self._batches = part, part.batches(BATCH)
        super().__init__(cache_prefix=str(Path(folder, "batches")))

    def next(self, input_data: Callable[..., object]) -> bool:
        """Hand over a batch, or return False after the last one."""
        for inputs, labels in self._batches:
            input_data(data=inputs, label=labels)
            return True
        return False

    def reset(self) -> None:
        """Begin anew."""
        self._batches = self._part.batches(BATCH)


def booster_params(params: Xgboost, classes: int) -> dict[str, Any]:
    """What XGBoost calls the parameters of its training."""
    fixed = {"objective": "multi:softprob", "tree_method": "hist", "eval_metric": LOSS}
    return fixed | {"num_class": classes} | params.model_dump(exclude=OWN)


def boost_in_memory(part: Part, params: Xgboost, rounds: int, held_out: Part | None) -> Boosted:
    """Boost at most so many rounds, showing progress by round.

    The losses of both parts are followed, and that of those held out stops the boosting early.
    """
    data = xgboost.QuantileDMatrix(*part.whole(), max_bin=params.max_bin)
    return _boost(data, part, params, rounds, held_out)


def boost_from_disk(part: Part, params: Xgboost, rounds: int, held_out: Part | None) -> Boosted:
    """The same; of the images that train, a batch is in memory at once."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".part-") as folder:
        batches = Batches(part, folder)
        # Named here, the matrix would outlive the folder, which has its files.
        return _boost(
            xgboost.ExtMemQuantileDMatrix(batches, max_bin=params.max_bin),
            *(part, params, rounds, held_out),
        )


def _boost(
    data: xgboost.DMatrix, part: Part, params: Xgboost, rounds: int, held_out: Part | None
) -> Boosted:
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
