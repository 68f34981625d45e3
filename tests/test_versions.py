"""Versions side by side, and loading by request.  Run: pytest tests/test_versions.py"""

import re
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import grpc as grpc_module
import numpy as np
import pytest
import requests
from processes import ready, wait_until
from scratch import ROOT, edit_json, set_options
from tritonclient.grpc import service_pb2 as pb
from wire import (
    MODELS,
    OK,
    UNKNOWN,
    body,
    each_model,
    infer_url,
    model_ready,
    post,
    service,
    tensor,
)

from serving.client import GrpcClient, RestClient, connect
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server, running


def copy_as(repository: Path, model: str, name: str, version: str) -> Path:
    """Serve a model's v1 by another name or version, too; its folder."""
    models = repository / "models"
    folder = Path(shutil.copytree(models / model / "v1", models / name / version))
    changed = {"version": version}
    edit_json(
        folder / MODEL_SETTINGS,
        lambda s: s.update(name=name, parameters=s["parameters"] | changed),
    )
    return folder


@pytest.fixture(scope="module")
def versions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of v1, v9, v10 and a broken model, where loading by request is allowed."""
    folder = Path(shutil.copytree(repository, tmp_path_factory.mktemp("versions") / "serving"))
    for model, version in product(MODELS, ("v9", "v10")):
        copy_as(folder, model, model, version)
    broken = copy_as(folder, "fashion-sklearn", "broken", "v1")
    (broken / "model.joblib").write_bytes(b"no model")
    set_options(folder, allow_load=True)
    return folder


@pytest.fixture(scope="module")
def server(versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ready(versions, tmp_path_factory.mktemp("server"), MODELS[0]) as server:
        wait_until(lambda: sum(model_ready(server).values()) == 6, "all but the broken one")
        yield server


def version_of(server: Server, model: str, request: dict[str, Any], version: str = "") -> str:
    """The version that responds to a request, by the URL of a version or the plain one."""
    response = requests.post(infer_url(server, model, version), json=request, timeout=60)
    return str(response.json()["model_version"])


def post_action(server: Server, action: str, model: str = MODELS[0]) -> requests.Response:
    """Load or unload a model."""
    return requests.post(f"{server.rest}/v2/repository/models/{model}/{action}", timeout=60)


@each_model
def test_each_version_has_its_url_and_the_highest_number_the_plain_one(
    server: Server, images: np.ndarray, model: str
):
    request = body(tensor(images[:2]))
    rest, grpc = RestClient(server.rest), GrpcClient(server.grpc)
    assert version_of(server, model, request) == "v10"
    for version in ("v1", "v9", "v10"):
        assert rest.ready(model, version)
        assert grpc.ready(model, version)
        assert version_of(server, model, request, version) == version
    outputs = grpc.infer(model, images[:2], version="v9")
    assert outputs[LABELS].tolist() == post(server, model, request).outputs[LABELS]


def test_a_version_that_is_removed_is_unloaded_by_the_next_load(
    server: Server, versions: Path, images: np.ndarray, tmp_path: Path
):
    request = body(tensor(images[:2]))
    folder = versions / "models/fashion-sklearn/v10"
    shutil.move(folder, tmp_path / "v10")
    assert post_action(server, "load").status_code == OK
    assert post(server, "fashion-sklearn", request, "v10").status == UNKNOWN
    assert version_of(server, "fashion-sklearn", request) == "v9"
    assert ready_in_metrics(server) == {"v1", "v9"}
    assert post_action(server, "unload").status_code == OK
    assert post(server, "fashion-sklearn", request).status == UNKNOWN
    assert post(server, "fashion-xgboost", request).status == OK
    assert ready_in_metrics(server) == set()
    shutil.move(tmp_path / "v10", folder)
    for _ in range(2):
        assert post_action(server, "load").status_code == OK
        assert version_of(server, "fashion-sklearn", request) == "v10"
        assert ready_in_metrics(server) == {"v1", "v9", "v10"}


def ready_in_metrics(server: Server) -> set[str]:
    """The versions of one model that are ready by the metrics."""
    ready = model_ready(server).items()
    return {version for (model, version), v in ready if model == "fashion-sklearn" and v == 1}


def test_a_model_requested_for_that_must_not_be_loaded_is_rejected_and_the_one_before_stays(
    server: Server, versions: Path, images: np.ndarray
):
    request = body(tensor(images[:2]))
    file = versions / "models/fashion-sklearn/v10/model.joblib"
    good = file.read_bytes()
    file.write_bytes(b"no model")
    response = post_action(server, "load")
    assert response.status_code == requests.codes.conflict
    words = "fashion-sklearn is not loaded: .*model.joblib: expected SHA-256 .*package it again"
    assert re.search(words, response.json()["error"])
    request_ = pb.RepositoryModelLoadRequest(model_name="fashion-sklearn")
    with service(server) as methods, pytest.raises(grpc_module.RpcError, match=words) as error:
        methods.RepositoryModelLoad(request_, timeout=60)
    assert error.value.code() == grpc_module.StatusCode.FAILED_PRECONDITION
    assert post(server, "fashion-sklearn", request, "v10").status == OK
    assert "v10" in ready_in_metrics(server)
    file.write_bytes(good)


def test_a_model_that_could_not_be_loaded_is_in_the_metrics_until_it_is_unloaded(server: Server):
    assert model_ready(server)["broken", "v1"] == 0
    assert post_action(server, "unload", "broken").status_code == OK
    assert ("broken", "v1") not in model_ready(server)


FROZEN = ROOT / "tests/frozen"


def test_a_repository_that_was_packaged_before_loads_and_predicts_the_same(tmp_path: Path):
    repository = tmp_path / "serving"
    shutil.copytree(ROOT / "serving/fashion", repository / "fashion")
    shutil.copytree(FROZEN / "models", repository / "models")
    shutil.copy(FROZEN / "settings.json", repository)
    expected = np.load(FROZEN / "expected.npz")
    with running(repository) as server:
        for protocol, url in (("rest", server.rest), ("grpc", server.grpc)):
            with connect(protocol, url) as client:
                models = client.models()
                assert models == ["fashion-sklearn", "fashion-xgboost"]
                for model in models:
                    found = client.infer(model, expected["images"], [LABELS, PROBABILITIES])
                    assert np.array_equal(found[LABELS], expected[f"{model}_{LABELS}"])
                    assert np.allclose(
                        found[PROBABILITIES], expected[f"{model}_{PROBABILITIES}"], atol=1e-6
                    )
