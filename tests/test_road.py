"""Every request takes one road, whatever its form.  Run: pytest tests/test_road.py"""

import json
import socket
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import body, each_model, message, tensor

from serving.fashion.contract import OUTPUTS
from serving.launch import Server


@pytest.fixture
def server(each_host: Server) -> Server:
    return each_host


REQUESTS = {
    "an image": {"rows": 1, "outputs": ()},
    "two images, all outputs": {"rows": 2, "outputs": OUTPUTS},
}
each_request = pytest.mark.parametrize("content", REQUESTS.values(), ids=REQUESTS.keys())


def request_of(images: np.ndarray, rows: int, outputs: tuple[str, ...]) -> dict[str, Any]:
    return body(tensor(images[:rows]), outputs=outputs, id="42")


@each_model
@pytest.mark.parametrize("path", ["", "/versions/v1"])
@each_request
def test_a_response_over_rest_is_the_same_whatever_a_request_has_that_changes_nothing(
    server: Server, images: np.ndarray, model: str, path: str, content: dict[str, Any]
):
    address = f"{server.rest}/v2/models/{model}{path}/infer"
    response = requests.post(address, json=request_of(images, **content), timeout=60)
    actual = response.json()
    assert list(actual) == ["model_name", "model_version", "id", "parameters", "outputs"]
    names = content["outputs"] or ("predict",)
    assert [output["name"] for output in actual["outputs"]] == list(names)
    assert response.headers["content-type"] == "application/json"
    changes: list[dict[str, Any]] = [{"parameters": {}}, {"parameters": None}, {"more": 1}]
    for change in changes:
        request = request_of(images, **content) | change
        assert requests.post(address, json=request, timeout=60).content == response.content


@each_model
@each_request
def test_a_response_over_grpc_is_raw_where_its_request_is(
    server: Server, images: np.ndarray, model: str, content: dict[str, Any]
):
    plain, more = (message(request_of(images, **content), model, raw=True) for _ in range(2))
    more.parameters["nothing"].bool_param = True
    with grpc.insecure_channel(server.grpc) as channel:
        ask = GRPCInferenceServiceStub(channel).ModelInfer
        first, second = (ask(request, timeout=60) for request in (plain, more))
    assert first == second
    assert len(first.raw_output_contents) == len(first.outputs)


def test_a_response_has_the_id_of_its_request_or_one_of_its_own(server: Server, images: np.ndarray):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    request = body(tensor(images[:1]))
    ids = [requests.post(address, json=request, timeout=60).json()["id"] for _ in range(2)]
    assert ids[0] != ids[1]
    for id_ in ("", "ä", "a\r\nb: c"):
        response = requests.post(address, json=request | {"id": id_}, timeout=60)
        assert response.json()["id"] == id_
        with_id = message(request | {"id": id_}, "fashion-sklearn")
        with grpc.insecure_channel(server.grpc) as channel:
            over_grpc = GRPCInferenceServiceStub(channel).ModelInfer(with_id, timeout=60).id
        assert over_grpc == id_ or (over_grpc and not id_)  # where "" is none


def test_a_body_may_come_in_parts_or_not_at_all(server: Server, images: np.ndarray):
    content = json.dumps(request_of(images, 1, ())).encode()
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
            with connection.makefile("rb") as response:
                assert b" 200 " in response.readline()


# In place of %s stands a good request, or all of it but its first brace.
@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"3", 400),
        (b"[]", 400),
        (b'{"id": "\xff"}', 400),
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
    server: Server, images: np.ndarray, text: bytes, status: int
):
    address = f"{server.rest}/v2/models/fashion-sklearn/infer"
    good = json.dumps(request_of(images, 1, ())).encode()
    content = text.replace(b"%s", good[text[:1] == b"{" :])
    response = requests.post(address, content, timeout=60)
    assert response.status_code == status
    assert ("error" in response.json()) == (status == 400)
