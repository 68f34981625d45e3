"""The servers speak the protocol as published, binary tensors included, with MLServer or without.

Run: pytest tests/test_conformance.py
"""

import base64
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jsonschema_rs
import numpy as np
import pytest
import requests
import tritonclient.http as triton
import yaml
from processes import ready
from scratch import ROOT
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import (
    LENGTH,
    MODELS,
    OK,
    REJECTED,
    UNKNOWN,
    body,
    head,
    log_of,
    message,
    metrics,
    open_connection,
    png,
    post,
    post_binary,
    post_raw,
    read_response,
    stream,
    tensor,
)

from serving.fashion.contract import LABELS, OUTPUTS, PROBABILITIES
from serving.launch import Server


@pytest.fixture(scope="module")
def bare(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same applications without MLServer: tests/bare_host.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processes.MLSERVER", [sys.executable, str(ROOT / "tests/bare_host.py")])
        with ready(repository, tmp_path_factory.mktemp("bare"), PYTHONPATH=str(ROOT)) as server:
            yield server


@pytest.fixture(params=["MLServer", "bare"])
def host(server: Server, bare: Server, request: pytest.FixtureRequest) -> Server:
    """MLServer, or the bare host: each test runs on both."""
    return server if request.param == "MLServer" else bare


MODEL = MODELS[0]
SPECIFICATION = yaml.safe_load((ROOT / "tests/specs/open_inference_rest.yaml").read_text("utf-8"))
ROUTES = [  # method, path, and the responses by status
    (method, path, operation["responses"])
    for path, operations in SPECIFICATION["paths"].items()
    for method, operation in operations.items()
    if method in ("get", "post")
]


def check(specified: dict[str, Any], response: requests.Response) -> None:
    """Hold a response against what the specification has for its status."""
    content = specified[str(response.status_code)].get("content")
    if content:
        components = {"components": SPECIFICATION["components"]}
        schema = content["application/json"]["schema"] | components
        jsonschema_rs.validator_for(schema).validate(response.json())


@pytest.mark.parametrize(("method", "path", "specified"), ROUTES, ids=lambda part: str(part)[:60])
def test_every_route_of_the_specification_responds_as_it_says(
    host: Server, method: str, path: str, specified: dict[str, Any]
):
    url = host.rest + path.replace("${MODEL_NAME}", MODEL).replace("${MODEL_VERSION}", "v1")
    request = body(tensor(np.zeros((2, 784))), outputs=OUTPUTS, id="42")
    response = requests.request(method, url, json=request if method == "post" else None, timeout=60)
    assert response.ok
    check(specified, response)
    if method == "post":
        content = response.json()
        actual = [content[name] for name in ("id", "model_name", "model_version")]
        assert actual == ["42", MODEL, "v1"]
        check(specified, rejected := requests.post(url, json=body(), timeout=60))
        assert rejected.status_code == 400


def test_every_method_of_the_grpc_service_responds(host: Server):
    with grpc.insecure_channel(host.grpc) as channel:
        service = GRPCInferenceServiceStub(channel)
        assert service.ServerLive(pb.ServerLiveRequest(), timeout=60).live
        assert service.ServerReady(pb.ServerReadyRequest(), timeout=60).ready
        assert service.ServerMetadata(pb.ServerMetadataRequest(), timeout=60).extensions
        index = service.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=60)
        states = sorted((m.name, m.version, m.state) for m in index.models)
        assert states == [(model, "v1", "READY") for model in MODELS]
        for model in MODELS:
            assert service.ModelReady(pb.ModelReadyRequest(name=model), timeout=60).ready
            metadata = service.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=60)
            assert [o.name for o in metadata.outputs] == list(OUTPUTS)
            request = message(body(tensor(np.zeros((2, 784))), id="42"), model, "v1")
            response = service.ModelInfer(request, timeout=60)
            assert (response.id, response.model_name, response.model_version) == ("42", model, "v1")
            (streamed,) = stream(channel)(iter([request]), timeout=60)
            assert streamed.outputs == response.outputs


def test_names_that_are_no_models_leave_no_trace_in_the_metrics(host: Server):
    assert post(host, "nobody", body(tensor([0.0]))).status == UNKNOWN
    assert not [labels for _, labels in metrics(host) if "nobody" in str(labels)]


def test_json_behind_its_length_and_nothing_else_is_a_request(host: Server, images: np.ndarray):
    request = body(tensor(images[:2]))
    response = post_binary(host, MODEL, request)
    assert response.headers["content-type"] == "application/json"
    assert LENGTH not in response.headers
    labels = post(host, MODEL, request).outputs[LABELS]
    assert response.json()["outputs"][0]["data"] == labels


@pytest.fixture
def client(host: Server) -> Any:
    """An unmodified client of Triton's, in its default way."""
    client = triton.InferenceServerClient(host.rest.removeprefix("http://"))
    yield client
    client.close()


def input_of(values: np.ndarray, datatype: str = "UINT8") -> Any:
    sent = triton.InferInput("predict", list(values.shape), datatype)
    sent.set_data_from_numpy(values)
    return sent


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_tritons_client_gets_each_output_as_it_requests_it_and_all_as_raw_bytes_by_default(
    host: Server, client: Any, images: np.ndarray, encoding: str | None
):
    images = images[:5]
    expected = post(host, MODEL, body(tensor(images), outputs=OUTPUTS)).outputs
    more = {"request_compression_algorithm": encoding, "response_compression_algorithm": encoding}
    plain = client.infer(MODEL, [input_of(images)], **more)
    assert plain.as_numpy(LABELS).tolist() == expected[LABELS]
    assert plain.get_output(LABELS)["parameters"] == {"binary_data_size": 5 * 8}
    requested = [triton.InferRequestedOutput(name, name != PROBABILITIES) for name in OUTPUTS]
    late = client.async_infer(MODEL, [input_of(images)], outputs=requested, request_id="7", **more)
    result = late.get_result()
    assert result.get_response()["id"] == "7"
    assert result.get_output(PROBABILITIES)["data"] == np.ravel(expected[PROBABILITIES]).tolist()
    assert result.as_numpy(LABELS).tolist() == expected[LABELS]
    assert np.array_equal(result.as_numpy("image"), images)
    assert [text.decode() for text in result.as_numpy("label")] == expected["label"]


def test_tritons_client_sends_pictures_as_raw_bytes(host: Server, client: Any, images: np.ndarray):
    expected = post(host, MODEL, body(tensor(images[:3]))).outputs[LABELS]
    files = [base64.b64decode(png(255 - image.reshape(28, 28))) for image in images[:3]]
    pictures = input_of(np.array(files, object), "BYTES")
    result = client.infer(MODEL, [pictures], parameters={"invert": True})
    assert result.as_numpy(LABELS).tolist() == expected


def test_a_path_that_is_none_names_where_the_paths_are(host: Server):
    response = requests.get(f"{host.rest}/v2/models/{MODEL}/config", timeout=60)
    words = f"expected a path of /v2/docs/dataplane.json, got GET /v2/models/{MODEL}/config"
    assert (response.status_code, response.json()) == (UNKNOWN, {"error": words})


def test_an_empty_body_sends_for_the_whole_index_and_a_wrong_one_is_rejected(host: Server):
    address = f"{host.rest}/v2/repository/index"
    whole = requests.post(address, timeout=60)
    assert {model["name"] for model in whole.json()} == set(MODELS)
    assert requests.post(address, json={}, timeout=60).json() == whole.json()
    ready = requests.post(address, json={"ready": True}, timeout=60)
    assert [model["state"] for model in ready.json()] == ["READY", "READY"]
    wrong = requests.post(address, data="[", timeout=60)
    words = 'expected a body like {"ready": true}, or none'
    assert (wrong.status_code, wrong.json()) == (REJECTED, {"error": words})


def talk(server: Server, *parts: bytes, responses: int) -> list[int]:
    """The statuses of so many responses on one connection, to which parts are sent apart."""
    with open_connection(server) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        with connection.makefile("rb") as file:
            return [read_response(file)[0] for _ in range(responses)]


OFFERS = {
    "Java": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "a web socket": "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
    "TLS": "Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n",
}


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_to_upgrade_is_ignored(
    server: Server, images: np.ndarray, offer: str, is_chunked: bool
):
    text = json.dumps(body(tensor(images[:1], datatype="UINT8"))).encode()

    def request(content: bytes, offered: str) -> bytes:
        if is_chunked:
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
            return head(MODEL, None, offered) + chunks
        return head(MODEL, len(content), offered) + content

    offered, plain = request(text, offer), request(text, "")
    get = f"GET /v2 HTTP/1.1\r\nHost: h\r\n{offer}\r\n".encode()
    pieces = [offered[start : start + 40] for start in range(0, 400, 40)]
    assert talk(server, offered, plain, offered, responses=3) == [OK] * 3
    assert talk(server, *pieces, offered[400:] + plain, responses=2) == [OK] * 2
    assert talk(server, request(text + b" " * 2**20, offer) + plain, responses=2) == [OK] * 2
    assert talk(server, get + plain, responses=2) == [OK] * 2
    assert "upgrade" not in log_of(server).lower()


def test_pipelined_requests_are_served(server: Server):
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
    assert talk(server, get * 2000, responses=2000) == [OK] * 2000


def test_a_large_response_is_compressed_for_those_who_accept_it(server: Server, images: np.ndarray):
    large, small = (
        json.dumps(body(tensor(images[:n], datatype="UINT8"), outputs=("predict_proba",))).encode()
        for n in (100, 1)
    )
    for field, encoding in {
        "gzip": "gzip",
        "br;q=1.0, GZIP;q=0.5": "gzip",
        "*": "gzip",
        "gzip;q=0": None,
        "gzip;q=0.0, *": None,
        "identity": None,
    }.items():
        for request, expected in ((large, encoding), (small, None)):
            response = post_raw(server, MODEL, request, {"Accept-Encoding": field})
            assert response.headers.get("content-encoding") == expected, field
            assert response.json()["outputs"][0]["shape"][1:] == [10]


def test_kubernetes_can_probe_over_grpc(server: Server):
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        for name in (b"", b"inference.GRPCInferenceService", MODEL.encode()):
            assert check(b"\x0a%c%b" % (len(name), name), timeout=60) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            check(b"\x0a\x04none", timeout=60)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert next(watch(b"", timeout=60)) == b"\x08\x01"
        assert next(watch(b"\x0a\x04none", timeout=60)) == b"\x08\x03"
