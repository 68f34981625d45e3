"""The health check: each packaged model's own readiness.  Run: pytest tests/test_health.py"""

import shutil
import sys
from pathlib import Path

import pytest
from scratch import ROOT, edit_json, run
from wire import MODELS

from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server, free_ports


def check(repository: Path | str, port: object, expect: int) -> str:
    command = (sys.executable, "-m", "serving.health", str(repository))
    return run(ROOT, *command, expect=expect, MLSERVER_HTTP_PORT=str(port))


@pytest.fixture
def port(server: Server) -> str:
    return server.rest.rpartition(":")[2]


def test_a_server_of_all_models_is_healthy(repository: Path, port: str):
    assert check(repository, port, expect=0) == ""


def test_a_model_that_is_not_served_is_named(own_repository: Path, port: str):
    folder = own_repository / "models/fashion-xgboost"
    shutil.copytree(folder / "v1", folder / "v2")
    edit_json(folder / "v2" / MODEL_SETTINGS, lambda s: s["parameters"].update(version="v2"))
    said = check(own_repository, port, expect=1)
    assert said == "error: fashion-xgboost v2 is not ready: HTTP 404\n"


def test_a_server_that_does_not_answer_is_told_in_one_line(repository: Path):
    (port,) = free_ports(1)
    said = check(repository, port, expect=1)
    assert said.count("\n") == 1
    for name in MODELS:
        assert f"{name} v1: no answer from port {port}: " in said


def test_a_repository_without_models_is_told_in_one_line(tmp_path: Path):
    said = check(tmp_path, 1, expect=1)
    assert said == f"error: {tmp_path}: no model packaged; package them with: dvc repro\n"


def test_it_needs_nothing_but_python(repository: Path, port: str):
    command = (sys.executable, "-I", "-S", "-c")
    program = f"import sys; sys.path.insert(0, '{ROOT}'); sys.argv = ['', '{repository}']; "
    run(
        ROOT,
        *command,
        program + "import serving.health; serving.health.main()",
        MLSERVER_HTTP_PORT=port,
    )
