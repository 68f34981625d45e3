"""GitHub's comparison of a change with its base is DVC's.  Run: DEEP=1 pytest tests/test_ci.py"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from scratch import ROOT, deep, install, run

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
STEPS = WORKFLOW["jobs"]["pipeline"]["steps"]


def script(name: str) -> str:
    """The commands of a step of the pipeline's job."""
    (step,) = [step for step in STEPS if step.get("name") == name]
    return str(step["run"])


@deep
def test_a_change_is_compared_with_its_base_as_the_workflow_does(trained: Path, tmp_path: Path):
    project = install(Path(shutil.copytree(trained, tmp_path / "project")))
    params = project / "params.yaml"
    text = params.read_text("utf-8").replace("  C: 5", "  C: 0.01")
    params.write_text(text.replace("min_accuracy: 0.8", "min_accuracy: 0.1"), "utf-8")
    author = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    run(project, "git", *author, "commit", "-qam", "Try another C")
    variables = {
        "GITHUB_SHA": run(project, "git", "rev-parse", "HEAD").strip(),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GIT_CONFIG_GLOBAL": os.devnull,  # a runner knows no author
        "SMALL": "",  # the data set of the tests already is
    }
    for name in ("Run it", "Run the base branch's", "Compare them"):
        run(project, "bash", "-e", "-c", script(name), expect=0, **variables)

    comment = (project / "comment.md").read_text("utf-8")
    assert comment.startswith("## proposed beside base\n\n### Parameters\n")
    assert re.search(r"(?m)^\| params\.yaml +\| svm\.C +\| 5 +\| 0\.01 +\|$", comment)
    change = r"\| fashion-sklearn\.accuracy +\| (0\.\d+) +\| (0\.\d+) +\| -0\.\d+ +\|"
    ((before, after),) = re.findall(change, comment)
    assert float(after) < float(before)
    assert "fashion-xgboost.accuracy" not in comment
    assert "fashion-sklearn, images by" in (project / "dvc_plots/index.html").read_text("utf-8")
    assert "fashion-sklearn.accuracy" in (tmp_path / "summary.md").read_text("utf-8")


def test_where_nothing_differs_the_comparison_says_so(trained: Path):
    output = run(trained, ".ci/diff", "HEAD", "HEAD")
    assert output.count("Nothing differs.") == 2
