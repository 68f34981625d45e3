"""What `evaluate` recorded of each image, and the mistakes that it shows."""

from pathlib import Path

import pandas as pd

from stages.console import StageError


def read_predictions(path: Path) -> pd.DataFrame:
    """Columns actual, predicted, classes' names, and confidence, probability of the latter.

    A row for each evaluation image, in order. Raises StageError when the file is not there.
    """
    if not path.exists():
        raise StageError(f"{path}: not found; make it with: dvc repro")
    names = {"actual": str, "predicted": str}
    return pd.read_csv(path, dtype=names, keep_default_na=False)


def mistakes(predictions: pd.DataFrame) -> pd.DataFrame:
    """The images that the model is wrong about."""
    return predictions[predictions.actual != predictions.predicted]


def common_mistakes(predictions: pd.DataFrame, count: int) -> list[tuple[str, str, int]]:
    """The most common mistakes: actual class, predicted class, images."""
    images = mistakes(predictions).groupby(["actual", "predicted"], sort=False).size()
    most = images.sort_values(ascending=False, kind="stable")[:count]
    return [(*pair, number) for pair, number in most.items()]


def weakest(predictions: pd.DataFrame, count: int) -> list[tuple[str, float]]:
    """The classes that are recognised least, each with its recall."""
    correct = predictions.actual == predictions.predicted
    recall = correct.groupby(predictions.actual).mean().sort_values(kind="stable")
    return list(recall[:count].items())
