"""Requests as clients and people really send them.  Run: pytest tests/test_real_clients.py"""

import base64
import json
import time

import grpc
import numpy as np
import pytest
import requests
from scratch import Digits
from tritonclient.grpc import service_pb2 as pb
from wire import (
    OK,
    SECONDS,
    body,
    head,
    infer,
    log_of,
    open_connection,
    png,
    post_raw,
    read_response,
    send,
    tensor,
)

from serving.launch import Server

MODEL = "fashion-xgboost"


@pytest.fixture
def image(images: np.ndarray) -> np.ndarray:
    return images[:1]


@pytest.fixture
def label(server: Server, image: np.ndarray) -> list[int]:
    return infer(server, "rest", MODEL, body(tensor(image, datatype="UINT8"))).outputs["predict"]


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
    server: Server, image: np.ndarray, offer: str, is_chunked: bool
):
    text = json.dumps(body(tensor(image, datatype="UINT8"))).encode()

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


def test_a_table_of_a_column_a_pixel_is_put_together(
    server: Server, images: np.ndarray, label: list[int]
):
    rows = np.repeat(images[:1], 3, 0)
    for shape in ([3], [3, 1]):
        columns = [
            {"name": f"p{i}", "shape": shape, "datatype": "INT64", "data": rows[:, i].tolist()}
            for i in range(784)
        ]
        for protocol in ("rest", "grpc"):
            response = infer(server, protocol, MODEL, body(*columns))
            assert response.outputs == {"predict": label * 3}


def test_values_over_grpc_are_read_from_whichever_field_has_them(
    server: Server, image: np.ndarray, label: list[int]
):
    request = pb.ModelInferRequest(model_name=MODEL)
    input_ = request.inputs.add(name="x", datatype="INT64", shape=[1, 784])
    input_.contents.int_contents.extend(image.ravel().tolist())
    assert send(server, request).outputs == {"predict": label}
    input_.contents.fp32_contents.append(1)
    words = "expected values of INT64 in int64_contents, got int_contents and fp32_contents"
    assert send(server, request).error == words


def test_base64_is_read_as_tools_write_it(server: Server, image: np.ndarray, label: list[int]):
    plain = png(image.reshape(28, 28))
    file = base64.b64decode(plain)
    in_lines, url_safe = (f(file).decode() for f in (base64.encodebytes, base64.urlsafe_b64encode))
    for text in (in_lines, url_safe, plain.rstrip("="), f"data:image/png;base64,{plain}"):
        request = body(tensor([text], [1], "BYTES"))
        assert infer(server, "rest", MODEL, request).outputs == {"predict": label}
        request = pb.ModelInferRequest(model_name=MODEL)
        input_ = request.inputs.add(name="x", datatype="BYTES", shape=[1])
        input_.contents.bytes_contents.append(text.encode())
        if not text.startswith("data:"):
            assert send(server, request).outputs == {"predict": label}  # by what it plainly is
        input_.parameters["content_type"].string_param = "base64"
        assert send(server, request).outputs == {"predict": label}


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
            assert check(b"\x0a%c%b" % (len(name), name), timeout=SECONDS) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            check(b"\x0a\x04none", timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert next(watch(b"", timeout=SECONDS)) == b"\x08\x01"
        assert next(watch(b"\x0a\x04none", timeout=SECONDS)) == b"\x08\x03"


def test_black_and_white_pixels_and_a_few_faint_ones_are_predicted(
    server: Server, images: np.ndarray
):
    for pixels in ((images[:2] > 128).astype(float), np.vstack([images[:1] / 255, images[:1]])):
        assert infer(server, "rest", MODEL, body(tensor(pixels))).status == OK


def test_pictures_are_read_as_phones_and_browsers_make_them(server: Server):
    red = np.full((400, 300, 3), (200, 30, 30), np.uint8)
    files = [png(red, kind) for kind in ("WEBP", "BMP", "PNG", "JPEG")]
    files.append(png(np.full((4000, 6000, 3), 130, np.uint8), "JPEG"))
    files.append(png(red, "JPEG", "CMYK"))
    for file in files:
        assert infer(server, "rest", MODEL, body(tensor([file], [1], "BYTES"))).status == OK


def test_the_samples_are_the_first_evaluation_images(server: Server, digits: Digits):
    response = requests.get(f"{server.rest}/demo/samples.json", timeout=60).json()
    images, labels, names = digits[1]
    assert response["class_names"] == list(names)
    assert len(response["images"]) >= 40
    for sample, pixels, label in zip(response["images"], images, labels, strict=False):
        assert (base64.b64decode(sample["pixels"]), sample["label"]) == (bytes(pixels), label)
