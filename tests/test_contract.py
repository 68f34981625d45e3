"""What a request may be, and what its response is, over both protocols.

Run: pytest tests/test_contract.py

The models share all that is tried with one of them here.
"""

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from scratch import Digits, deep
from tritonclient.grpc import service_pb2 as pb
from wire import (
    MODELS,
    OK,
    binary,
    body,
    each_model,
    each_way,
    infer,
    infer_url,
    message,
    offline,
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
from serving.fashion.packaged import MODEL_SETTINGS, models_in
from serving.launch import Server

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
    response = requests.post(infer_url(server, model, "v1"), json=request, timeout=60).json()
    assert response.pop("id")
    labels = offline(repository, model, images[:1])[LABELS].tolist()
    output: dict[str, Any] = {"name": "predict", "shape": [1], "datatype": "INT64", "data": labels}
    output["parameters"] = {"content_type": "np"}  # as MLServer marks arrays
    assert response == {
        "model_name": model, "model_version": "v1", "parameters": {}, "outputs": [output],
    }  # fmt: skip


@deep
@pytest.mark.parametrize("protocol", ["rest", "raw"])
def test_ten_thousand_rows_go_in_one_request(
    server: Server, repository: Path, images: np.ndarray, protocol: str
):
    request = infer_request(np.resize(images, (TEST_ROWS, 784)), "FP64")
    labels = np.resize(offline(repository, MODEL, images)[LABELS], TEST_ROWS).tolist()
    assert infer(server, protocol, MODEL, request).outputs == {LABELS: labels}


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


@pytest.mark.parametrize(
    "shape", [[1, 784], [784], [28, 28], [1, 28, 28], [5, 784], [5, 28, 28]], ids=str
)
def test_one_image_has_four_shapes_many_have_two_and_any_name(
    server: Server, images: np.ndarray, shape: list[int]
):
    images = images[: shape[0] if shape[0] == 5 else 1]
    expected = post(server, MODEL, body(tensor(images))).outputs
    for protocol in ("rest", "grpc", "raw"):
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


def test_base64_is_read_as_tools_write_it(server: Server, images: np.ndarray):
    expected = post(server, MODEL, body(tensor(images[:1]))).outputs
    plain = png(images[0].reshape(28, 28))
    file = base64.b64decode(plain)
    in_lines, url_safe = (f(file).decode() for f in (base64.encodebytes, base64.urlsafe_b64encode))
    for text in (in_lines, url_safe, plain.rstrip("="), f"data:image/png;base64,{plain}"):
        request = body(tensor([text], [1], "BYTES"))
        assert infer(server, "rest", MODEL, request).outputs == expected
        request = pb.ModelInferRequest(model_name=MODEL)
        input_ = request.inputs.add(name="x", datatype="BYTES", shape=[1])
        input_.contents.bytes_contents.append(text.encode())
        if not text.startswith("data:"):
            assert send(server, request).outputs == expected  # by what it plainly is
        input_.parameters["content_type"].string_param = "base64"
        assert send(server, request).outputs == expected


def test_pictures_are_read_as_phones_and_browsers_make_them(server: Server):
    red = np.full((400, 300, 3), (200, 30, 30), np.uint8)
    files = [png(red, kind) for kind in ("WEBP", "BMP", "PNG", "JPEG")]
    files.append(png(np.full((4000, 6000, 3), 130, np.uint8), "JPEG"))
    files.append(png(red, "JPEG", "CMYK"))
    for file in files:
        assert infer(server, "rest", MODEL, body(tensor([file], [1], "BYTES"))).status == OK


def test_a_table_of_a_column_a_pixel_is_put_together(server: Server, images: np.ndarray):
    expected = post(server, MODEL, body(tensor(images[:3]))).outputs
    for shape in ([3], [3, 1]):
        columns = [tensor(images[:3, i], shape, "INT64", name=f"p{i}") for i in range(784)]
        for protocol in ("rest", "grpc"):
            assert infer(server, protocol, MODEL, body(*columns)).outputs == expected


def test_values_over_grpc_are_read_from_whichever_field_has_them(
    server: Server, images: np.ndarray
):
    request = pb.ModelInferRequest(model_name=MODEL)
    input_ = request.inputs.add(name="x", datatype="INT64", shape=[1, 784])
    input_.contents.int_contents.extend(images[0].tolist())
    assert send(server, request) == post(server, MODEL, body(tensor(images[:1])))
    input_.contents.fp32_contents.append(1)
    words = "expected values of INT64 in int64_contents, got int_contents and fp32_contents"
    assert send(server, request).error == words


def test_black_and_white_pixels_and_a_few_faint_ones_are_predicted(
    server: Server, images: np.ndarray
):
    for pixels in ((images[:2] > 128).astype(float), np.vstack([images[:1] / 255, images[:1]])):
        assert infer(server, "rest", MODEL, body(tensor(pixels))).status == OK


@each_way
def test_dark_on_bright_is_inverted_on_request(server: Server, images: np.ndarray, protocol: str):
    image, invert = images[:1], {"parameters": {"invert": True}}
    expected = post(server, MODEL, body(tensor(image))).outputs
    negative = tensor([png(255 - image.reshape(28, 28))], [1], "BYTES")
    for one in (negative, tensor(255 - image)):
        for request in (body(one) | invert, body(one | invert)):
            assert infer(server, protocol, MODEL, request).outputs == expected


@each_way
def test_each_output_comes_on_request_in_the_order_requested(
    server: Server, images: np.ndarray, protocol: str
):
    for outputs in (("label",), ("predict_proba", "predict"), ("image", "label", "predict")):
        found = infer(server, protocol, MODEL, body(tensor(images[:4]), outputs=outputs)).outputs
        assert tuple(found) == outputs
    assert found["image"] == images[:4].ravel().tolist()
    assert found["label"] == [str(label) for label in found["predict"]]


def test_a_response_over_rest_is_the_same_whatever_a_request_has_that_changes_nothing(
    server: Server, images: np.ndarray
):
    address = infer_url(server, MODEL)
    request = body(tensor(images[:2]), outputs=OUTPUTS, id="42")
    response = requests.post(address, json=request, timeout=60)
    actual = response.json()
    assert list(actual) == ["model_name", "model_version", "id", "parameters", "outputs"]
    kinds = {output["name"]: output["parameters"]["content_type"] for output in actual["outputs"]}
    assert kinds == {name: "str" if name == "label" else "np" for name in OUTPUTS}
    assert response.headers["content-type"] == "application/json"
    changes: list[dict[str, Any]] = [{"parameters": {}}, {"parameters": None}, {"more": 1}]
    for more in changes:
        assert requests.post(address, json=more | request, timeout=60).content == response.content


def test_a_response_over_grpc_is_raw_where_its_request_is(server: Server, images: np.ndarray):
    request = body(tensor(images[:2]), outputs=OUTPUTS)
    with service(server) as methods:
        for raw, count in ((False, 0), (True, len(OUTPUTS))):
            response = methods.ModelInfer(message(request, MODEL, raw=raw), timeout=60)
            assert len(response.raw_output_contents) == count


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
        settings = json.loads((model.path.parent / MODEL_SETTINGS).read_text("utf-8"))
        for key in ("inputs", "outputs", "versions", "platform"):
            assert metadata[key] == settings[key]
        found = metadata["parameters"].items()
        extra = settings["parameters"]["extra"]
        assert {k: v if k == "max_rows" else json.loads(v) for k, v in found} == extra
        with service(server) as methods:
            request = pb.ModelMetadataRequest(name=model.name)
            over_grpc = methods.ModelMetadata(request, timeout=60).SerializeToString()
        assert metadata["parameters"]["sha256"].encode() in over_grpc


def test_the_samples_are_the_first_evaluation_images(server: Server, digits: Digits):
    response = requests.get(f"{server.rest}/demo/samples.json", timeout=60).json()
    images, labels, names = digits[1]
    assert response["class_names"] == list(names)
    assert len(response["images"]) >= 40
    for sample, pixels, label in zip(response["images"], images, labels, strict=False):
        assert (base64.b64decode(sample["pixels"]), sample["label"]) == (bytes(pixels), label)
