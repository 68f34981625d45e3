"""Servers as KServe and Seldon Core 2 start them.  Run: pytest tests/test_clusters.py"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from processes import await_ready, is_ready, ready, started
from scratch import ROOT, deep, slow
from tritonclient.grpc import service_pb2 as pb
from wire import MODELS, OK, body, infer, offline, service, tensor

from serving.fashion.contract import LABELS
from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server


def manifest(name: str) -> dict[str, Any]:
    """One of deploy/, but for what kustomization.yaml sets."""
    return yaml.safe_load((ROOT / "deploy" / name).read_text("utf-8"))


def variables(container: dict[str, Any]) -> dict[str, str]:
    """A container's, but for the ports: a test has to take free ones."""
    return {v["name"]: v["value"] for v in container["env"] if not v["name"].endswith("_PORT")}


Check = Callable[[Server, str, str], None]


@pytest.fixture
def check_labels(repository: Path, images: np.ndarray) -> Check:
    """Holds the labels of a served model, over all protocols, against the offline ones."""

    def check(server: Server, model: str, served_as: str) -> None:
        expected = offline(repository, model, images[:20])[LABELS].tolist()
        for protocol in ("rest", "grpc", "raw"):
            response = infer(server, protocol, served_as, body(tensor(images[:20])))
            assert response.status == OK, response
            assert response.outputs[LABELS] == expected

    return check


@deep
def test_the_whole_repository_is_served_under_the_variables_that_kserve_sets(
    repository: Path, tmp_path: Path, check_labels: Check
):
    mounted = Path(shutil.copytree(repository, tmp_path / "mnt/models"))
    kserve = {
        "MLSERVER_MODEL_NAME": "fashion",
        "MLSERVER_MODEL_URI": str(mounted),
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_sklearn.SKLearnModel",
    }
    with ready(mounted, tmp_path, **kserve) as server:
        for model in MODELS:
            check_labels(server, model, model)
        service = manifest("kserve/fashion.yaml")
        probe = service["spec"]["predictor"]["model"]["readinessProbe"]["httpGet"]
        assert requests.get(server.rest + probe["path"], timeout=60).status_code == OK


@pytest.mark.parametrize("model", [MODELS[0], slow(MODELS[1])])
def test_a_model_alone_is_served_as_its_service_says(
    repository: Path, tmp_path: Path, check_labels: Check, model: str
):
    """The folder of one version is mounted; code and settings are the image's."""
    described = manifest(f"kserve/{model}.yaml")["spec"]["predictor"]["model"]
    runtime = manifest("kserve/runtime.yaml")
    assert described["storageUri"] == f"STORAGE/models/{model}/VERSION"
    mounted = Path(shutil.copytree(repository / f"models/{model}/v1", tmp_path / "mnt/models"))
    kserve = variables(runtime["spec"]["containers"][0]) | {
        "MLSERVER_MODEL_NAME": model,
        "MLSERVER_MODEL_URI": str(mounted),
        "PYTHONPATH": str(repository),
    }
    with started(mounted, tmp_path, **kserve) as server:
        ready = server.rest + described["readinessProbe"]["httpGet"]["path"]
        await_ready(server, model)
        assert requests.get(ready, timeout=60).status_code == OK
        check_labels(server, model, model)
        wrong = infer(server, "rest", model, body(tensor([300] * 784, [1, 784])))
        assert wrong.error.startswith("expected pixel values from 0 to 255, got 300")
        assert requests.post(
            f"{server.rest}/v2/repository/models/{model}/unload", timeout=60
        ).status_code == (requests.codes.forbidden)


def as_go_writes_it(number: str) -> float:
    """All numbers are floats to Go, which writes them without a point if they are whole."""
    return int(float(number)) if float(number).is_integer() else float(number)


def copy_as_agent(source: Path, agents: Path, model: str) -> None:
    """Copy a model as Seldon's agent does: by another name, its settings written by Go."""
    path = Path(shutil.copytree(source, agents / model / "1")) / MODEL_SETTINGS
    settings = json.loads(path.read_text("utf-8"), parse_float=as_go_writes_it)
    kept = ("implementation", "inputs", "outputs", "platform", "versions", "parameters")
    settings = {"name": model} | {key: settings[key] for key in kept}
    settings["parameters"]["version"] = "1"
    path.write_text(json.dumps(settings, sort_keys=True), "utf-8")


def test_models_are_loaded_and_unloaded_as_seldons_agent_does(
    repository: Path, tmp_path: Path, check_labels: Check
):
    agents = tmp_path / "mnt/agent/models"
    agents.mkdir(parents=True)
    container = manifest("seldon/server.yaml")["spec"]["podSpec"]["containers"][0]
    seldon = variables(container) | {
        "MLSERVER_LOAD_MODELS_AT_STARTUP": "false",
        "PYTHONPATH": str(repository),
    }
    names = {model: f"{model}_1" for model in MODELS}
    with started(agents, tmp_path, **seldon) as server, service(server) as agent:
        agent.ServerLive(pb.ServerLiveRequest(), timeout=60, wait_for_ready=True)
        assert not agent.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=60).models
        for model, served in names.items():
            copy_as_agent(repository / f"models/{model}/v1", agents, served)
            agent.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=served), timeout=60)
            check_labels(server, model, served)
        assert is_ready(server)

        first, second = names.values()
        agent.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=first), timeout=60)
        assert not is_ready(server, first)
        check_labels(server, MODELS[1], second)
