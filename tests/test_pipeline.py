"""Real DVC runs the six stages against a real MLServer.  Run: pytest tests/test_pipeline.py

The tests share one project on digits and leave it as they found it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from processes import servers_of, wait_until
from scratch import ROOT, commit, deep, edit_text, environment, run, stages_run

import stages.package
import stages.preprocess
from serving.fashion.packaged import models_in
from stages import KERNELS, SAME_KERNELS
from stages.console import StageError
from stages.evaluation.plots import METRICS, read_metrics

STAGES = [*yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]]


@pytest.fixture(scope="module")
def project(module_project: Path) -> Path:
    return module_project


def test_the_six_stages_make_models_that_predict_well_and_a_second_run_runs_nothing(project: Path):
    result = read_metrics(project / METRICS)
    assert list(result) == [model.name for model in models_in(project / "serving")]
    assert {model["images"] for model in result.values()} == {300}
    assert result["fashion-sklearn"]["accuracy"] > 0.97
    assert result["fashion-xgboost"]["accuracy"] > 0.85
    assert stages_run(run(project, "dvc", "repro")) == []
    assert run(project, "git", "status", "--short") == ""


def test_the_lock_holds_each_stage_and_no_path_of_this_machine(project: Path):
    text = (project / "dvc.lock").read_text("utf-8")
    assert sorted(yaml.safe_load(text)["stages"]) == sorted(STAGES)
    assert str(project) not in text
    for path in [*project.glob("metrics/**/*.*"), *project.glob("serving/models/**/*.json")]:
        assert str(project).encode() not in path.read_bytes(), path


@deep
@pytest.mark.skipif(not shutil.which("taskset"), reason="no taskset: apt-get install util-linux")
def test_on_one_core_the_same_bytes_come(project: Path):
    command = ("taskset", "-c", "0", "dvc", "repro", "--force", "train_sklearn", "train_xgboost")
    assert stages_run(run(project, *command, OMP_NUM_THREADS="3")) == STAGES[:4]
    assert run(project, "git", "diff", "--stat") == ""


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str, str], None]:
    """Runs the stage in a project, with an earlier version of a revision next to v10."""

    def package(project: Path, earlier: str, revision: str) -> None:
        changes = [f"++package.previous.{earlier}='{revision}'", "package.version=v10"]
        apply_overrides(str(project / "params.yaml"), changes)
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, "argv", ["stages.package", "models/sklearn", "models/xgboost"])
        stages.package.main()

    return package


def test_an_earlier_version_that_is_none_is_reported_in_one_line(
    project: Path, package: Callable[[Path, str, str], None]
):
    here = run(project, "git", "rev-parse", "HEAD").strip()
    for revision, words in [
        ("nowhere", "; expected a git revision of this repository"),
        ("0" * 40, "; expected a git revision of this repository"),
        (here, ", which packaged no v9 in serving/models; expected the revision"),
    ]:
        expected = f"params.yaml: package.previous.v9 is {revision}{words}"
        with pytest.raises(StageError, match=f"^{re.escape(expected)}.*$"):
            package(project, "v9", revision)
        run(project, "git", "checkout", "--quiet", ".")


def test_an_earlier_version_is_found_where_the_project_is_a_subfolder_and_reported_where_lost(
    trained: Path, tmp_path: Path, package: Callable[[Path, str, str], None]
):
    project = Path(shutil.copytree(trained, tmp_path / "project"))
    (project / ".git").rename(tmp_path / ".git")
    revision = commit(tmp_path, "a")
    package(project, "v1", revision)
    found = {(model.name, model.version) for model in models_in(project / "serving")}
    names = ("fashion-sklearn", "fashion-xgboost")
    assert found == {(name, version) for name in names for version in ("v1", "v10")}

    shutil.rmtree(project / ".dvc/cache")
    expected = f"params.yaml: package.previous.v1 is {revision}; expected its files in DVC's cache"
    with pytest.raises(StageError, match=f"^{re.escape(expected)} or remote, .*$"):
        package(project, "v1", revision)


def test_a_wrong_parameter_fails_in_one_line_and_git_and_dvc_bring_everything_back(project: Path):
    before = read_metrics(project / METRICS)
    output = run(project, "dvc", "exp", "run", "-S", "svm.C=ten", expect=255)
    assert 'error: params.yaml: svm.C is "ten"; expected a valid number' in output
    assert "Traceback" not in output
    assert "fitted in" not in output
    assert read_metrics(project / METRICS) == before
    assert run(project, "git", "status", "--short", "metrics") == ""
    run(project, "git", "checkout", "--quiet", ".")
    run(project, "dvc", "checkout", "--quiet")


def test_the_documented_recovery_restores_a_file_that_git_takes_for_unchanged(project: Path):
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    (command,) = re.findall(r"(?m)^\$ (rm -r metrics .*)$", page)
    path = project / "metrics/expected.yml"
    good = path.read_text("utf-8")
    os.utime(path, (1e9, 1e9))
    run(project, "git", "config", "core.trustctime", "false")
    assert run(project, "git", "status", "--short") == ""  # which notes that time
    path.write_text(good[::-1], "utf-8")
    os.utime(path, (1e9, 1e9))
    assert run(project, "git", "status", "--short") == ""

    run(project, "bash", "-c", command)
    assert path.read_text("utf-8") == good
    assert (project / "metrics/plots/recall.csv").exists()
    assert run(project, "git", "status", "--short") == ""


def test_a_damaged_raw_file_is_reported_and_repaired(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    path = project / "data/raw/train-images-idx3-ubyte.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-10])
    monkeypatch.chdir(project)
    with pytest.raises(StageError, match=f"^{path.relative_to(project)}: damaged gzip file"):
        stages.preprocess.main()
    assert stages_run(run(project, "dvc", "repro", "download")) == ["download"]
    assert path.read_bytes() == good


def test_a_parameter_that_is_changed_back_trains_nothing_again(project: Path):
    params = project / "params.yaml"
    edit_text(params, ("max_depth: 6", "max_depth: 3"))
    assert stages_run(run(project, "dvc", "repro", "train_xgboost")) == ["train_xgboost"]
    edit_text(params, ("max_depth: 3", "max_depth: 6"))
    output = run(project, "dvc", "repro", "train_xgboost")
    assert "Stage 'train_xgboost' is cached" in output
    assert stages_run(output) == []
    assert run(project, "git", "status", "--short") == ""


def test_an_evaluate_that_is_interrupted_leaves_the_metrics_and_no_server(
    project: Path, tmp_path: Path
):
    stage = subprocess.Popen(
        ["python", "-m", "stages.evaluate"],
        cwd=project,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with stage:
        wait_until(lambda: servers_of(project / "serving"), "a server that was started")
        if SAME_KERNELS:
            assert servers_of(project / "serving")[0].environ().items() >= KERNELS.items()
        stage.send_signal(signal.SIGINT)
    wait_until(lambda: not servers_of(project / "serving"), "the end of the server")
    assert run(project, "git", "status", "--short", "metrics") == ""
    assert stage.returncode == 128 + signal.SIGINT
    assert not list(tmp_path.iterdir())
