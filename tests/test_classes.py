"""Two classes, and as many as a label's byte has room for, from features to served predictions.

Run: pytest tests/test_classes.py
"""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_repository
from scratch import fit_features, make_params, read_csv, slow

from serving.fashion.contract import PIXELS
from stages import evaluate
from stages.data.arrays import write_npz
from stages.data.processed import PROCESSED, Images
from stages.evaluation.plots import PLOTS, read_metrics
from stages.params import MAX_CLASSES, MIN_CLASSES, Params


def images(classes: int, of_each: int, seed: int) -> Images:
    """Images that anyone could tell apart: a class's pattern, with some noise."""
    patterns = np.random.default_rng(0).integers(0, 256, (classes, PIXELS))
    labels = np.tile(np.arange(classes, dtype=np.uint8), of_each)
    noise = np.random.default_rng(seed).normal(0, 5, (len(labels), PIXELS))
    names = tuple(f"class {label}" for label in range(classes))
    return Images((patterns[labels] + noise).clip(0, 255).astype(np.uint8), labels, names)


@pytest.mark.parametrize("classes", [MIN_CLASSES, slow(MAX_CLASSES)])
def test_so_many_classes_are_trained_packaged_served_and_evaluated(
    classes: int, tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
):
    changes = {
        "calibration": {"held_out": 20},
        "xgboost": {"n_estimators": 8, "min_child_weight": 0.0, "subsample": 1.0},
    }
    params = params.model_copy(
        update={name: getattr(params, name).model_copy(update=v) for name, v in changes.items()}
    )
    train, test = images(classes, max(3, 100 // classes), seed=1), images(classes, 1, seed=2)
    some = np.arange(0, classes, 1 + classes // 10)
    test = Images(test.images[some], test.labels[some], test.class_names)
    fitted = fit_features(train.images, params)
    folder = tmp_path / "project"
    make_repository(folder, (train, test), fitted, params)
    make_params(folder)
    monkeypatch.chdir(folder)
    write_npz(PROCESSED / "test.npz", test)
    evaluate.main()  # by a server, and held against the files; rejects an accuracy below 0.8
    recognised = [row["class"] for row in read_csv(PLOTS / "recall.csv")]
    assert recognised == [test.class_names[label] for label in test.labels] * len(read_metrics())
