"""What GitHub runs is what the project has, and its comparison is DVC's.

Run: pytest tests/test_ci.py
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from scratch import ROOT, deep, install, run

from stages.params import Params

WORKFLOW = ROOT / ".github/workflows/ci.yml"
FILES = [WORKFLOW, ROOT / ".github/actions/install/action.yml"]
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def steps(path: Path) -> list[dict[str, Any]]:
    content = yaml.safe_load(path.read_text("utf-8"))
    jobs = [content["runs"]] if "runs" in content else content["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def script(name: str) -> str:
    """The commands of a step of the pipeline's job."""
    (step,) = [step for step in JOBS["pipeline"]["steps"] if step.get("name") == name]
    return str(step["run"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_action_is_here_or_pinned_to_a_major_version(path: Path):
    for action in [step["uses"] for step in steps(path) if "uses" in step]:
        if action.startswith("./"):
            assert (ROOT / action / "action.yml").exists(), action
        else:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", action), action


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_command_is_bash_and_what_it_names_exists(path: Path):
    for commands in [step["run"] for step in steps(path) if "run" in step]:
        subprocess.run(["bash", "-n", "-c", commands], check=True)
        for target in re.findall(r"\bmake (?:--silent )?([a-z./-]+)", commands):
            assert target == ".venv/.installed" or f"\n{target}: " in MAKEFILE, target
        for program in re.findall(r"(?m)^\.ci/\w+", commands):
            assert os.access(ROOT / program, os.X_OK), program


def test_it_needs_no_secret_and_may_write_nothing_but_a_comment():
    text = WORKFLOW.read_text("utf-8")
    assert "secrets." not in text
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert {name: job.get("permissions") for name, job in JOBS.items()} == {
        "test": None,
        "deep": None,
        "pipeline": {"contents": "read", "pull-requests": "write"},
    }
    assert all(job["timeout-minutes"] <= 60 for job in JOBS.values())


def test_it_tests_the_pythons_that_the_project_takes():
    (pythons,) = re.findall(r"(?m)^PYTHONS := (.+)$", MAKEFILE)
    assert JOBS["test"]["strategy"]["matrix"]["python"] == pythons.split("|")


def test_the_parameter_that_it_sets_exists():
    section, key = re.findall(r"(\w+)\.(\w+)=", JOBS["pipeline"]["env"]["SMALL"])[0]
    assert key in Params.model_fields[section].annotation.model_fields  # type: ignore[union-attr]


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
