"""Both models refuse alike, over both protocols.  Run: pytest tests/test_refusals.py"""

import base64
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import (
    REFUSED,
    UNKNOWN,
    Response,
    ask,
    body,
    each_model,
    each_protocol,
    message,
    png,
    post,
    send,
    tensor,
)

from serving.launch import Server


@pytest.fixture
def server(each_host: Server) -> Server:
    return each_host


IMAGE = np.zeros((1, 784))
SHAPES = "expected shape [n, 784], [n, 28, 28], [784] or [28, 28], got "


def changed(place: int, value: object) -> list[object]:
    values: list[object] = [*IMAGE.ravel().tolist()]
    values[place] = value
    return values


def each_case(cases: list[tuple[str, Any, str]]) -> pytest.MarkDecorator:
    """cases: what is wrong with it, the request, and the words that refuse it."""
    names = [name for name, *_ in cases]
    return pytest.mark.parametrize(("request_body", "words"), [c[1:] for c in cases], ids=names)


# What is wrong with it, the request, and the words that refuse it, over both protocols.
REFUSED_BY_BOTH: list[tuple[str, Any, str]] = [
    ("no input", body(), "expected one input tensor, got none"),
    ("two inputs", body(tensor(IMAGE), tensor(IMAGE)),
     "expected one input tensor, or 784 columns of a pixel each, got 2"),
    ("783 pixels", body(tensor(IMAGE[:, 1:])), SHAPES + "[1, 783]"),
    ("no shape", body(tensor(IMAGE, [])), SHAPES + "[]"),
    ("29 rows", body(tensor(IMAGE, [1, 29, 28])), SHAPES + "[1, 29, 28]"),
    ("four axes", body(tensor(IMAGE, [1, 28, 28, 1])), SHAPES + "[1, 28, 28, 1]"),
    ("no image", body(tensor(IMAGE[:0])), "expected 1 to 10,000 images a request, got [0, 784]"),
    ("less than none", body(tensor(IMAGE, [-1, 784])),
     "expected the number of images in place of -1, got [-1, 784]"),
    ("too many", body(tensor([0.0], [10_001, 784])),
     "expected 1 to 10,000 images a request, got [10001, 784]"),
    ("too few values", body(tensor([0.0], [1, 784])),
     "expected 784 values for shape [1, 784], got 1"),
    ("too many values", body(tensor([0.0] * 785, [1, 784])),
     "expected 784 values for shape [1, 784], got 785"),
    ("unknown type", body(tensor(IMAGE, datatype="FP99")),
     "expected datatype UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64 "
     "or BYTES, got FP99"),
    ("truth values", body(tensor([True] * 784, [1, 784], "BOOL")),
     "expected datatype UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64 "
     "or BYTES, got BOOL"),
    ("below black", body(tensor(changed(17, -1.0), [1, 784])),
     "expected pixel values from 0 to 255, got -1 at image 0, pixel 17"),
    ("above white", body(tensor(changed(17, 255.5), [1, 784])),
     "expected pixel values from 0 to 255, got 255.5 at image 0, pixel 17"),
    ("far above white", body(tensor(changed(17, 1e300), [1, 784])),
     "expected pixel values from 0 to 255, got 1e+300 at image 0, pixel 17"),
    ("unknown output", body(tensor(IMAGE), outputs=("predict", "colour")),
     "expected outputs out of predict, predict_proba, label, image, got colour"),
    ("invert as text", body(tensor(IMAGE), parameters={"invert": "yes"}),
     "expected parameter invert as true or false, got yes"),
    ("no picture", body(tensor([base64.b64encode(b"GIF89a").decode()], [1], "BYTES")),
     "expected a PNG, JPEG, WebP or BMP file, got 6 bytes that begin with b'GIF89a', at image 0"),
    ("an empty picture", body(tensor([""], [1], "BYTES")),
     "expected a PNG, JPEG, WebP or BMP file, got no bytes, at image 0"),
    ("another kind", body(tensor([png(np.zeros((28, 28), "u1"), "GIF")], [1], "BYTES")),
     "expected a PNG, JPEG, WebP or BMP file, got 87 bytes that begin with "
     "b'GIF87a\\x1c\\x00', at image 0"),
    ("a huge picture", body(tensor([png(np.zeros((4097, 4096), "u1"))], [1], "BYTES")),
     "expected a picture of at most 16,777,216 pixels, got 4,096 × 4,097, at image 0"),
    ("a picture less", body(tensor([png(np.zeros((28, 28), "u1"))], [2], "BYTES")),
     "expected 2 pictures for shape [2], got 1"),
    ("pictures in a square", body(tensor([png(np.zeros((28, 28), "u1"))], [1, 2], "BYTES")),
     "expected shape [n] of BYTES, a picture each, got [1, 2]"),
]  # fmt: skip


@each_case(REFUSED_BY_BOTH)
@each_model
def test_what_the_contract_refuses_is_refused_with_the_same_words(
    server: Server, model: str, request_body: Any, words: str
):
    for protocol in ("rest", "grpc"):
        assert ask(server, protocol, model, request_body) == Response(REFUSED, {}, words), protocol


OTHER = "expected a request of the protocol, got another: "
# What JSON alone can say.
REFUSED_BY_REST: list[tuple[str, Any, str]] = [
    ("text for a body", "text", OTHER + "Expected `object`, got `str`"),
    ("a list for a body", [1], OTHER + "Expected `object`, got `array`"),
    ("no tensors", {}, "expected one input tensor, got none"),
    ("tensors without a list", {"inputs": 3}, OTHER + "Expected `array`, got `int`"),
    ("no data", {"inputs": [{"name": "x", "shape": [1, 784], "datatype": "FP64"}]},
     "expected inputs[0].data, got none"),
    ("no name", {"inputs": [{"shape": [1, 784], "datatype": "FP64", "data": [0]}]},
     OTHER + "Object missing required field `name` - at `$.inputs[0]`"),
    ("a shape in words", body(tensor([0.0], ["one", 784])),
     OTHER + "Expected `int`, got `str` - at `$.inputs[0].shape[0]`"),
    ("a number for an id", body(tensor(IMAGE), id=3), OTHER + "Expected `str | null`, got `int`"),
    ("a number beyond floats", body(tensor(changed(17, 10**400), [1, 784])),
     "expected numbers for shape [1, 784], got 1000"),
    ("a list for parameters", body(tensor(IMAGE), parameters=[]),
     OTHER + "Expected `object | null`, got `array` - at `$.parameters`"),
    ("null", body(tensor(changed(17, None), [1, 784])),
     "expected numbers for shape [1, 784], got null"),
    ("text", body(tensor(changed(17, "x"), [1, 784])),
     "expected numbers for shape [1, 784], got text"),
    ("truth", body(tensor([True] * 784, [1, 784])),
     "expected numbers for shape [1, 784], got booleans"),
    ("an object", body(tensor(changed(17, {}), [1, 784])),
     "expected numbers for shape [1, 784], got a dict"),
    ("a number beyond every type", body(tensor(changed(17, 10**19), [1, 784])),
     "expected pixel values from 0 to 255, got 1e+19 at image 0, pixel 17"),
    ("ragged lists", body(tensor([[0.0] * 700, [0.0] * 84], [1, 784])),
     "expected a flat list of numbers for shape [1, 784], got a ragged one"),
    ("no list", body(tensor(7.0, [1, 784])), "expected 784 values for shape [1, 784], got 1"),
    ("half a grey", body(tensor(changed(17, 0.5), [1, 784], "UINT8")),
     "expected whole numbers for UINT8, got 0.5"),
    ("no base64", body(tensor(["a picture!"], [1], "BYTES")),
     "expected base64, got '!' at character 8, at image 0"),
    ("numbers for pictures", body(tensor([3], [1], "BYTES")),
     "expected a picture's file, got 3, at image 0"),
]  # fmt: skip


@each_case(REFUSED_BY_REST)
@each_model
def test_what_json_alone_can_say_is_refused_in_words(
    server: Server, model: str, request_body: Any, words: str
):
    response = post(server, model, request_body)
    assert response.status == REFUSED
    assert response.error.startswith(words)
    assert "\n" not in response.error


@pytest.mark.parametrize("text", [b"", b"{", b'{"inputs": [NaN]}', b"\xff\xfe", b"Infinity"])
@each_model
def test_what_is_no_json_is_refused_in_words(server: Server, model: str, text: bytes):
    address = f"{server.rest}/v2/models/{model}/infer"
    headers = {"Content-Type": "application/json"}
    response = requests.post(address, data=text, headers=headers, timeout=60)
    assert response.status_code == REFUSED
    assert response.json()["error"].startswith("expected a body in JSON, got")


@each_model
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("protocol", ["grpc", "raw"])
def test_what_is_no_number_is_refused_in_words(
    server: Server, model: str, value: float, protocol: str
):
    response = ask(server, protocol, model, body(tensor(changed(17, value), [1, 784])))
    words = f"expected pixel values from 0 to 255, got {value} at image 0, pixel 17"
    assert response == Response(REFUSED, {}, words)


@each_model
def test_raw_bytes_that_do_not_fit_are_refused_in_words(server: Server, model: str):
    short, more, cut, none = (message(body(tensor(IMAGE)), model, raw=True) for _ in range(4))
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    expected = "expected 6,272 bytes of FP64 for shape [1, 784], got 6,271"
    assert send(server, short) == Response(REFUSED, {}, expected)
    more.raw_input_contents.append(b"")
    expected = "expected as many raw contents as inputs, 1, got 2"
    assert send(server, more) == Response(REFUSED, {}, expected)
    cut.inputs[0].datatype, cut.inputs[0].shape[:] = "BYTES", [1]
    cut.raw_input_contents[0] = b"\x09\x00\x00\x00abc"
    assert "that end within the one at byte 0" in send(server, cut).error
    del none.raw_input_contents[:]
    expected = "expected values of FP64 in fp64_contents, got none"
    assert send(server, none) == Response(REFUSED, {}, expected)


@each_model
@pytest.mark.parametrize("keep", [20, 60, -1])
def test_a_picture_that_is_cut_off_is_refused_in_words(server: Server, model: str, keep: int):
    random = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        file = base64.b64decode(png(random, kind))
        cut = base64.b64encode(file[: keep * len(file) // 100 if keep > 0 else 40]).decode()
        response = post(server, model, body(tensor([cut], [1], "BYTES")))
        assert response.status == REFUSED, kind
        assert response.error.startswith("expected a"), kind
        assert response.error.endswith("at image 0"), kind


@each_protocol
def test_an_unknown_model_or_version_is_not_found(server: Server, protocol: str):
    request = body(tensor(IMAGE))
    response = ask(server, protocol, "fashion-torch", request)
    assert response == Response(UNKNOWN, {}, "Model fashion-torch not found")
    response = ask(server, protocol, "fashion-sklearn", request, "v9")
    assert response == Response(UNKNOWN, {}, "Model fashion-sklearn with version v9 not found")


def test_words_of_a_client_cannot_begin_a_line_of_the_log(server: Server):
    before = len(server.log.read_text("utf-8").splitlines())
    for protocol in ("rest", "grpc"):
        response = ask(server, protocol, "fashion-sklearn", body(tensor(IMAGE, datatype="A\nB")))
        assert response.error.endswith(r"got 'A\nB'")
        ask(server, protocol, "no\nmodel" if protocol == "grpc" else "no%0Amodel", body())
    assert len(server.log.read_text("utf-8").splitlines()) == before + 4


@each_model
@pytest.mark.parametrize("action", ["load", "unload"])
def test_loading_and_unloading_by_request_is_refused(server: Server, model: str, action: str):
    address = f"{server.rest}/v2/repository/models/{model}/{action}"
    response = requests.post(address, timeout=60)
    assert response.status_code == 403
    assert response.json()["error"].startswith(f"expected no request to {action} models")
    kind = getattr(pb, f"RepositoryModel{action.title()}Request")
    with grpc.insecure_channel(server.grpc) as channel:
        method = getattr(GRPCInferenceServiceStub(channel), f"RepositoryModel{action.title()}")
        with pytest.raises(grpc.RpcError) as error:
            method(kind(model_name=model), timeout=60)
    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert requests.get(f"{server.rest}/v2/models/{model}/ready", timeout=60).ok


def test_a_refusal_is_one_line_of_the_log_without_a_stack(server: Server):
    before = len(server.log.read_text("utf-8").splitlines())
    for protocol in ("rest", "grpc"):
        for model in ("fashion-sklearn", "fashion-torch"):
            ask(server, protocol, model, body())
    lines = server.log.read_text("utf-8").splitlines()[before:]
    assert len(lines) == 4
    for line, words in zip(lines, 2 * ["got none", "not found"], strict=True):
        assert "rejected with" in line
        assert line.endswith(words)
