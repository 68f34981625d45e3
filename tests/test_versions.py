"""Versions side by side, and loading by request.  Run: pytest tests/test_versions.py"""

import re
import shutil
from pathlib import Path

import grpc as grpc_module
import pytest
import requests
from scratch import edit_json
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import MODELS, OK, UNKNOWN, body, post, tensor

from serving.client import GrpcClient, RestClient
from serving.fashion.contract import LABELS
from serving.fashion.packaged import MODEL_SETTINGS, models_in, newest
from serving.launch import running
from stages.data.idx import Images


def copy_as(repository: Path, version: str) -> None:
    """Serve what is there as v1 as another version, too."""
    for model in MODELS:
        folder = repository / "models" / model
        shutil.copytree(folder / "v1", folder / version)
        edit_json(
            folder / version / MODEL_SETTINGS, lambda s: s["parameters"].update(version=version)
        )


@pytest.fixture
def versions(own_repository: Path) -> Path:
    """A repository of v1, v9 and v10, where loading by request is allowed."""
    copy_as(own_repository, "v9")
    copy_as(own_repository, "v10")
    edit_json(
        own_repository / "settings.json",
        lambda s: s.update(model_repository_implementation_args={"allow_load": True}),
    )
    return own_repository


def test_each_version_has_its_url_the_highest_number_the_plain_one_and_loading_may_be_allowed(
    versions: Path, digits: tuple[Images, Images]
):
    request = body(tensor(digits[1].images[:2]))
    with running(versions) as server:
        rest, grpc = RestClient(server.rest), GrpcClient(server.grpc)
        for model in MODELS:
            address = f"{server.rest}/v2/models/{model}"
            said = requests.post(f"{address}/infer", json=request, timeout=60).json()
            assert said["model_version"] == "v10"
            for version in ("v1", "v9", "v10"):
                assert rest.ready(model, version)
                assert grpc.ready(model, version)
                url = f"{address}/versions/{version}/infer"
                assert requests.post(url, json=request, timeout=60).json()["model_version"] == (
                    version
                )
            asked = grpc.infer(model, digits[1].images[:2], version="v9")
            assert asked[LABELS].tolist() == said["outputs"][0]["data"]

        shutil.rmtree(versions / "models/fashion-sklearn/v10")
        address = f"{server.rest}/v2/repository/models/fashion-sklearn"
        assert requests.post(f"{address}/load", timeout=60).status_code == OK
        assert post(server, "fashion-sklearn", request, "v10").status == UNKNOWN
        plain = f"{server.rest}/v2/models/fashion-sklearn/infer"
        said = requests.post(plain, json=request, timeout=60).json()
        assert said["model_version"] == "v9"
        assert requests.post(f"{address}/unload", timeout=60).status_code == OK
        assert post(server, "fashion-sklearn", request).status == UNKNOWN
        assert post(server, "fashion-xgboost", request).status == OK


def test_a_model_asked_for_that_must_not_be_loaded_is_refused_and_the_one_before_stays(
    versions: Path, digits: tuple[Images, Images]
):
    request = body(tensor(digits[1].images[:2]))
    with running(versions) as server:
        (versions / "models/fashion-sklearn/v10/model.joblib").write_bytes(b"no model")
        address = f"{server.rest}/v2/repository/models/fashion-sklearn/load"
        refused = requests.post(address, timeout=60)
        assert refused.status_code == requests.codes.conflict
        words = "fashion-sklearn is not loaded: .*model.joblib: expected SHA-256 .*package it again"
        assert re.search(words, refused.json()["error"])
        with grpc_module.insecure_channel(server.grpc) as channel:
            load = GRPCInferenceServiceStub(channel).RepositoryModelLoad
            with pytest.raises(grpc_module.RpcError, match=words) as error:
                load(pb.RepositoryModelLoadRequest(model_name="fashion-sklearn"), timeout=60)
        assert error.value.code() == grpc_module.StatusCode.FAILED_PRECONDITION
        assert post(server, "fashion-sklearn", request, "v10").status == OK


def test_the_newest_has_the_highest_number(versions: Path):
    found = models_in(versions)
    assert len(found) == 6
    assert [(m.name, m.version) for m in newest(found)] == [(name, "v10") for name in MODELS]
