"""What is rejected, in which words, over both protocols.  Run: pytest tests/test_rejections.py

The models share what rejects a request; test_faults.py sends bad ones to both.
"""

import base64
import gzip
import json
import struct
import zlib
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from tritonclient.grpc import service_pb2 as pb
from wire import (
    LENGTH,
    OK,
    REJECTED,
    UNKNOWN,
    Response,
    binary,
    body,
    each_protocol,
    infer,
    log_of,
    message,
    png,
    post,
    post_binary,
    post_raw,
    send,
    service,
    tensor,
)

from serving.fashion.contract import LABELS
from serving.launch import Server

MODEL = "fashion-xgboost"
IMAGE = np.zeros((1, 784))
SHAPES = "expected shape [n, 784], [n, 28, 28], [784] or [28, 28], got "
TYPES = (
    "expected datatype UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64 "
    "or BYTES, got "
)
FORMATS = "PNG, JPEG, WebP or BMP file"


def one(value: object, datatype: str = "FP64") -> dict[str, Any]:
    """A request of a black image but for one pixel."""
    return body(tensor([*[0.0] * 17, value, *[0.0] * 766], [1, 784], datatype))


def picture(*files: str | int, shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return body(tensor(list(files), shape, "BYTES"))


def encoded(file: bytes) -> str:
    return base64.b64encode(file).decode()


RANDOM = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
BY_BOTH: dict[str, Any] = {  # requests, by the message that rejects them
    "expected one input tensor, got none": body(),
    "expected one input tensor, or 784 columns of a pixel each, got 2": body(*[tensor(IMAGE)] * 2),
    "expected at most 10,000 inputs, got 10,001": body(*[tensor([1.0], [1])] * 10_001),
    f"{SHAPES}[1, 783]": body(tensor(IMAGE[:, 1:])),
    "expected a shape of at most 32 axes, got 100,000": body(tensor(IMAGE, [1] * 100_000)),
    "expected 1 to 10,000 images a request, got [0, 784]": body(tensor(IMAGE[:0])),
    "expected the number of images in place of -1, got [-1, 784]": body(tensor(IMAGE, [-1, 784])),
    "expected 1 to 10,000 images a request, got [10001, 784]": body(tensor([0.0], [10_001, 784])),
    "expected 784 values for shape [1, 784], got 1": body(tensor([0.0], [1, 784])),
    f"{TYPES}FP99": body(tensor(IMAGE, datatype="FP99")),
    f"{TYPES}BOOL": body(tensor([True] * 784, [1, 784], "BOOL")),
    "expected pixel values from 0 to 255, got -1 at image 0, pixel 17": one(-1.0),
    "expected pixel values from 0 to 255, got 255.5 at image 0, pixel 17": one(255.5),
    "expected pixel values from 0 to 255, got fractions of at most 1; multiply them by 255":
        one(0.5),
    "expected outputs out of predict, predict_proba, label, image, got colour":
        body(tensor(IMAGE), outputs=("predict", "colour")),
    "expected each output once, got image 40 times": body(tensor(IMAGE), outputs=("image",) * 40),
    "expected an id of at most 1,000 characters, got 100,000":
        body(tensor(IMAGE), id="ü" * 100_000),
    "expected parameter invert as true or false, got yes":
        body(tensor(IMAGE), parameters={"invert": "yes"}),
    f"expected a {FORMATS}, got 6 bytes that begin with b'GIF89a', at image 0":
        picture(encoded(b"GIF89a")),
    f"expected a {FORMATS}, got no bytes, at image 0": picture(""),
    f"expected a whole {FORMATS}, got a damaged one: image file is truncated, at image 0":
        picture(encoded(base64.b64decode(png(RANDOM))[:-40])),
    "expected a picture of at most 16,777,216 pixels, got 4,096 × 4,097, at image 0":
        picture(png(np.zeros((4097, 4096), "u1"))),
    "expected a picture whose longer edge is at most 28 times the shorter, got 1 × 5,000, "
    "at image 0": picture(png(np.zeros((5000, 1), "u1"))),
    "expected 2 pictures for shape [2], got 1": picture(png(RANDOM), shape=(2,)),
    "expected shape [n] of BYTES, a picture each, got [1, 2]": picture(png(RANDOM), shape=(1, 2)),
}  # fmt: skip


@each_protocol
@pytest.mark.parametrize("words", BY_BOTH)
def test_what_the_contract_rejects_is_rejected_with_the_same_words(
    server: Server, protocol: str, words: str
):
    assert infer(server, protocol, MODEL, BY_BOTH[words]) == Response(REJECTED, {}, words)


def test_large_pictures_in_small_files_are_rejected(server: Server):
    files = [png(np.zeros((4096, 4096), bool))] * 17
    words = "expected pictures of at most 268,435,456 pixels in all, got more, at image 16"
    assert post(server, MODEL, picture(*files, shape=(17,))) == Response(REJECTED, {}, words)


OTHER = "expected a request of the protocol, got another: "
BY_REST: dict[str, Any] = {
    f"{OTHER}Expected `object`, got `str`": "text",
    "expected inputs[0].data, got none":
        {"inputs": [{"name": "x", "shape": [1, 784], "datatype": "FP64"}]},
    f"{OTHER}Object missing required field `name` - at `$.inputs[0]`":
        {"inputs": [{"shape": [1, 784], "datatype": "FP64", "data": [0]}]},
    f"{OTHER}Expected `int`, got `str` - at `$.inputs[0].shape[0]`":
        body(tensor([0.0], ["one", 784])),
    f"{OTHER}Expected `object | null`, got `array` - at `$.parameters`":
        body(tensor(IMAGE), parameters=[]),
    "expected numbers for shape [1, 784], got null": one(None),
    "expected numbers for shape [1, 784], got text": one("x"),
    "expected numbers for shape [1, 784], got 1000": one(10**400),
    "expected a flat list of numbers for shape [1, 784], got a ragged one":
        body(tensor([[0.0] * 700, [0.0] * 84], [1, 784])),
    "expected 784 values for shape [1, 784], got 1": body(tensor(7.0, [1, 784])),
    "expected whole numbers for UINT8, got 0.5": one(0.5, "UINT8"),
    "expected base64, got an error: ": picture("a picture!"),
    "expected a picture's file, got 3, at image 0": picture(3),
}  # fmt: skip


@pytest.mark.parametrize("words", BY_REST)
def test_what_json_alone_can_say_is_rejected_with_a_message(server: Server, words: str):
    response = post(server, MODEL, BY_REST[words])
    assert response.status == REJECTED
    assert response.error.startswith(words)
    assert "\n" not in response.error


NO_JSON = "expected a body in JSON, got "
LISTS = b"[" * 10_000 + b"]" * 10_000
GZIP, GZIP_BY_ANOTHER_NAME, BROTLI = ({"Content-Encoding": k} for k in ("gzip", "X-Gzip", "br"))
BY_BYTES: dict[str, tuple[bytes, dict[str, str], int, str]] = {  # by what is wrong
    "nothing": (b"", {}, REJECTED, NO_JSON),
    "no number": (b'{"inputs": [NaN]}', {}, REJECTED, NO_JSON),
    "no UTF-8": (b'{"id": "\xff"}', {}, REJECTED, NO_JSON),
    "a byte order mark": (b"\xef\xbb\xbf{}", {}, REJECTED, NO_JSON + "a byte order mark before it"),
    "lists without end": (b"[" * 100_000, {}, REJECTED, ""),
    "data of many lists": (json.dumps(body(tensor(0))).encode().replace(b": 0", b": " + LISTS), {},
        REJECTED, ""),
    "an empty request": (gzip.compress(b"{}"), GZIP_BY_ANOTHER_NAME, REJECTED,
        "expected one input tensor, got none"),
    "gzip cut off": (gzip.compress(b"{}")[:-4], GZIP, REJECTED,
        "expected a body in gzip, got one that is cut"),
    "no gzip": (b"{}", GZIP, REJECTED, "expected a body in gzip, got an error: "),
    "another compression": (b"{}", BROTLI, 415,
        "expected Content-Encoding gzip, deflate or none, got br"),
    "a bomb": (gzip.compress(bytes(80 * 2**20)), GZIP, 413, "expected a body of at most "),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_BYTES)
def test_bytes_that_are_no_request_are_rejected_with_a_message(server: Server, name: str):
    content, headers, status, words = BY_BYTES[name]
    response = post_raw(server, MODEL, content, headers)
    assert response.status_code == status
    assert response.json()["error"].startswith(words)


ONE = bytes(784)
ONE_BINARY = binary(784, [1, 784])
SUM = "expected as many bytes after the JSON as binary_data_size adds up to, got "
AS_TEXT = {"outputs": [{"name": LABELS, "parameters": {"binary_data": "yes"}}]}
BY_BINARY: dict[str, tuple[Any, bytes, dict[str, str | None]]] = {
    "expected 784 bytes of binary_data_size after the JSON, got 783":
        (body(ONE_BINARY), ONE[:-1], {}),
    f"{SUM}1 more": (body(ONE_BINARY), ONE + b"x", {}),
    f"{SUM}784 more": (body(tensor(IMAGE)), ONE, {}),
    "expected 784 bytes of UINT8 for shape [1, 784], got 783":
        (body(binary(783, [1, 784])), ONE[:-1], {}),
    "expected parameter binary_data_size as a number of bytes, got -1":
        (body(binary(-1, [1, 784])), ONE, {}),
    "expected inputs[0].data or its parameter binary_data_size, got both":
        (body(ONE_BINARY | {"data": [0]}), ONE, {}),
    f"expected the header {LENGTH} with binary_data_size, got none":
        (body(ONE_BINARY), b"", {LENGTH: None}),
    f"expected {LENGTH} from 1 to ": (body(ONE_BINARY), ONE, {LENGTH: "all"}),
    f"{NO_JSON}an error: ": (body(ONE_BINARY), ONE, {LENGTH: "20"}),
    "expected parameter binary_data as true or false, got yes":
        (body(tensor(IMAGE)) | AS_TEXT, b"", {}),
    "expected elements of BYTES, each after its length in four bytes, got 7 bytes that end":
        (body(binary(7, [1], "BYTES")), b"\x09\0\0\0abc", {}),
}  # fmt: skip


@pytest.mark.parametrize("words", BY_BINARY)
def test_binary_tensors_that_contradict_their_json_are_rejected_with_a_message(
    server: Server, words: str
):
    text, raw, headers = BY_BINARY[words]
    response = post_binary(server, MODEL, text, raw, **headers)
    assert response.status_code == REJECTED
    assert response.json()["error"].startswith(words)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("protocol", ["grpc", "raw"])
def test_what_is_no_number_is_rejected_with_a_message(server: Server, value: float, protocol: str):
    words = f"expected pixel values from 0 to 255, got {value} at image 0, pixel 17"
    assert infer(server, protocol, MODEL, one(value)) == Response(REJECTED, {}, words)


def test_as_many_raw_contents_as_inputs_are_expected_or_values(server: Server):
    request = message(body(tensor(IMAGE)), MODEL, raw=True)
    request.raw_input_contents.append(b"")
    assert send(server, request).error == "expected as many raw contents as inputs, 1, got 2"
    del request.raw_input_contents[:]
    assert send(server, request).error == "expected values of FP64 in fp64_contents, got none"


@each_protocol
def test_what_a_client_names_is_cut_short(server: Server, protocol: str):
    for more in ({"shape": [2**62] * 32}, {"datatype": "x" * 10_000}):
        assert len(infer(server, protocol, MODEL, body(tensor(IMAGE) | more)).error) <= 500


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_damaged_chunk_is_the_clients_mistake(server: Server):
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress((b"\0" + b"\5" * 28) * 28)) + chunk(b"IEND", b"")
    extras = [(b"eXIf", b"II*\0\x08"), (b"gAMA", b""), (b"tRNS", b""), (b"iCCP", b"x\0\0zz")]
    for extra in extras:
        file = encoded(start + chunk(*extra) + rest)
        assert post(server, MODEL, picture(file)).status in (OK, REJECTED)


@each_protocol
def test_an_unknown_model_or_version_is_not_found(server: Server, protocol: str):
    request = body(tensor(IMAGE))
    for name in ("fashion-torch", "模型"):
        response = infer(server, protocol, name, request)
        assert response == Response(UNKNOWN, {}, f"Model {name} not found")
    response = infer(server, protocol, MODEL, request, "v9")
    assert response == Response(UNKNOWN, {}, f"Model {MODEL} with version v9 not found")


@pytest.mark.parametrize("action", ["load", "unload"])
def test_loading_and_unloading_by_request_is_rejected(server: Server, action: str):
    address = f"{server.rest}/v2/repository/models/{MODEL}/{action}"
    response = requests.post(address, timeout=60)
    assert response.status_code == 403
    assert response.json()["error"].startswith(f"expected no request to {action} models")
    request = getattr(pb, f"RepositoryModel{action.title()}Request")(model_name=MODEL)
    with service(server) as methods, pytest.raises(grpc.RpcError) as error:
        getattr(methods, f"RepositoryModel{action.title()}")(request, timeout=60)
    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert requests.get(f"{server.rest}/v2/models/{MODEL}/ready", timeout=60).ok


def test_a_rejection_is_one_line_of_the_log_whatever_the_client_names(server: Server):
    before = len(log_of(server).splitlines())
    for protocol in ("rest", "grpc"):
        response = infer(server, protocol, MODEL, body(tensor(IMAGE, datatype="A\nB")))
        assert response.error.endswith(r"got 'A\nB'")
        infer(server, protocol, "no\nmodel" if protocol == "grpc" else "no%0Amodel", body())
        infer(server, protocol, MODEL, body())
    lines = log_of(server).splitlines()[before:]
    endings = (r"got 'A\nB'", "not found", "got none")
    assert len(lines) == 2 * len(endings)
    for line, words in zip(lines, 2 * endings, strict=True):
        assert "rejected with" in line
        assert line.endswith(words)
