"""Both models answer alike, over both protocols.  Run: pytest tests/test_contract.py"""

import json
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wire import (
    FIELDS,
    REFUSED,
    UNKNOWN,
    ask,
    body,
    each_model,
    each_way,
    message,
    png,
    post,
    send,
    tensor,
)

from serving.client import Outputs, infer_request
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.packaged import models_in
from serving.launch import Server
from stages.data.idx import Images
from stages.evaluate import offline_outputs
from stages.evaluation.checks import TOLERANCE

TEST_ROWS = 10_000  # of the published test set
NUMBERS = [*(f"{kind}{bits}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64))]
FLOATS = ["FP16", "FP32", "FP64"]


def offline(repository: Path, model: str, images: np.ndarray) -> Outputs:
    (path,) = (found.path for found in models_in(repository) if found.name == model)
    return offline_outputs(path, [images])


@each_model
def test_the_request_of_the_blog_is_answered_with_an_int64_label(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    row = digits[1].images[0].astype(float).tolist()
    request = {"inputs": [{"name": "predict", "shape": [1, 784], "datatype": "FP64", "data": row}]}
    address = f"{server.rest}/v2/models/{model}/versions/v1/infer"
    answer = requests.post(address, json=request, timeout=60).json()
    assert answer.pop("id")
    (label,) = offline(repository, model, digits[1].images[:1])[LABELS].tolist()
    output = {"name": "predict", "shape": [1], "datatype": "INT64", "data": [label]}
    (came,) = answer["outputs"]
    assert {key: came[key] for key in output} == output
    assert (answer["model_name"], answer["model_version"]) == (model, "v1")


@each_model
@pytest.mark.parametrize("protocol", ["rest", "raw"])
def test_ten_thousand_rows_go_in_one_request(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str, protocol: str
):
    images = np.resize(digits[1].images, (TEST_ROWS, 784))
    said = ask(server, protocol, model, infer_request(images, "FP64"))
    assert np.array_equal(said.outputs[LABELS], offline(repository, model, images)[LABELS])


@each_model
def test_the_example_beside_the_models_is_answered(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    example = json.loads((repository / "models/example.json").read_text("utf-8"))
    labels = post(server, model, example).outputs[LABELS]
    assert labels == offline(repository, model, digits[1].images[:1])[LABELS].tolist()


@each_model
@pytest.mark.parametrize("datatype", [*NUMBERS, *FLOATS])
def test_every_type_of_number_is_read(
    server: Server, digits: tuple[Images, Images], model: str, datatype: str
):
    images = np.minimum(digits[1].images[:3], 127)  # which INT8 ends at
    expected = ask(server, "rest", model, body(tensor(images, datatype="UINT8"))).outputs
    assert ask(server, "rest", model, body(tensor(images, datatype=datatype))).outputs == expected
    kind = "f" if datatype in FLOATS else datatype[0].lower()
    size = int(datatype.lstrip("UINTFP")) // 8
    request = pb.ModelInferRequest(model_name=model, inputs=[])
    request.inputs.add(name="x", datatype=datatype, shape=[3, 784])
    request.raw_input_contents.append(images.astype(f"<{kind}{size}").tobytes())
    assert send(server, request).outputs == expected


@each_model
@each_way
@pytest.mark.parametrize("shape", [[1, 784], [784], [28, 28], [1, 28, 28]], ids=str)
def test_one_image_has_four_shapes_and_any_name(
    server: Server, digits: tuple[Images, Images], model: str, protocol: str, shape: list[int]
):
    image = digits[1].images[0]
    expected = post(server, model, body(tensor(image[None]))).outputs
    request = body(tensor(image, shape, name="anything"))
    assert ask(server, protocol, model, request).outputs == expected


@each_model
@each_way
def test_many_images_have_two_shapes_and_rest_may_nest_them(
    server: Server, digits: tuple[Images, Images], model: str, protocol: str
):
    images = digits[1].images[:5]
    expected = post(server, model, body(tensor(images))).outputs
    squares = images.reshape(5, 28, 28)
    assert ask(server, protocol, model, body(tensor(squares))).outputs == expected
    for nested in (images.tolist(), squares.tolist()):
        assert post(server, model, body(tensor(nested))).outputs == expected


@each_model
@each_way
def test_a_picture_of_the_models_own_size_is_read_as_its_pixels(
    server: Server, digits: tuple[Images, Images], model: str, protocol: str
):
    images = digits[1].images[:3]
    files = [png(image.reshape(28, 28)) for image in images]
    outputs = (LABELS, PROBABILITIES)
    expected = post(server, model, body(tensor(images), outputs=outputs)).outputs
    for shape in ([3], [3, 1]):
        request = body(tensor(files, shape, "BYTES"), outputs=outputs)
        assert ask(server, protocol, model, request).outputs == expected


@each_model
@each_way
def test_dark_on_bright_is_inverted_on_request(
    server: Server, digits: tuple[Images, Images], model: str, protocol: str
):
    image = digits[1].images[:1]
    expected = post(server, model, body(tensor(image))).outputs
    negative = tensor([png(255 - image.reshape(28, 28))], [1], "BYTES")
    numbers = tensor(255 - image)
    for one in (negative, numbers):
        request = body(one, parameters={"invert": True})
        assert ask(server, protocol, model, request).outputs == expected
        request = body(one | {"parameters": {"invert": True}})
        assert ask(server, protocol, model, request).outputs == expected


@each_model
@each_way
def test_each_output_comes_on_request_in_the_order_asked(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str, protocol: str
):
    images = digits[1].images[:4]
    own = offline(repository, model, images)
    for outputs in (
        ("label",),
        ("predict_proba", "predict"),
        ("label", "predict", "predict_proba"),
        ("image", "label"),
    ):
        said = ask(server, protocol, model, body(tensor(images), outputs=outputs))
        assert list(said.outputs) == list(outputs)
        for name, values in said.outputs.items():
            if name == "label":
                assert values == [str(label) for label in own[LABELS]]
            elif name == "image":
                assert np.array_equal(np.reshape(values, images.shape), images)
            else:
                assert np.allclose(np.ravel(values), own[name].ravel(), atol=TOLERANCE)


@pytest.mark.parametrize("route", ["infer_stream", "generate_stream"])
def test_a_stream_is_one_event_or_a_refusal(
    server: Server, digits: tuple[Images, Images], route: str
):
    address = f"{server.rest}/v2/models/fashion-sklearn/{route}"
    request = body(tensor(digits[1].images[:2]))
    answer = requests.post(address, json=request, timeout=60)
    assert answer.text.startswith("data: ")
    labels = post(server, "fashion-sklearn", request).outputs[LABELS]
    assert json.loads(answer.text.removeprefix("data: "))["outputs"][0]["data"] == labels
    refused = requests.post(address, json=body(), timeout=60)
    assert refused.status_code == REFUSED
    assert refused.json()["error"] == "expected one input tensor, got none"
    unknown = requests.post(address.replace("sklearn", "torch"), json=request, timeout=60)
    assert unknown.status_code == UNKNOWN


def test_a_stream_over_grpc_answers_each_request_and_may_be_empty(
    server: Server, digits: tuple[Images, Images]
):
    requests_ = [message(body(tensor(digits[1].images[:n])), "fashion-xgboost") for n in (1, 3)]
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        answers = list(stream(iter(requests_), timeout=60))
        assert [list(a.outputs[0].shape) for a in answers] == [[1], [3]]
        assert list(stream(iter([]), timeout=60)) == []
        with pytest.raises(grpc.RpcError) as error:
            list(stream(iter([message(body(), "fashion-xgboost")]), timeout=60))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_metadata_tells_of_tensors_classes_training_and_files(server: Server, repository: Path):
    for model in models_in(repository):
        told = requests.get(f"{server.rest}/v2/models/{model.name}", timeout=60).json()
        settings = json.loads((model.path.parent / "model-settings.json").read_text("utf-8"))
        assert told["inputs"] == [{"name": "predict", "datatype": "UINT8", "shape": [-1, 784]}]
        assert [(o["name"], o["datatype"], o["shape"]) for o in told["outputs"]] == [
            ("predict", "INT64", [-1]),
            ("predict_proba", "FP64", [-1, 10]),
            ("label", "BYTES", [-1]),
            ("image", "UINT8", [-1, 784]),
        ]
        assert told["versions"] == ["v1"]
        extra = settings["parameters"]["extra"]
        assert {
            k: v if k == "max_rows" else json.loads(v) for k, v in told["parameters"].items()
        } == (extra)
        # Over gRPC, Triton's protocol buffers have no field for them, but they are in the message.
        with grpc.insecure_channel(server.grpc) as channel:
            request = pb.ModelMetadataRequest(name=model.name)
            answer = GRPCInferenceServiceStub(channel).ModelMetadata(request, timeout=60)
        for digest in extra["sha256"].values():
            assert digest.encode() in answer.SerializeToString()


def test_every_field_of_a_message_is_covered():
    fields = pb.InferTensorContents.DESCRIPTOR.fields_by_name
    assert set(FIELDS.values()) <= set(fields)
