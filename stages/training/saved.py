"""Write a trained model as `package` takes it: a folder with how it is served."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from xgboost import XGBClassifier

from serving.fashion.contract import FEATURES_FILE, TRAINING_FILE
from stages.data.arrays import atomic_write
from stages.data.processed import FEATURES
from stages.data.strict_yaml import Section

ALWAYS = "numpy", "opencv-python-headless"  # that serving needs


class Served(NamedTuple):
    """How a model is served."""

    name: str  # in URLs
    file: str  # .joblib of scikit-learn, or .json of XGBoost
    runtime: str  # of fashion.runtimes
    library: str  # that loads the file


def by_scikit_learn(name: str) -> Served:
    """How any classifier of scikit-learn that has predict_proba is served by that name."""
    return Served(name, "model.joblib", "fashion.runtimes.ScikitLearnModel", "scikit-learn")


def by_xgboost(name: str) -> Served:
    """How any XGBClassifier is served by that name."""
    return Served(name, "model.json", "fashion.runtimes.XgboostModel", "xgboost")


def save_model(
    folder: Path,
    served: Served,
    model: Any,
    params: Section,
    rows: np.ndarray,
    *,
    temperature: float = 1.0,
    engine: str | None = None,
    features: Path | None = FEATURES,
) -> None:
    """Write a model, reload it and check its labels of a few rows, [n, k], of its inputs.

    params: what it was trained with, part of the served metadata; temperature: divides
    the logarithms of its probabilities (calibration.py); engine: what trained it, if not the
    library; features: the map from pixels to its inputs, or None for a model of pixels. Raises
    RuntimeError when the reloaded model labels rows differently.
    """
    with atomic_write(folder / served.file) as tmp:
        if isinstance(model, XGBClassifier):
            model.save_model(tmp)
            reloaded = XGBClassifier()
            reloaded.load_model(tmp)
        else:
            joblib.dump(model, tmp)
            reloaded = joblib.load(tmp)
        if not np.array_equal(reloaded.predict(rows), model.predict(rows)):
            raise RuntimeError(f"{folder / served.file}: reloaded, it labels rows differently")
    if features:
        shutil.copyfile(features, folder / FEATURES_FILE)
    content = {
        "served": served._asdict(),
        "temperature": temperature,
        "engine": engine or f"{served.library} {version(served.library)}",
        "parameters": params.model_dump(),
        "libraries": {name: version(name) for name in sorted([*ALWAYS, served.library])},
    }
    with atomic_write(folder / TRAINING_FILE) as tmp:
        tmp.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
