"""The server speaks the protocol as published.  Run: pytest tests/test_conformance.py"""

from typing import Any

import grpc
import jsonschema_rs
import numpy as np
import pytest
import requests
import yaml
from scratch import ROOT
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import MODELS, body, each_model, message, metrics, stream, tensor

from serving.fashion.contract import OUTPUTS
from serving.launch import Server


@pytest.fixture
def server(each_host: Server) -> Server:
    return each_host


SPECIFICATION = yaml.safe_load((ROOT / "tests/specs/open_inference_rest.yaml").read_text("utf-8"))
METHODS = {"get", "post"}


def routes() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and responses of each route of the specification."""
    return [
        (method, path, operation["responses"])
        for path, operations in SPECIFICATION["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    ]


def check(specified: dict[str, Any], response: requests.Response) -> None:
    """Hold a response against what the specification has for its status."""
    content = specified[str(response.status_code)].get("content")
    if content:
        components = {"components": SPECIFICATION["components"]}
        schema = content["application/json"]["schema"] | components
        jsonschema_rs.validator_for(schema).validate(response.json())


@each_model
@pytest.mark.parametrize(("method", "path", "specified"), routes(), ids=lambda part: str(part)[:60])
def test_every_route_of_the_specification_responds_as_it_says(
    server: Server, model: str, method: str, path: str, specified: dict[str, Any]
):
    url = server.rest + path.replace("${MODEL_NAME}", model).replace("${MODEL_VERSION}", "v1")
    request = body(tensor(np.zeros((2, 784))), outputs=OUTPUTS, id="42")
    response = requests.request(method, url, json=request if method == "post" else None, timeout=60)
    assert response.ok
    check(specified, response)
    if method == "post":
        content = response.json()
        assert (content["id"], content["model_name"], content["model_version"]) == (
            "42",
            model,
            "v1",
        )
        check(specified, refused := requests.post(url, json=body(), timeout=60))
        assert refused.status_code == 400


def test_every_method_of_the_grpc_service_responds(server: Server):
    with grpc.insecure_channel(server.grpc) as channel:
        service = GRPCInferenceServiceStub(channel)
        assert service.ServerLive(pb.ServerLiveRequest(), timeout=60).live
        assert service.ServerReady(pb.ServerReadyRequest(), timeout=60).ready
        assert service.ServerMetadata(pb.ServerMetadataRequest(), timeout=60).extensions
        index = service.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=60)
        assert [
            (m.name, m.version, m.state) for m in sorted(index.models, key=lambda m: m.name)
        ] == [(model, "v1", "READY") for model in MODELS]
        for model in MODELS:
            assert service.ModelReady(pb.ModelReadyRequest(name=model), timeout=60).ready
            metadata = service.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=60)
            assert [o.name for o in metadata.outputs] == list(OUTPUTS)
            request = message(body(tensor(np.zeros((2, 784))), id="42"), model, "v1")
            response = service.ModelInfer(request, timeout=60)
            assert (response.id, response.model_name, response.model_version) == ("42", model, "v1")
            streamed = list(stream(channel)(iter([request]), timeout=60))
            assert [s.outputs[0].contents for s in streamed] == [response.outputs[0].contents]


def test_names_that_are_no_models_leave_no_trace_in_the_metrics(server: Server):
    for number in range(5):
        url = f"{server.rest}/v2/models/nobody-{number}/infer"
        assert requests.post(url, json=body(tensor([0.0])), timeout=60).status_code == 404
    assert not [labels for _, labels in metrics(server) if "nobody-" in str(labels)]
