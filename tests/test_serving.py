"""The blog's requests work, wrong ones do no harm.  Run: pytest tests/test_serving.py"""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from serving.client import AnswerError, infer, infer_request
from serving.server import Server, models_in
from stages.dataset import Images
from stages.evaluate import offline_answer

TEST_ROWS = 10_000  # of the published test set
each_model = pytest.mark.parametrize("model", ["fashion-sklearn", "fashion-xgboost"])


def ask(server: Server, model: str, body: Any) -> requests.Response:
    """POST a body as the blog does."""
    address = f"{server.rest}/v2/models/{model}/versions/v1/infer"
    return requests.post(address, json=body, timeout=120)


def offline(repository: Path, model: str, images: np.ndarray) -> np.ndarray:
    (path,) = (found.path for found in models_in(repository) if found.name == model)
    return offline_answer(path, [images]).labels


@each_model
def test_one_row_of_fp64_is_answered_with_an_int64_label(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    row = digits[1].images[0].astype(float).tolist()
    request = {"inputs": [{"name": "predict", "shape": [1, 784], "datatype": "FP64", "data": row}]}
    answer = ask(server, model, request).json()
    (output,) = answer["outputs"]
    assert (answer["model_name"], answer["model_version"]) == (model, "v1")
    assert (output["name"], output["datatype"]) == ("predict", "INT64")
    assert output["data"] == offline(repository, model, digits[1].images[:1]).tolist()
    assert answer["id"]


@each_model
def test_ten_thousand_rows_go_in_one_request(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    images = np.resize(digits[1].images, (TEST_ROWS, 784))
    answer = ask(server, model, infer_request(images, "FP64")).json()
    (output,) = answer["outputs"]
    assert output["datatype"] == "INT64"
    assert np.array_equal(output["data"], offline(repository, model, images))


@each_model
def test_rows_may_be_nested_lists(server: Server, digits: tuple[Images, Images], model: str):
    nested = infer_request(digits[1].images[:3], "FP64")
    nested["inputs"][0]["data"] = digits[1].images[:3].astype(float).tolist()
    flat = infer_request(digits[1].images[:3], "FP64")
    labels = [ask(server, model, body).json()["outputs"][0]["data"] for body in (nested, flat)]
    assert labels[0] == labels[1]


@each_model
def test_the_example_beside_the_models_is_answered(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    example = json.loads((repository / "models/example.json").read_text("utf-8"))
    (label,) = ask(server, model, example).json()["outputs"][0]["data"]
    assert label == offline(repository, model, digits[1].images[:1])[0]


@each_model
@pytest.mark.parametrize("size", [1, 2, 63, 300])
def test_the_client_gets_the_offline_labels(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str, size: int
):
    images = digits[1].images[:size]
    labels, probabilities = infer(server.rest, model, "v1", images)
    assert labels.dtype == np.int64
    assert np.array_equal(labels, offline(repository, model, images))
    assert probabilities.shape == (size, 10)
    assert np.array_equal(probabilities.argmax(axis=1), labels)
    assert np.allclose(probabilities.sum(axis=1), 1)


@each_model
def test_a_grpc_message_holds_the_whole_test_set(
    server: Server, repository: Path, digits: tuple[Images, Images], model: str
):
    images = np.resize(digits[1].images, (TEST_ROWS, 784))
    request = pb.ModelInferRequest(
        model_name=model,
        model_version="v1",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(
                name="predict", datatype="FP64", shape=images.shape
            )
        ],
        raw_input_contents=[images.astype(np.float64).tobytes()],
    )
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, unlimited) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=120)
    (output,) = answer.outputs
    assert output.datatype == "INT64"
    labels = np.frombuffer(answer.raw_output_contents[0], np.int64)
    assert np.array_equal(labels, offline(repository, model, images))


@each_model
@pytest.mark.parametrize(
    "body",
    [
        "not an object",
        {},
        {"inputs": []},
        infer_request(np.zeros((1, 783))),
        {"inputs": [{"name": "predict", "shape": [1, 784], "datatype": "FP64", "data": [0.0]}]},
        {"inputs": [{"name": "predict", "shape": [1, 784], "datatype": "FP99", "data": [0.0]}]},
        {"inputs": [{"name": "predict", "shape": [1], "datatype": "FP64", "data": [None]}]},
        {"inputs": [{"name": "predict", "shape": [1], "datatype": "BYTES", "data": ["x"]}]},
    ],
    ids=lambda body: json.dumps(body)[:70],
)
def test_a_malformed_request_is_refused_and_the_next_one_answered(
    server: Server, digits: tuple[Images, Images], model: str, body: Any
):
    assert ask(server, model, body).status_code >= HTTPStatus.BAD_REQUEST
    assert len(infer(server.rest, model, "v1", digits[1].images[:2]).labels) == 2


@each_model
@pytest.mark.parametrize("value", [-1.0, 255.5, 1e9])
def test_a_value_that_no_pixel_has_is_refused_in_words(server: Server, model: str, value: float):
    request = infer_request(np.full((1, 784), value), "FP64")
    answer = ask(server, model, request)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    expected = f"expected pixel values from 0 to 255, got {value} at image 0, pixel 0"
    assert expected in answer.json()["error"]


def test_an_unknown_model_or_version_is_refused_in_one_line(
    server: Server, digits: tuple[Images, Images]
):
    for model, version in [("fashion-torch", "v1"), ("fashion-sklearn", "v9")]:
        with pytest.raises(AnswerError, match=r"HTTP 404: .*not found") as error:
            infer(server.rest, model, version, digits[1].images[:1])
        assert "\n" not in str(error.value)
