"""One model, or three, are measured and compared as two are.

Run: pytest tests/test_number_of_models.py
"""

import re
from pathlib import Path

import pytest
from scratch import deep, edit_text, package_as, run

from stages.evaluation.plots import METRICS, PREDICTIONS, read_metrics


@deep
@pytest.mark.parametrize("names", [["a", "fashion-xgboost", "z"], ["a"]])
def test_so_many_models_are_measured_shown_and_reported(project: Path, names: list[str]):
    before = read_metrics(project / METRICS)["fashion-xgboost"]
    predictions = (project / PREDICTIONS / "fashion-xgboost.csv").read_bytes()
    package_as(project, names)
    changes = ("batch_size: 1000", "batch_size: 37"), ("min_accuracy: 0.8", "min_accuracy: 1.0")
    edit_text(project / "params.yaml", *changes)

    failed = run(project, "python", "-m", "stages.evaluate", expect=1)
    assert failed.count("expected at least 1 (params.yaml: evaluate.min_accuracy)") == len(names)
    assert read_metrics(project / METRICS) == dict.fromkeys(names, before)  # the gate comes after
    for name in names:
        assert (project / PREDICTIONS / f"{name}.csv").read_bytes() == predictions

    run(project, "dvc", "commit", "--force", "package", "evaluate")
    shown = run(project, "dvc", "metrics", "show").splitlines()[1:]
    assert [line.split()[0] for line in shown] == [f"metrics/models/{name}.json" for name in names]
    page = run(project, "dvc", "plots", "show").strip().removeprefix("file://")
    plotted = r"metrics/(?:predictions|plots/mistakes)/([\w-]+)\."
    assert set(re.findall(plotted, Path(page).read_text("utf-8"))) == {*names}

    run(project, "python", "-m", "report")
    report = (project / "report.html").read_text("utf-8")
    assert {name for name in names if f">{name}<" in report} == {*names}
