"""GitHub's comparison of a change with its base is DVC's.  Run: DEEP=1 pytest tests/test_ci.py"""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from scratch import ROOT, commit, deep, edit_text, install, run

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
STEPS = WORKFLOW["jobs"]["pipeline"]["steps"]


def script(name: str) -> str:
    """The commands of a step of the pipeline's job."""
    (step,) = [step for step in STEPS if step.get("name") == name]
    return str(step["run"])


@deep
def test_a_change_is_compared_with_its_base_as_the_workflow_does(project: Path, tmp_path: Path):
    install(project)
    changes = ("  C: 5", "  C: 0.01"), ("min_accuracy: 0.8", "min_accuracy: 0.1")
    edit_text(project / "params.yaml", *changes)
    revision = commit(project, "Try another C")
    run(project, "git", "config", "--remove-section", "user")
    variables = {
        "GITHUB_SHA": revision,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GIT_CONFIG_GLOBAL": os.devnull,  # a runner knows no author
        "SMALL": "",  # the data set of the tests already is
    }
    for name in ("Run it", "Run the base branch's", "Compare them"):
        run(project, "bash", "-e", "-c", script(name), expect=0, **variables)

    comment = (project / "comment.md").read_text("utf-8")
    assert comment.startswith("## proposed compared with base\n\n### Parameters\n")
    assert re.search(r"(?m)^\| params\.yaml +\| svm\.C +\| 5 +\| 0\.01 +\|$", comment)
    change = r"fashion-sklearn\.json +\| accuracy +\| (0\.\d+) +\| (0\.\d+) +\| -0\.\d+ +\|"
    ((before, after),) = re.findall(change, comment)
    assert float(after) < float(before)
    assert "fashion-xgboost.json" not in comment
    page = (project / "dvc_plots/index.html").read_text("utf-8")
    assert "metrics/predictions/fashion-sklearn.csv" in page
    assert "fashion-sklearn.json" in (tmp_path / "summary.md").read_text("utf-8")


def test_where_nothing_differs_the_comparison_says_so(trained: Path):
    output = run(trained, ".ci/diff", "HEAD", "HEAD")
    assert output.count("Nothing differs.") == 2
