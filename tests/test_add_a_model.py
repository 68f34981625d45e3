"""docs/add-a-model.md, word for word, on digits.  Run: pytest tests/test_add_a_model.py

The tests go through one project, from the model's addition to its removal.
"""

import contextlib
import re
from pathlib import Path

import pytest
from scratch import ROOT, commit, edit_text, files_in, run, stages_run

from report import __main__ as report
from serving.fashion.packaged import models_in
from stages.evaluation.plots import METRICS, read_metrics

PAGE = (ROOT / "docs/add-a-model.md").read_text("utf-8")
OLD, NEW = ["fashion-sklearn", "fashion-xgboost"], "fashion-logistic"


def add_model(project: Path) -> None:
    """Do what the page says."""
    (program,) = re.findall(r"(?s)```python\n(.*?)```", PAGE)
    section, stage, command, dep = re.findall(r"(?s)```yaml\n(.*?)```", PAGE)
    (project / "stages/train_logistic.py").write_text(program, "utf-8")
    params, pipeline = project / "params.yaml", project / "dvc.yaml"
    params.write_text(f"{params.read_text('utf-8')}\n{section}", "utf-8")
    before, package = pipeline.read_text("utf-8").split("  package:", 1)
    package = re.sub(r"    cmd: python -m stages\.package .*\n", command, package, count=1)
    package = package.replace("      - models/xgboost\n", f"      - models/xgboost\n{dep}", 1)
    pipeline.write_text(f"{before}{stage}\n  package:{package}", "utf-8")


@pytest.fixture(scope="module")
def project(module_project: Path) -> Path:
    """One with the model, which is trained, packaged and evaluated."""
    add_model(module_project)
    output = run(module_project, "dvc", "repro")
    assert stages_run(output) == ["train_logistic", "package", "evaluate"]
    commit(module_project, "Add a logistic regression")
    return module_project


def test_a_model_that_is_added_is_measured_over_the_wire_and_shown(project: Path):
    metrics = read_metrics(project / METRICS)
    assert sorted(metrics) == sorted([*OLD, NEW])
    assert metrics[NEW]["accuracy"] > 0.9
    shown = run(project, "dvc", "metrics", "show").splitlines()[1:]
    assert [Path(line.split()[0]).stem for line in shown] == sorted(metrics)
    with contextlib.chdir(project):
        report.main()
    assert NEW in (project / "report.html").read_text("utf-8")


def test_an_experiment_trains_it_alone_and_is_released_next_to_the_previous_version(project: Path):
    packaged = files_in(project / "serving/models/fashion-sklearn/v1")
    earlier, here = run(project, "git", "rev-parse", "HEAD~1", "HEAD").split()
    options = ["logistic.C=0.001", "package.version=v10", f"+package.previous.v1={earlier}"]
    output = run(
        project, "dvc", "exp", "run", "package", *(word for o in options for word in ("-S", o))
    )
    assert stages_run(output) == ["train_logistic", "package"]
    difference = run(project, "git", "diff", "params.yaml").splitlines()
    assert [line for line in difference if "C: " in line] == ["-  C: 1.0", "+  C: 0.001"]
    found = {(model.name, model.version) for model in models_in(project / "serving")}
    assert found == {(NEW, "v10"), *((name, v) for name in OLD for v in ("v1", "v10"))}
    assert files_in(project / "serving/models/fashion-sklearn/v1") == packaged

    commit(project, "Release v10")
    run(project, "git", "revert", "--no-edit", "HEAD")
    run(project, "dvc", "checkout")
    assert {model.version for model in models_in(project / "serving")} == {"v1"}
    assert run(project, "git", "diff", here) == ""
    assert stages_run(run(project, "dvc", "repro")) == []


def test_one_model_that_is_left_is_packaged_evaluated_and_reported_alone(project: Path):
    before = read_metrics(project / METRICS)["fashion-sklearn"]
    pipeline = project / "dvc.yaml"
    stages, package = pipeline.read_text("utf-8").split("  package:", 1)
    package = package.replace(" models/xgboost models/logistic\n", "\n", 1)
    package = re.sub("      - models/(xgboost|logistic)\n", "", package)
    pipeline.write_text(f"{stages}  package:{package}", "utf-8")
    changes = ("batch_size: 1000", "batch_size: 37"), ("min_accuracy: 0.8", "min_accuracy: 1")
    edit_text(project / "params.yaml", *changes)
    output = run(project, "dvc", "repro", expect=255)
    assert stages_run(output) == ["package", "evaluate"]
    assert output.count("expected at least 1 (params.yaml: evaluate.min_accuracy)") == 1
    assert read_metrics(project / METRICS) == {"fashion-sklearn": before}
    with contextlib.chdir(project):
        report.main()
    page = (project / "report.html").read_text("utf-8")
    assert "fashion-sklearn" in page
    assert NEW not in page
