"""What a request may be, and what its response is, over both protocols.

Run: pytest tests/test_contract.py

The models share all that is tried with one of them here.
"""

import json
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from scratch import slow
from tritonclient.grpc import service_pb2 as pb
from wire import (
    MODELS,
    binary,
    body,
    each_model,
    each_way,
    head,
    infer,
    infer_url,
    message,
    offline,
    open_connection,
    png,
    post,
    post_binary,
    send,
    service,
    stream,
    tensor,
)

from serving.client import infer_request
from serving.fashion.contract import LABELS, OUTPUTS, PROBABILITIES
from serving.fashion.packaged import models_in
from serving.launch import Server
from stages.evaluation.checks import TOLERANCE

MODEL, OTHER = MODELS
TEST_ROWS = 10_000  # of the published test set
NUMBERS = [*(f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64))]
FLOATS = ["FP16", "FP32", "FP64"]


@each_model
def test_the_request_of_the_blog_returns_an_int64_label(
    server: Server, repository: Path, images: np.ndarray, model: str
):
    row = images[0].astype(float).tolist()
    request = {"inputs": [{"name": "predict", "shape": [1, 784], "datatype": "FP64", "data": row}]}
    address = infer_url(server, model, "v1")
    response = requests.post(address, json=request, timeout=60).json()
    assert response.pop("id")
    (label,) = offline(repository, model, images[:1])[LABELS].tolist()
    output = {"name": "predict", "shape": [1], "datatype": "INT64", "data": [label]}
    (actual,) = response["outputs"]
    assert {key: actual[key] for key in output} == output
    assert (response["model_name"], response["model_version"]) == (model, "v1")


@pytest.mark.parametrize("protocol", ["rest", slow("raw")])
def test_ten_thousand_rows_go_in_one_request(
    server: Server, repository: Path, images: np.ndarray, protocol: str
):
    request = infer_request(np.resize(images, (TEST_ROWS, 784)), "FP64")
    labels = offline(repository, MODEL, images)[LABELS]
    response = infer(server, protocol, MODEL, request)
    assert np.array_equal(response.outputs[LABELS], np.resize(labels, TEST_ROWS))


@pytest.mark.parametrize("datatype", [*NUMBERS, *FLOATS])
def test_every_type_of_number_is_read_as_json_and_as_raw_bytes(
    server: Server, images: np.ndarray, datatype: str
):
    images = np.minimum(images[:3], 127)  # which INT8 ends at
    expected = post(server, MODEL, body(tensor(images, datatype="UINT8"))).outputs
    assert post(server, MODEL, body(tensor(images, datatype=datatype))).outputs == expected
    kind = "f" if datatype in FLOATS else datatype[0].lower()
    raw = images.astype(f"<{kind}{int(datatype.lstrip('UINTFP')) // 8}").tobytes()
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[raw])
    request.inputs.add(name="x", datatype=datatype, shape=[3, 784])
    assert send(server, request).outputs == expected
    response = post_binary(server, MODEL, body(binary(len(raw), [3, 784], datatype)), raw)
    assert response.json()["outputs"][0]["data"] == expected[LABELS]


@each_way
@pytest.mark.parametrize(
    "shape", [[1, 784], [784], [28, 28], [1, 28, 28], [5, 784], [5, 28, 28]], ids=str
)
def test_one_image_has_four_shapes_many_have_two_and_any_name(
    server: Server, images: np.ndarray, protocol: str, shape: list[int]
):
    images = images[: shape[0] if shape[0] == 5 else 1]
    expected = post(server, MODEL, body(tensor(images))).outputs
    request = body(tensor(images, shape, name="anything"))
    assert infer(server, protocol, MODEL, request).outputs == expected
    nested = body(tensor(images.reshape(shape).tolist()))  # which only JSON can
    assert post(server, MODEL, nested).outputs == expected


@each_way
def test_a_picture_of_the_models_own_size_is_read_as_its_pixels(
    server: Server, images: np.ndarray, protocol: str
):
    images = images[:3]
    files = [png(image.reshape(28, 28)) for image in images]
    outputs = (LABELS, PROBABILITIES)
    expected = post(server, MODEL, body(tensor(images), outputs=outputs)).outputs
    for shape in ([3], [3, 1]):
        request = body(tensor(files, shape, "BYTES"), outputs=outputs)
        assert infer(server, protocol, MODEL, request).outputs == expected


@each_way
def test_dark_on_bright_is_inverted_on_request(server: Server, images: np.ndarray, protocol: str):
    image = images[:1]
    expected = post(server, MODEL, body(tensor(image))).outputs
    negative = tensor([png(255 - image.reshape(28, 28))], [1], "BYTES")
    numbers = tensor(255 - image)
    for one in (negative, numbers):
        request = body(one, parameters={"invert": True})
        assert infer(server, protocol, MODEL, request).outputs == expected
        request = body(one | {"parameters": {"invert": True}})
        assert infer(server, protocol, MODEL, request).outputs == expected


@each_model
@each_way
def test_each_output_comes_on_request_in_the_order_requested(
    server: Server, repository: Path, images: np.ndarray, model: str, protocol: str
):
    images = images[:4]
    expected = offline(repository, model, images) | {"image": images}
    for outputs in (
        ("label",),
        ("predict_proba", "predict"),
        ("label", "predict", "predict_proba"),
        ("image", "label"),
    ):
        response = infer(server, protocol, model, body(tensor(images), outputs=outputs))
        assert list(response.outputs) == list(outputs)
        for name, values in response.outputs.items():
            if name == "label":
                assert values == [str(label) for label in expected[LABELS]]
            else:
                assert np.allclose(np.ravel(values), expected[name].ravel(), atol=TOLERANCE)


@pytest.mark.parametrize("version", ["", "v1"])
@pytest.mark.parametrize("outputs", [(), OUTPUTS])
def test_a_response_over_rest_is_the_same_whatever_a_request_has_that_changes_nothing(
    server: Server, images: np.ndarray, version: str, outputs: tuple[str, ...]
):
    address = infer_url(server, MODEL, version)
    request = body(tensor(images[:2]), outputs=outputs, id="42")
    response = requests.post(address, json=request, timeout=60)
    actual = response.json()
    assert list(actual) == ["model_name", "model_version", "id", "parameters", "outputs"]
    assert [output["name"] for output in actual["outputs"]] == list(outputs or ("predict",))
    assert response.headers["content-type"] == "application/json"
    text = json.dumps(request).encode()[1:]
    for other in (b'{"parameters": {}, ', b'{"parameters": null, ', b'{"more": 1, ', b" {"):
        assert requests.post(address, other + text, timeout=60).content == response.content
    for member in (b'{"id": "1", ', b'{"inputs": [], '):  # of a member twice, the last
        assert requests.post(address, member + text, timeout=60).content == response.content


def test_a_response_over_grpc_is_raw_where_its_request_is(server: Server, images: np.ndarray):
    request = body(tensor(images[:2]), outputs=OUTPUTS, id="42")
    plain, more = (message(request, MODEL, raw=True) for _ in range(2))
    more.parameters["nothing"].bool_param = True
    with service(server) as methods:
        first, second = (methods.ModelInfer(request, timeout=60) for request in (plain, more))
    assert first == second
    assert len(first.raw_output_contents) == len(first.outputs)


def test_a_response_has_the_id_of_its_request_or_one_of_its_own(server: Server, images: np.ndarray):
    address = infer_url(server, MODEL)
    request = body(tensor(images[:1]))
    ids = [requests.post(address, json=request, timeout=60).json()["id"] for _ in range(2)]
    assert ids[0] != ids[1]
    for id_ in ("", "ä", "a\r\nb: c"):
        response = requests.post(address, json=request | {"id": id_}, timeout=60)
        assert response.json()["id"] == id_
        with service(server) as methods:
            with_id = message(request | {"id": id_}, MODEL)
            over_grpc = methods.ModelInfer(with_id, timeout=60).id
        assert over_grpc == id_ or (over_grpc and not id_)  # where "" is none


def test_a_body_may_come_in_parts_or_not_at_all(server: Server, images: np.ndarray):
    content = json.dumps(body(tensor(images[:1]))).encode()
    start = head(MODEL, len(content), "Connection: close\r\n")
    with open_connection(server) as connection:
        connection.sendall(start + content[:100])
    for parts in ([start, content[:100], content[100:]], [start + content]):
        with open_connection(server) as connection:
            for part in parts:
                connection.sendall(part)
            with connection.makefile("rb") as response:
                assert b" 200 " in response.readline()


def test_a_stream_over_grpc_responses_each_request_and_may_be_empty(
    server: Server, images: np.ndarray
):
    requests_ = [message(body(tensor(images[:n])), OTHER) for n in (1, 3)]
    with grpc.insecure_channel(server.grpc) as channel:
        infer = stream(channel)
        responses = list(infer(iter(requests_), timeout=60))
        assert [list(r.outputs[0].shape) for r in responses] == [[1], [3]]
        assert list(infer(iter([]), timeout=60)) == []
        with pytest.raises(grpc.RpcError) as error:
            list(infer(iter([message(body(), OTHER)]), timeout=60))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_metadata_tells_of_tensors_classes_training_and_files(server: Server, repository: Path):
    for model in models_in(repository):
        metadata = requests.get(f"{server.rest}/v2/models/{model.name}", timeout=60).json()
        settings = json.loads((model.path.parent / "model-settings.json").read_text("utf-8"))
        assert metadata["inputs"] == [{"name": "predict", "datatype": "UINT8", "shape": [-1, 784]}]
        assert [(o["name"], o["datatype"], o["shape"]) for o in metadata["outputs"]] == [
            ("predict", "INT64", [-1]),
            ("predict_proba", "FP64", [-1, 10]),
            ("label", "BYTES", [-1]),
            ("image", "UINT8", [-1, 784]),
        ]
        assert metadata["versions"] == ["v1"]
        extra = settings["parameters"]["extra"]
        found = metadata["parameters"].items()
        assert {k: v if k == "max_rows" else json.loads(v) for k, v in found} == extra


def test_the_metadata_over_grpc_has_what_tritons_messages_have_no_field_for(server: Server):
    with service(server) as methods:
        response = methods.ModelMetadata(pb.ModelMetadataRequest(name=MODEL), timeout=60)
    over_rest = requests.get(f"{server.rest}/v2/models/{MODEL}", timeout=60).json()
    assert over_rest["parameters"]["sha256"].encode() in response.SerializeToString()
