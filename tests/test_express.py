"""The short way answers, refuses and counts as MLServer's own.  Run: pytest tests/test_express.py

Parameters, even none, send a request over REST MLServer's way; over gRPC, one that means nothing.
"""

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
from stages.dataset import Images

IN_PROGRESS = (
    "rest_server_requests_in_progress",
    frozenset({("method", "POST"), ("app_name", "mlserver")}),
)
COUNTS = ("rest_server", "model_infer")
QUESTIONS = {
    "an image": {"rows": 1, "outputs": ()},
    "two images, all outputs": {"rows": 2, "outputs": OUTPUTS},
    "an output twice": {"rows": 1, "outputs": ("label", "label")},
}
each_question = pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS.keys())


def question(images: Images, rows: int, outputs: tuple[str, ...]) -> dict[str, Any]:
    return body(tensor(images.images[:rows]), outputs=outputs, id="42")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", ["", "/versions/v1"])
@each_question
def test_over_rest_both_ways_answer_with_the_same_bytes_and_fields(
    server: Server, digits: tuple[Images, Images], model: str, path: str, asked: dict[str, Any]
):
    address = f"{server.rest}/v2/models/{model}{path}/infer"
    short = question(digits[1], **asked)
    plain = {"Accept-Encoding": "identity"}
    answers = [
        requests.post(address, json=request, headers=plain, timeout=60)
        for request in (short, short | {"parameters": {}})
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    ours, theirs = ({k: v for k, v in a.headers.items() if k != "date"} for a in answers)
    assert ours == {k: v for k, v in theirs.items() if k.lower() != "vary"}


@pytest.mark.parametrize("model", MODELS)
@each_question
def test_over_grpc_both_ways_answer_with_the_same_message_and_metadata(
    server: Server, digits: tuple[Images, Images], model: str, asked: dict[str, Any]
):
    short, long = (message(question(digits[1], **asked), model, raw=True) for _ in range(2))
    long.parameters["nothing"].bool_param = True
    with grpc.insecure_channel(server.grpc) as channel:
        ask = GRPCInferenceServiceStub(channel).ModelInfer
        answers = [ask.with_call(request, timeout=60) for request in (short, long)]
    for output in answers[1][0].outputs:
        output.ClearField("contents")  # which MLServer leaves empty, beside raw ones
    assert answers[0][0] == answers[1][0]
    assert len(answers[0][0].raw_output_contents) == len(answers[0][0].outputs)
    ours, theirs = (sorted(call.trailing_metadata()) for _, call in answers)
    assert ours == theirs


def test_an_answer_has_an_id_whether_or_not_it_was_given_one(
    server: Server, digits: tuple[Images, Images]
):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    request = body(tensor(digits[1].images[:1]))
    ids = [requests.post(address, json=request, timeout=60).json()["id"] for _ in range(2)]
    assert ids[0] != ids[1]
    for given in ("", "ä"):
        assert (
            requests.post(address, json=request | {"id": given}, timeout=60).json()["id"] == given
        )


def test_both_ways_are_taken_and_counted_alike(server: Server, digits: tuple[Images, Images]):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    good, bad = question(digits[1], 1, ()), body(tensor([0.0], [1, 784]))
    for request, status, outcome in ((good, 200, "success"), (bad, 400, "failure")):
        counted = []
        for asked in (request, request | {"parameters": {}}):
            before = metrics(server)
            assert requests.post(address, json=asked, timeout=60).status_code == status
            after = metrics(server).items()
            risen = {key: value - before.get(key, 0) for key, value in after}
            counted.append(
                {
                    key: rise
                    for key, rise in risen.items()
                    if rise and key[0].startswith(COUNTS) and key[0].endswith(("_total", "_count"))
                }
            )
        assert counted[0] == counted[1]
        assert {name for name, _ in counted[0]} == {
            "rest_server_requests_total",
            "rest_server_request_duration_seconds_count",
            f"model_infer_request_{outcome}_total",
            "model_infer_request_duration_count",
        }


def test_common_requests_go_the_short_way(repository: Path, digits: tuple[Images, Images]):
    """Requests in progress are counted by MLServer's way alone, which creates that metric."""
    with running(repository) as server:
        address = f"{server.rest}/v2/models/fashion-sklearn/infer"
        for short in (question(digits[1], 1, OUTPUTS), question(digits[1], 300, ())):
            assert requests.post(address, json=short, timeout=60).ok
        assert IN_PROGRESS not in metrics(server)
        assert requests.post(address, json=short | {"parameters": {}}, timeout=60).ok
        assert IN_PROGRESS in metrics(server)


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


@pytest.mark.parametrize(
    "change",
    [
        {"id": 3},
        {"outputs": None},
        {"outputs": []},
        {"outputs": [{"name": "predict"}, 3]},
        {"outputs": [{"name": "predict", "parameters": {}}]},
        {"more": 1},
        {"inputs": []},
        {"inputs": [tensor([0] * 784, [1, 784.0])]},
        {"inputs": [tensor([0] * 784), tensor([0] * 784)]},
        {"inputs": [tensor([[0] * 784], [1, 784])]},
        {"inputs": [tensor([0] * 782 + [[0, 0], []], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [True], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [None], [1, 784])]},
        {"inputs": [tensor([0] * 783 + ["0"], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [300], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [-1.5], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [2**53 + 1], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [10**30], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [float("nan")], [1, 784])]},
        {"inputs": [tensor([0] * 783 + [0.5], [1, 784], datatype="UINT8")]},
        {"inputs": [tensor([0] * 783 + [0.5], [1, 784], datatype="FP32")]},
        {"inputs": [tensor([], [0, 784])]},
        {"inputs": [tensor({}, [1, 784])]},
    ],
    ids=lambda change: str(change)[:30] + str(change)[-60:],
)
def test_an_unusual_body_is_answered_as_ever(
    server: Server, digits: tuple[Images, Images], change: dict[str, Any]
):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    request = question(digits[1], 1, ()) | change
    kind = {"Content-Type": "application/json"}
    answers = [
        requests.post(address, json.dumps(asked), headers=kind, timeout=60)
        for asked in (request, request | {"parameters": {}})
    ]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].status_code in {200, 400}
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"3", b"[]", b"{", b'{"id": "\xff"}', b'{"inputs": [NaN]}'),
        *(b'{"id": "1", %s', b'{"inputs": [], %s', b"%s x", b" %s", b"\xef\xbb\xbf%s"),
    ],
)
def test_an_odd_text_is_answered_as_ever(
    server: Server, digits: tuple[Images, Images], text: bytes
):
    """With a good request in place of %s, or without its first brace; a field twice is its last."""
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    good, kind = question(digits[1], 1, ()), {"Content-Type": "application/json"}
    answers = []
    for request in (good, good | {"parameters": {}}):
        content = text.replace(b"%s", json.dumps(request).encode()[text[:1] == b"{" :])
        answers.append(requests.post(address, content, headers=kind, timeout=60))
    assert [answer.status_code for answer in answers] in ([200, 200], [400, 400])
    assert answers[0].content == answers[1].content


def test_requests_over_grpc_are_taken_in_several_places(server: Server):
    """In one, they would wait for seconds beside many over REST."""
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
