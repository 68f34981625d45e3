"""The server speaks the protocol as published.  Run: pytest tests/test_conformance.py"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import jsonschema_rs
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
import yaml
from scratch import ROOT
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import MODELS, body, message, metrics, tensor

from serving.client import infer_request
from serving.fashion.contract import LABELS, OUTPUTS
from serving.fashion.packaged import models_in
from serving.launch import Server
from stages.data.idx import Images
from stages.evaluate import offline_outputs

SPECIFICATION = ROOT.parent / "shared/specs/open_inference_rest.yaml"
METHODS = {"get", "post"}


def routes() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and answers of each route of the specification, where there is a copy of it."""
    if not SPECIFICATION.exists():
        return []
    paths = yaml.safe_load(SPECIFICATION.read_text("utf-8"))["paths"]
    return [
        (method, path, operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
        if method in METHODS
    ]


def check(answers: dict[str, Any], answer: requests.Response) -> None:
    """Hold an answer against what the specification has for its status."""
    wanted = answers[str(answer.status_code)].get("content")
    if wanted:
        components = yaml.safe_load(SPECIFICATION.read_text("utf-8"))["components"]
        schema = wanted["application/json"]["schema"] | {"components": components}
        jsonschema_rs.validator_for(schema).validate(answer.json())


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="no copy of the specification beside it")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("method", "path", "answers"), routes(), ids=lambda part: str(part)[:60])
def test_every_route_of_the_specification_answers_as_it_says(
    server: Server, model: str, method: str, path: str, answers: dict[str, Any]
):
    url = server.rest + path.replace("${MODEL_NAME}", model).replace("${MODEL_VERSION}", "v1")
    request = body(tensor(np.zeros((2, 784))), outputs=OUTPUTS, id="42")
    answer = requests.request(method, url, json=request if method == "post" else None, timeout=60)
    assert answer.ok
    check(answers, answer)
    if method == "post":
        said = answer.json()
        assert (said["id"], said["model_name"], said["model_version"]) == ("42", model, "v1")
        check(answers, refused := requests.post(url, json=body(), timeout=60))
        assert refused.status_code == 400


def test_every_method_of_the_grpc_service_answers(server: Server):
    with grpc.insecure_channel(server.grpc) as channel:
        service = GRPCInferenceServiceStub(channel)
        assert service.ServerLive(pb.ServerLiveRequest(), timeout=60).live
        assert service.ServerReady(pb.ServerReadyRequest(), timeout=60).ready
        told = service.ServerMetadata(pb.ServerMetadataRequest(), timeout=60)
        assert told.name == "mlserver"
        index = service.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=60)
        assert [
            (m.name, m.version, m.state) for m in sorted(index.models, key=lambda m: m.name)
        ] == [(model, "v1", "READY") for model in MODELS]
        for model in MODELS:
            assert service.ModelReady(pb.ModelReadyRequest(name=model), timeout=60).ready
            told = service.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=60)
            assert [o.name for o in told.outputs] == list(OUTPUTS)
            request = message(body(tensor(np.zeros((2, 784))), id="42"), model, "v1")
            answer = service.ModelInfer(request, timeout=60)
            assert (answer.id, answer.model_name, answer.model_version) == ("42", model, "v1")
            stream = channel.stream_stream(  # Triton's own differs in what it returns
                "/inference.GRPCInferenceService/ModelStreamInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            streamed = list(stream(iter([request]), timeout=60))
            assert [s.outputs[0].contents for s in streamed] == [answer.outputs[0].contents]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", [tritonclient.http, tritonclient.grpc])
def test_the_client_of_triton_gets_the_offline_answers(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str, kind: Any
):
    images = digits[1].images[:7]
    own = labels(repository, model, images)
    over_http = kind is tritonclient.http
    url = server.rest.removeprefix("http://") if over_http else server.grpc
    client = kind.InferenceServerClient(url)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        given = kind.InferInput("images", [7, 784], "UINT8")
        given.set_data_from_numpy(images)
        wanted = [kind.InferRequestedOutput(name) for name in OUTPUTS]
        answer = client.infer(model, [given], outputs=wanted)
        assert answer.as_numpy("predict").tolist() == own
        assert answer.as_numpy("predict_proba").shape == (7, 10)
        names = answer.as_numpy("label").tolist()
        assert [n.decode() if isinstance(n, bytes) else n for n in names] == [str(c) for c in own]
    finally:
        client.close()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
@pytest.mark.parametrize("model", MODELS)
def test_curl_gets_the_offline_answers(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    images = digits[1].images[:3]
    request = json.dumps(infer_request(images))
    url = f"{server.rest}/v2/models/{model}/infer"
    command = [
        "curl",
        "-sS",
        "--noproxy",
        "*",
        url,
        "-H",
        "Content-Type: application/json",
        "-d",
        "@-",
    ]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outputs"][0]["data"] == labels(repository, model, images)


def labels(repository: Path, model: str, images: np.ndarray) -> list[int]:
    (path,) = (found.path for found in models_in(repository) if found.name == model)
    return list(offline_outputs(path, [images])[LABELS].tolist())


def test_the_metrics_of_the_server_count_its_requests(server: Server):
    assert any(
        name == "model_infer_request_success_total" and ("model", "fashion-sklearn") in labels
        for name, labels in metrics(server)
    )


def test_names_that_are_no_models_leave_no_trace_in_the_metrics(server: Server):
    for number in range(5):
        url = f"{server.rest}/v2/models/nobody-{number}/infer"
        assert requests.post(url, json=body(tensor([0.0])), timeout=60).status_code == 404
    assert not [labels for _, labels in metrics(server) if "nobody-" in str(labels)]
