"""Every request takes one road, whatever its form.  Run: pytest tests/test_road.py"""

import json
import socket
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import requests
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import MODELS, body, message, metrics, tensor

from benchmarks.servers import processes
from serving.fashion.contract import OUTPUTS
from serving.launch import Server, running
from stages.data.idx import Images

COUNTS = ("rest_server", "model_infer")
QUESTIONS = {
    "an image": {"rows": 1, "outputs": ()},
    "two images, all outputs": {"rows": 2, "outputs": OUTPUTS},
    "an output twice": {"rows": 1, "outputs": ("label", "label")},
}
each_question = pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS.keys())


def question(images: Images, rows: int, outputs: tuple[str, ...]) -> dict[str, Any]:
    return body(tensor(images.images[:rows]), outputs=outputs, id="42")


CLOUD_EVENTS = {
    "ce-specversion": "0.3",
    "ce-source": "io.seldon.serving.deployment.mlserver",
    "ce-type": "io.seldon.serving.inference.response",
    "ce-inferenceservicename": "mlserver",
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", ["", "/versions/v1"])
@each_question
def test_a_response_over_rest_has_the_bytes_and_headers_that_mlserver_has(
    server: Server, digits: tuple[Images, Images], model: str, path: str, asked: dict[str, Any]
):
    address = f"{server.rest}/v2/models/{model}{path}/infer"
    response = requests.post(address, json=question(digits[1], **asked), timeout=60)
    content = response.json()
    assert list(content) == ["model_name", "model_version", "id", "parameters", "outputs"]
    names = asked["outputs"] or ("predict",)
    assert [output["name"] for output in content["outputs"]] == list(names)
    own = {"ce-modelid": model, "ce-endpoint": model, "ce-id": "42", "ce-requestid": "42"}
    expected = CLOUD_EVENTS | own | {"content-type": "application/json"}
    assert expected.items() <= dict(response.headers.lower_items()).items()
    changes: list[dict[str, Any]] = [{"parameters": {}}, {"parameters": None}, {"more": 1}]
    for change in changes:
        request = question(digits[1], **asked) | change
        assert requests.post(address, json=request, timeout=60).content == response.content


@pytest.mark.parametrize("model", MODELS)
@each_question
def test_a_response_over_grpc_has_the_same_metadata_with_parameters_and_without(
    server: Server, digits: tuple[Images, Images], model: str, asked: dict[str, Any]
):
    plain, more = (message(question(digits[1], **asked), model, raw=True) for _ in range(2))
    more.parameters["nothing"].bool_param = True
    with grpc.insecure_channel(server.grpc) as channel:
        ask = GRPCInferenceServiceStub(channel).ModelInfer
        responses = [ask.with_call(request, timeout=60) for request in (plain, more)]
    assert responses[0][0] == responses[1][0]
    assert len(responses[0][0].raw_output_contents) == len(responses[0][0].outputs)
    for _, call in responses:
        assert (CLOUD_EVENTS | {"ce-id": "42"}).items() <= dict(call.trailing_metadata()).items()


def test_an_answer_has_an_id_whether_or_not_it_was_given_one(
    server: Server, digits: tuple[Images, Images]
):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    request = body(tensor(digits[1].images[:1]))
    ids = [requests.post(address, json=request, timeout=60).json()["id"] for _ in range(2)]
    assert ids[0] != ids[1]
    for given, header in (("", ""), ("ä", "%C3%A4"), ("a\r\nb: c", "a%0D%0Ab%3A%20c")):
        response = requests.post(address, json=request | {"id": given}, timeout=60)
        assert (response.json()["id"], response.headers["ce-id"]) == (given, header)
        with_id = message(request | {"id": given}, "fashion-sklearn")
        with grpc.insecure_channel(server.grpc) as channel:
            assert GRPCInferenceServiceStub(channel).ModelInfer(with_id, timeout=60).id == given


def test_requests_over_rest_are_counted_as_mlserver_counts_them(
    server: Server, digits: tuple[Images, Images]
):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    good, bad = question(digits[1], 1, ()), body(tensor([0.0], [1, 784]))
    for request, status, outcome in ((good, 200, "success"), (bad, 400, "failure")):
        before = metrics(server)
        assert requests.post(address, json=request, timeout=60).status_code == status
        risen = {
            (name, labels): value - before.get((name, labels), 0)
            for (name, labels), value in metrics(server).items()
            if name.startswith(COUNTS) and name.endswith(("_total", "_count"))
        }
        path = ("path", "/v2/models/{model_name}/infer")
        model = frozenset({("model", "fashion-sklearn"), ("version", "None")})
        rest = {("method", "POST"), path, ("status_code", str(status)), ("app_name", "mlserver")}
        assert {key: rise for key, rise in risen.items() if rise} == {
            ("rest_server_requests_total", frozenset(rest)): 1,
            ("rest_server_request_duration_seconds_count", frozenset(rest)): 1,
            (f"model_infer_request_{outcome}_total", model): 1,
            ("model_infer_request_duration_count", model): 1,
        }


def test_calls_over_grpc_are_counted_as_mlserver_counts_them(
    server: Server, digits: tuple[Images, Images]
):
    request = message(question(digits[1], 1, ()), "fashion-xgboost", "v1")
    before = metrics(server)
    with grpc.insecure_channel(server.grpc) as channel:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    after = metrics(server)
    method = {
        ("grpc_type", "UNARY"),
        ("grpc_service", "inference.GRPCInferenceService"),
        ("grpc_method", "ModelInfer"),
    }
    model = frozenset({("model", "fashion-xgboost"), ("version", "v1")})
    for key in (
        ("grpc_server_started_total", frozenset(method)),
        ("grpc_server_handled_total", frozenset({*method, ("grpc_code", "OK")})),
        ("grpc_server_handling_seconds_count", frozenset(method)),
        ("model_infer_request_success_total", model),
    ):
        assert after[key] == before.get(key, 0) + 1, key


def test_no_inference_reaches_the_application_of_mlserver(
    repository: Path, digits: tuple[Images, Images]
):
    """Which counts requests in progress, a metric that its first request creates."""
    with running(repository) as server:
        for verb in ("infer", "generate", "infer_stream", "generate_stream"):
            for model in (*MODELS, "nobody"):
                address = f"{server.rest}/v2/models/{model}/{verb}"
                bodies: list[Any] = [question(digits[1], 1, OUTPUTS), {"parameters": []}, 3]
                for request in bodies:
                    requests.post(address, json=request, timeout=60)
        assert not any(
            name == "rest_server_requests_in_progress" and ("method", "POST") in labels
            for name, labels in metrics(server)
        )


def test_a_body_may_come_in_parts_or_not_at_all(server: Server, digits: tuple[Images, Images]):
    content = json.dumps(question(digits[1], 1, ())).encode()
    host, port = server.rest.removeprefix("http://").split(":")
    head = (
        f"POST /v2/models/fashion-sklearn/infer HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head + content[:100])
    for parts in ([head, content[:100], content[100:]], [head + content]):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                connection.sendall(part)
            with connection.makefile("rb") as answer:
                assert b" 200 " in answer.readline()


# In place of %s stands a good request, or all of it but its first brace.
@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", 400),
        (b"3", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"id": "\xff"}', 400),
        (b'{"inputs": [NaN]}', 400),
        (b'{"id": "1", %s', 200),
        (b'{"inputs": [], %s', 200),  # of a member twice, the last
        (b"%s x", 400),
        (b" %s", 200),
        (b"\xef\xbb\xbf%s", 400),  # a mark of the byte order, which JSON has not
        (b"[" * 100_000, 400),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": '
         + b"[" * 10_000 + b"]" * 10_000 + b"}]}", 400),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_an_odd_text_is_answered_or_refused_in_words(
    server: Server, digits: tuple[Images, Images], text: bytes, status: int
):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    good = json.dumps(question(digits[1], 1, ())).encode()
    content = text.replace(b"%s", good[text[:1] == b"{" :])
    response = requests.post(address, content, timeout=60)
    assert response.status_code == status
    assert ("error" in response.json()) == (status == 400)


def test_requests_over_grpc_are_taken_in_several_places(server: Server):
    """In one, they would wait longer beside many over REST."""
    port = int(server.grpc.rpartition(":")[2])
    listening = [
        connection
        for process in processes(server)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert len(listening) > 1


def test_raw_contents_that_are_no_request_are_refused(server: Server):
    empty = pb.ModelInferRequest(model_name="fashion-sklearn", raw_input_contents=[b""])
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        GRPCInferenceServiceStub(channel).ModelInfer(empty, timeout=60)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "expected as many raw contents as inputs, 0, got 1"
