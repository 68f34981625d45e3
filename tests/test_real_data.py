"""The pipeline on 2,000 images of the real data set.  Run: DEEP=1 pytest tests/test_real_data.py"""

from pathlib import Path

from scratch import FULL_SIZE, REAL_DATA, deep, make_project, needs_real_data, run

from stages.evaluation.plots import METRICS, read_metrics

pytestmark = [deep, needs_real_data]


def test_two_thousand_real_images_train_two_good_models(tmp_path: Path):
    folder = make_project(
        tmp_path,
        "download.dataset=fashion-mnist",
        "preprocess.train_limit=2000",
        "preprocess.validation=2000",
        *FULL_SIZE,
        "scores.landmarks=1000",
        "xgboost.n_estimators=20",
        "evaluate.min_accuracy=0.7",
    )
    run(folder, "dvc", "repro", FASHION_MNIST_SOURCE=str(REAL_DATA))
    result = read_metrics(folder / METRICS)
    assert {model["images"] for model in result.values()} == {2_000}
    assert result["fashion-sklearn"]["accuracy"] > 0.86
    assert result["fashion-xgboost"]["accuracy"] > 0.82
