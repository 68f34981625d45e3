"""Versions side by side, and loading by request.  Run: pytest tests/test_versions.py"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc as grpc_module
import numpy as np
import pytest
import requests
from processes import ready
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
from serving.fashion.packaged import MODEL_SETTINGS, models_in, newest
from serving.launch import Server, running


def copy_as(repository: Path, version: str) -> None:
    """Serve what is there as v1 as another version, too."""
    for model in MODELS:
        folder = repository / "models" / model
        shutil.copytree(folder / "v1", folder / version)
        edit_json(
            folder / version / MODEL_SETTINGS, lambda s: s["parameters"].update(version=version)
        )


@pytest.fixture(scope="module")
def versions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of v1, v9 and v10, where loading by request is allowed."""
    folder = Path(shutil.copytree(repository, tmp_path_factory.mktemp("versions") / "serving"))
    copy_as(folder, "v9")
    copy_as(folder, "v10")
    set_options(folder, allow_load=True)
    return folder


@pytest.fixture(scope="module")
def server(versions: Path) -> Iterator[Server]:
    with running(versions) as server:
        yield server


def version_of(server: Server, model: str, request: dict[str, Any], version: str = "") -> str:
    """The version that responds to a request, by the URL of a version or the plain one."""
    response = requests.post(infer_url(server, model, version), json=request, timeout=60)
    return str(response.json()["model_version"])


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
    address = f"{server.rest}/v2/repository/models/fashion-sklearn"
    shutil.move(folder, tmp_path / "v10")
    assert requests.post(f"{address}/load", timeout=60).status_code == OK
    assert post(server, "fashion-sklearn", request, "v10").status == UNKNOWN
    assert version_of(server, "fashion-sklearn", request) == "v9"
    assert ready_in_metrics(server) == {"v1", "v9"}
    assert requests.post(f"{address}/unload", timeout=60).status_code == OK
    assert post(server, "fashion-sklearn", request).status == UNKNOWN
    assert post(server, "fashion-xgboost", request).status == OK
    assert ready_in_metrics(server) == set()
    shutil.move(tmp_path / "v10", folder)
    for _ in range(2):
        assert requests.post(f"{address}/load", timeout=60).status_code == OK
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
    address = f"{server.rest}/v2/repository/models/fashion-sklearn/load"
    response = requests.post(address, timeout=60)
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


def test_a_model_that_could_not_be_loaded_is_in_the_metrics_until_it_is_unloaded(
    own_repository: Path, tmp_path: Path
):
    set_options(own_repository, allow_load=True)
    (own_repository / "models/fashion-sklearn/v1/model.joblib").write_bytes(b"no model")
    with ready(own_repository, tmp_path, "fashion-xgboost") as server:
        assert model_ready(server) == {("fashion-sklearn", "v1"): 0, ("fashion-xgboost", "v1"): 1}
        address = f"{server.rest}/v2/repository/models/fashion-sklearn/unload"
        assert requests.post(address, timeout=60).status_code == OK
        assert model_ready(server) == {("fashion-xgboost", "v1"): 1}


def test_the_newest_has_the_highest_number(versions: Path):
    found = models_in(versions)
    assert len(found) == 6
    assert [(m.name, m.version) for m in newest(found)] == [(name, "v10") for name in MODELS]


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
