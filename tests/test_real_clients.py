"""Requests as clients and people really send them.  Run: pytest tests/test_real_clients.py"""

import base64
import gzip
import json
import socket
import struct
import time
import zlib
from contextlib import closing
from io import BytesIO
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from wire import ask, body, each_protocol, message, png, send, tensor

from serving.launch import Server

MODEL = "fashion-xgboost"
PATH = f"/v2/models/{MODEL}/infer"
OK, REFUSED, SECONDS = 200, 400, 60


@pytest.fixture
def image(images: np.ndarray) -> np.ndarray:
    return images[:1]


@pytest.fixture
def label(server: Server, image: np.ndarray) -> list[int]:
    return ask(server, "rest", MODEL, body(tensor(image, datatype="UINT8"))).outputs["predict"]


def talk(server: Server, *parts: bytes, answers: int) -> list[int]:
    """The statuses of so many responses on one connection, to which parts are sent apart."""
    host, port = server.rest.removeprefix("http://").split(":")
    statuses = []
    with closing(socket.create_connection((host, int(port)), timeout=SECONDS)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        with connection.makefile("rb") as file:
            for _ in range(answers):
                statuses.append(int(file.readline().split()[1]))
                lines = iter(lambda: file.readline().strip(), b"")
                fields = dict(line.lower().split(b": ", 1) for line in lines)
                file.read(int(fields[b"content-length"]))
    return statuses


OFFERS = {
    "Java": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "a web socket": b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
    "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n",
}


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_to_upgrade_is_ignored(
    server: Server, image: np.ndarray, offer: bytes, framing: str
):
    text = json.dumps(body(tensor(image, datatype="UINT8"))).encode()
    large = text + b" " * 2**20
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\n".encode()

    def request(content: bytes, offered: bytes) -> bytes:
        if framing == "length":
            return head + offered + b"Content-Length: %d\r\n\r\n" % len(content) + content
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        return head + offered + b"Transfer-Encoding: chunked\r\n\r\n" + chunk

    offered, plain = request(text, offer), request(text, b"")
    assert talk(server, offered, plain, offered, answers=3) == [OK] * 3
    assert talk(server, offered + plain, answers=2) == [OK] * 2
    pieces = [offered[start : start + 40] for start in range(0, 400, 40)]
    assert talk(server, *pieces, offered[400:] + plain, answers=2) == [OK] * 2
    assert talk(server, request(large, offer) + plain, answers=2) == [OK] * 2
    get = b"GET /v2 HTTP/1.1\r\nHost: h\r\n" + offer + b"\r\n"
    assert talk(server, get + plain, answers=2) == [OK] * 2
    assert "upgrade" not in server.log.read_text("utf-8").lower()


def test_a_long_head_is_rejected_and_pipelined_requests_are_not(server: Server):
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n"
    assert talk(server, get + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n", answers=1) == [431]
    assert talk(server, *[get + b"X: "], *[b"a" * 20_000] * 4, answers=1) == [431]
    assert talk(server, (get + b"\r\n") * 2000, answers=2000) == [OK] * 2000


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
            response = ask(server, protocol, MODEL, body(*columns))
            assert response.outputs == {"predict": label * 3}
    bad = ask(server, "rest", MODEL, body(*columns[:-1]))
    assert bad.error == "expected one input tensor, or 784 columns of a pixel each, got 783"


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
    del request.inputs[:]
    request.inputs.add(name="x", datatype="FP16", shape=[1, 784])
    words = "expected values of FP16 in raw_input_contents, got none"
    assert send(server, request).error == words


def kinds_of_base64(file: bytes) -> dict[str, str]:
    plain = base64.b64encode(file).decode()
    return {
        "in lines": base64.encodebytes(file).decode(),
        "url-safe": base64.urlsafe_b64encode(file).decode(),
        "without padding": plain.rstrip("="),
        "a data URL": f"data:image/png;base64,{plain}",
    }


def test_base64_is_read_as_tools_write_it(server: Server, image: np.ndarray, label: list[int]):
    file = base64.b64decode(png(image.reshape(28, 28)))
    for text in kinds_of_base64(file).values():
        picture = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [text]}
        assert ask(server, "rest", MODEL, body(picture)).outputs == {"predict": label}
        request = pb.ModelInferRequest(model_name=MODEL)
        input_ = request.inputs.add(name="x", datatype="BYTES", shape=[1])
        input_.contents.bytes_contents.append(text.encode())
        if not text.startswith("data:"):
            assert send(server, request).outputs == {"predict": label}  # by what it plainly is
        input_.parameters["content_type"].string_param = "base64"
        assert send(server, request).outputs == {"predict": label}
    picture["data"] = ["abc!def"]
    words = "expected base64, got '!' at character 3, at image 0"
    assert ask(server, "rest", MODEL, body(picture)).error == words


@pytest.mark.parametrize(
    ("field", "is_compressed"),
    [
        ("gzip", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("identity", False),
    ],
)
def test_a_large_response_is_compressed_for_those_who_accept_it(
    server: Server, images: np.ndarray, field: str, is_compressed: bool
):
    request = body(tensor(images[:100], datatype="UINT8"), outputs=("predict_proba",))
    headers = {"Accept-Encoding": field}
    url = f"{server.rest}{PATH}"
    response = requests.post(url, json=request, headers=headers, timeout=SECONDS)
    assert response.headers.get("content-encoding") == ("gzip" if is_compressed else None)
    assert len(response.json()["outputs"][0]["data"]) == 1000
    small = requests.post(
        url, json=body(tensor(images[:1], datatype="UINT8")), headers=headers, timeout=SECONDS
    )
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize("name", ["GZIP", "x-gzip", "Gzip"])
def test_a_body_in_gzip_is_read_however_it_is_called(
    server: Server, image: np.ndarray, label: list[int], name: str
):
    text = gzip.compress(json.dumps(body(tensor(image, datatype="UINT8"))).encode())
    headers = {"Content-Encoding": name}
    response = requests.post(f"{server.rest}{PATH}", text, headers=headers, timeout=SECONDS)
    assert response.json()["outputs"][0]["data"] == label


@each_protocol
def test_pixels_divided_by_255_are_rejected_with_the_remedy(
    server: Server, images: np.ndarray, protocol: str
):
    scaled = ask(server, protocol, MODEL, body(tensor(images[:2] / 255)))
    assert scaled.error == (
        "expected pixel values from 0 to 255, got fractions of at most 1; multiply them by 255"
    )
    black_and_white = (images[:2] > 128).astype(float)
    assert ask(server, protocol, MODEL, body(tensor(black_and_white))).status == OK
    mixed = np.vstack([images[:1] / 255, images[:1]])
    assert ask(server, protocol, MODEL, body(tensor(mixed))).status == OK


@each_protocol
def test_what_a_client_names_does_not_set_how_much_is_sent_back(
    server: Server, image: np.ndarray, protocol: str
):
    one = tensor(image, datatype="UINT8")
    cases = {
        "expected each output once, got image 40 times": body(one, outputs=("image",) * 40),
        "expected an id of at most 1,000 characters, got 100,000": body(one, id="ü" * 100_000),
        "expected a shape of at most 32 axes, got 100,000": body(one | {"shape": [1] * 100_000}),
        "expected at most 10,000 inputs, got 10,001": body(*[tensor([1.0], [1])] * 10_001),
    }
    for words, request in cases.items():
        response = ask(server, protocol, MODEL, request)
        assert response.error == words
    sizes = body(one | {"shape": [2**62] * 32})
    for request in (sizes, body(one | {"datatype": "x" * 10_000})):
        assert len(ask(server, protocol, MODEL, request).error) <= 500


def test_the_number_of_rows_is_asked_for_where_a_shape_has_minus_one(
    server: Server, image: np.ndarray
):
    request = body(tensor(image, [-1, 784], datatype="UINT8"))
    for protocol in ("rest", "grpc"):
        error = ask(server, protocol, MODEL, request).error
        assert error == "expected the number of images in place of -1, got [-1, 784]"


def test_a_byte_order_mark_and_a_strange_name_are_named(server: Server, image: np.ndarray):
    text = b"\xef\xbb\xbf" + json.dumps(body(tensor(image, datatype="UINT8"))).encode()
    response = requests.post(f"{server.rest}{PATH}", text, timeout=SECONDS)
    assert response.json()["error"] == "expected a body in JSON, got a byte order mark before it"
    for name in ("modèle", "模型"):
        response_ = send(server, message(body(tensor(image, datatype="UINT8")), name))
        assert response_.status == 404
        assert name in response_.error


def picture_of(image: Image.Image, kind: str, **more: Any) -> dict[str, Any]:
    file = BytesIO()
    image.save(file, kind, **more)
    data = [base64.b64encode(file.getvalue()).decode()]
    return body({"name": "x", "shape": [1], "datatype": "BYTES", "data": data})


def test_pictures_are_read_as_phones_and_browsers_make_them(server: Server):
    red = Image.new("RGB", (300, 400), (200, 30, 30))
    for kind in ("WEBP", "BMP", "PNG", "JPEG"):
        assert ask(server, "rest", MODEL, picture_of(red, kind)).status == OK
    large = Image.new("RGB", (6000, 4000), (120, 130, 140))
    assert ask(server, "rest", MODEL, picture_of(large, "JPEG")).status == OK
    assert ask(server, "rest", MODEL, picture_of(red.convert("CMYK"), "JPEG")).status == OK
    assert ask(server, "rest", MODEL, picture_of(red, "GIF")).error.startswith(
        "expected a PNG, JPEG, WebP or BMP file, got"
    )
    thin = ask(server, "rest", MODEL, picture_of(Image.new("L", (1, 5000)), "PNG"))
    assert thin.error == (
        "expected a picture whose longer edge is at most 28 times the shorter, "
        "got 1 × 5,000, at image 0"
    )
    huge = ask(server, "rest", MODEL, picture_of(Image.new("1", (20_000, 10_000)), "PNG"))
    assert huge.error == (
        "expected a picture of at most 16,777,216 pixels, got 200,000,000, at image 0"
    )


def test_many_small_files_of_large_pictures_are_too_many(server: Server):
    request = picture_of(Image.new("1", (4096, 4096)), "PNG")
    (one,) = request["inputs"]
    start = time.monotonic()
    response = ask(server, "rest", MODEL, body(one | {"shape": [400], "data": one["data"] * 400}))
    assert response.error == (
        "expected pictures of at most 268,435,456 pixels in all, got more, at image 16"
    )
    assert time.monotonic() - start < SECONDS


def test_a_damaged_chunk_is_the_clients_mistake(server: Server):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress((b"\0" + b"\5" * 28) * 28)) + chunk(b"IEND", b"")
    extras = {
        b"eXIf": b"II*\0\x08",
        b"gAMA": b"",
        b"tRNS": b"",
        b"cHRM": b"\0",
        b"iCCP": b"x\0\0zz",
    }
    for kind, extra in extras.items():
        file = base64.b64encode(head + chunk(kind, extra) + rest).decode()
        picture = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [file]}
        assert ask(server, "rest", MODEL, body(picture)).status in (OK, REFUSED)


def test_a_file_of_the_page_is_sent_whole(server: Server):
    url = f"{server.rest}/demo/demo.js"
    whole = requests.get(url, timeout=SECONDS)
    ranges = ",".join(f"{i}-{i}" for i in range(0, 6000, 2))
    for field in ("bytes=0-1,5-9", "bytes=-5", f"bytes={ranges}"):
        part = requests.get(url, headers={"Range": field}, timeout=SECONDS)
        assert (part.status_code, part.content) == (OK, whole.content)


def test_kubernetes_can_probe_over_grpc(server: Server):
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in (b"", b"inference.GRPCInferenceService", MODEL.encode()):
            request = b"\x0a%c%b" % (len(name), name) if name else b""
            assert check(request, timeout=SECONDS) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            check(b"\x0a\x04none", timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        assert next(watch(b"", timeout=SECONDS)) == b"\x08\x01"
        assert next(watch(b"\x0a\x04none", timeout=SECONDS)) == b"\x08\x03"


def test_numbers_are_marked_as_mlservers_are(server: Server, image: np.ndarray):
    request = body(tensor(image, datatype="UINT8"), outputs=("predict", "label"))
    outputs = requests.post(f"{server.rest}{PATH}", json=request, timeout=SECONDS).json()["outputs"]
    assert [o["parameters"] for o in outputs] == [{"content_type": "np"}, {"content_type": "str"}]
