"""docs/your-own-model.md, word for word, on digits.  Run: pytest tests/test_your_own_model.py"""

import json
import re
from pathlib import Path

import pytest
from processes import is_ready
from scratch import ROOT, commit, run

from serving.client import RestClient
from serving.launch import running
from stages.data.processed import TEST, read_npz

PAGE = (ROOT / "docs/your-own-model.md").read_text("utf-8")
NAMES = ["fashion-logistic", "fashion-sklearn", "fashion-xgboost"]


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


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(.*)':", output)


def test_a_model_is_added_served_measured_tried_and_taken_out(project: Path):
    add_model(project)
    earlier = run(project, "git", "rev-parse", "HEAD").strip()
    output = run(project, "dvc", "repro")
    assert stages_run(output) == ["train_logistic", "package", "evaluate"]
    metrics = json.loads(run(project, "dvc", "metrics", "show", "--json"))
    found = {
        Path(name).stem: values["data"]["accuracy"] for name, values in metrics[""]["data"].items()
    }
    assert sorted(found) == NAMES
    assert found["fashion-logistic"] > 0.9
    test = read_npz(project / TEST)
    with running(project / "serving") as server:
        assert is_ready(server)
        labels = RestClient(server.rest).infer("fashion-logistic", test.images)["predict"]
        assert (labels == test.labels).mean() == pytest.approx(found["fashion-logistic"], abs=1e-6)
    run(project, "python", "-m", "report")
    assert "fashion-logistic" in (project / "report.html").read_text("utf-8")

    commit(project, "Add a logistic regression")
    output = run(project, "dvc", "exp", "run", "-S", "logistic.C=0.001")
    assert stages_run(output) == ["train_logistic", "package", "evaluate"]
    difference = run(project, "git", "diff", "params.yaml")
    assert [line for line in difference.splitlines() if re.match(r"[-+] ", line)] == [
        "-  C: 1.0",
        "+  C: 0.001",
    ]

    change = ("-S", "package.version=v2", "-S", f"+package.previous.v1={earlier}")
    run(project, "dvc", "exp", "run", *change)
    assert sorted(
        str(path.relative_to(project / "serving/models"))
        for path in project.glob("serving/models/*/*/")
    ) == ["fashion-logistic/v2", *(f"{name}/{v}" for name in NAMES[1:] for v in ("v1", "v2"))]
    run(project, "git", "checkout", "-q", "params.yaml")

    pipeline = project / "dvc.yaml"
    before, package = pipeline.read_text("utf-8").split("  package:", 1)
    package = package.replace(" models/logistic\n", "\n", 1).replace(
        "      - models/logistic\n", ""
    )
    pipeline.write_text(f"{before}  package:{package}", "utf-8")
    assert set(stages_run(run(project, "dvc", "repro"))) <= {"package", "evaluate"}
    for folder in ("serving/models", "metrics"):
        assert not list((project / folder).rglob("*fashion-logistic*"))
