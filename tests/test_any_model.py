"""Models of any runtime are served as this project's are.  Run: pytest tests/test_any_model.py"""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from any_models import add_models
from PIL import Image
from processes import ready, run_client, wait_until
from wire import (
    LENGTH,
    MODELS,
    OK,
    REJECTED,
    binary,
    body,
    each_protocol,
    each_way,
    infer,
    log_of,
    message,
    metrics,
    model_ready,
    post_binary,
    post_raw,
    service,
    tensor,
)

from serving.fashion.logged import read_log
from serving.launch import Server

FAILED = 500
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.6, 2.4]])
LABELS = [0, 2]
RED_AND_BLUE = [
    {"name": "size", "shape": [2], "datatype": "FP64", "data": [5.0, 6.5]},
    {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["dark red", "light blue"]},
]


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of both models and of the others, which logs its requests."""
    folder = tmp_path_factory.mktemp("others")
    copy = Path(shutil.copytree(repository, folder / "serving"))
    add_models(copy)
    with ready(copy, folder, FASHION_REQUEST_LOG=str(folder / "requests")) as server:
        yield server


@each_way
@pytest.mark.parametrize("model", ["iris", "table", "batched"])
def test_a_stock_runtime_predicts_rows(server: Server, protocol: str, model: str):
    response = infer(server, protocol, model, body(tensor(ROWS)))
    assert (response.status, response.outputs) == (OK, {"predict": LABELS})
    request = body(tensor(ROWS), outputs=("predict_proba", "predict"))
    outputs = infer(server, protocol, model, request).outputs
    assert list(outputs) == ["predict_proba", "predict"]
    assert np.reshape(outputs["predict_proba"], (2, 3)).argmax(axis=1).tolist() == LABELS


@each_protocol
def test_text_labels_and_a_regressor_are_predicted_too(server: Server, protocol: str):
    response = infer(server, protocol, "species", body(tensor(ROWS)))
    assert response.outputs == {"predict": ["setosa", "virginica"]}
    (price,) = infer(server, protocol, "price", body(tensor(ROWS[:1]))).outputs["predict"]
    assert 10 < price < 12  # twice 5.1, about


@each_protocol
def test_named_columns_are_taken_in_any_order_and_as_mlservers_codec_encodes_a_data_frame(
    server: Server, protocol: str
):
    size, colour = ({**column, "shape": [2, 1]} for column in RED_AND_BLUE)
    encoded = body(
        size,
        colour | {"parameters": {"content_type": "str"}},
        parameters={"content_type": "pd"},
    )
    expected = infer(server, protocol, "columns", body(*RED_AND_BLUE))
    assert expected.status == OK
    for request in (body(*RED_AND_BLUE[::-1]), encoded):
        assert infer(server, protocol, "columns", request) == expected


def test_a_runtime_of_ones_own_sees_the_headers_and_its_parameters_reach_the_client(server: Server):
    request = body({"name": "t", "shape": [2], "datatype": "BYTES", "data": ["abc", "x y"]})
    for protocol in ("rest", "grpc"):
        assert infer(server, protocol, "echo", request).outputs == {"echo": ["ABC", "X Y"]}
    response = post_raw(server, "echo", json.dumps(request).encode(), {"X-Tenant": "blue"})
    assert response.json()["parameters"] == {"tenant": "blue"}


def test_binary_tensors_are_read_and_sent(server: Server):
    request = body(binary(ROWS.nbytes, [2, 4], "FP64"), parameters={"binary_data_output": True})
    for model in ("iris", "table"):
        response = post_binary(server, model, request, ROWS.tobytes())
        length = int(response.headers[LENGTH])
        assert np.frombuffer(response.content[length:], "<i8").tolist() == LABELS
    text = binary(7, [1], "BYTES")
    response = post_binary(server, "echo", body(text), b"\3\0\0\0abc")
    assert response.json()["outputs"][0]["data"] == ["ABC"]


BAD = {  # requests by their name, and the model
    "expected x of shape [-1, 4], got [2, 3]": ("iris", body(tensor(ROWS[:, :3]))),
    "expected one input, got size, colour": ("iris", body(*RED_AND_BLUE)),
    "expected 2 inputs, size, colour, got size": ("columns", body(RED_AND_BLUE[0])),
    "expected shape [n, 4], got [2, 3]": ("table", body(tensor(ROWS[:, :3]))),
    "expected outputs out of predict, got predict_proba": (
        "price", body(tensor(ROWS), outputs=("predict_proba",))),
    "expected a request that can be decoded, got The 'np' codec only": (
        "table", body(*RED_AND_BLUE)),
    "out of stock": ("moody", body(tensor([1.0], [1, 1]))),
}  # fmt: skip


@each_protocol
@pytest.mark.parametrize("words", BAD)
def test_a_bad_request_is_rejected_with_a_message(server: Server, protocol: str, words: str):
    model, request = BAD[words]
    response = infer(server, protocol, model, request)
    assert response.status in (REJECTED, 422, grpc.StatusCode.FAILED_PRECONDITION)
    assert response.error.startswith(words)


def test_integers_convert_and_infinity_which_json_has_not_does_not(server: Server):
    for protocol in ("rest", "grpc"):
        response = infer(server, protocol, "iris", body(tensor(ROWS.astype(int), datatype="INT64")))
        assert (response.status, len(response.outputs["predict"])) == (OK, 2)
    assert "infinity" in infer(server, "grpc", "iris", body(tensor(ROWS * np.inf))).error


def test_null_is_a_missing_value_which_the_model_judges(server: Server):
    missing = body(tensor([5.1, None, 1.4, 0.2], [1, 4]))
    assert infer(server, "rest", "price", missing).status == OK
    response = infer(server, "rest", "iris", missing)
    assert response.status == FAILED
    assert response.error.startswith("iris failed: ValueError: Input")
    assert "\n" not in response.error
    assert len(response.error) <= 500


@each_protocol
def test_a_failing_runtime_is_500_in_one_line_with_its_stack_in_the_log(
    server: Server, protocol: str
):
    response = infer(server, protocol, "moody", body(tensor([0.0], [1, 1])))
    assert response.status in (FAILED, grpc.StatusCode.INTERNAL)
    assert response.error.startswith("moody failed: KeyError: ")
    assert len(response.error) <= 500
    assert "Traceback" in log_of(server)


def test_a_client_that_hangs_up_leaves_those_alone_who_wait_with_it(server: Server):
    request = message(body(tensor(ROWS)), "batched")
    with service(server) as methods, ThreadPoolExecutor(16) as pool:
        infer = methods.ModelInfer
        for _ in range(20):
            calls = [infer.future(request, timeout=30) for _ in range(6)]
            calls[2].cancel()
            others = [call for call in calls if call is not calls[2]]
            for response in pool.map(lambda call: call.result(), others):
                assert list(response.outputs[0].contents.int64_contents) == LABELS


def test_rows_of_another_width_or_that_the_model_rejects_fail_alone(server: Server):
    cases = {
        OK: body(tensor(ROWS)),
        REJECTED: body(tensor(ROWS[:, :3])),
        FAILED: body(tensor([5.1, None, 1.4, 0.2], [1, 4])),
    }
    start = threading.Barrier(12)

    def go(status: int) -> None:
        start.wait()
        response = infer(server, "rest", "batched", cases[status])
        assert response.status == status
        assert response.outputs == ({"predict": LABELS} if status == OK else {})

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(go, [*cases] * 4))


def test_the_log_and_the_metrics_have_them(server: Server):
    labels = {"model": "iris", "version": "v1", "protocol": "rest", "outcome": "ok"}
    counter = ("fashion_requests_total", frozenset(labels.items()))
    before = metrics(server).get(counter, 0)
    infer(server, "rest", "iris", body(tensor(ROWS), id="of-iris"))
    assert metrics(server)[counter] == before + 1
    folder = server.log.parent / "requests"
    wait_until(lambda: "of-iris" in [line.id for line in read_log(folder)], "the line in the log")
    (line,) = (line for line in read_log(folder) if line.id == "of-iris")
    assert (line.model, line.status) == ("iris", OK)
    assert line.milliseconds > 0
    assert model_ready(server)["echo", ""] == 1


@each_protocol
def test_the_client_predicts_with_models_of_images_alone(server: Server, protocol: str):
    options = ("--protocol", protocol, "--url", getattr(server, protocol))
    assert "echo" in run_client("health", *options)[1]
    metadata = json.loads(run_client("metadata", *options)[1])
    assert [tensor["name"] for tensor in metadata["iris"]["inputs"]] == ["x"]
    picture = str(server.log.parent / "one.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(picture)
    heading = run_client("predict", picture, *options)[1].splitlines()[0]
    assert heading.split() == ["image", *MODELS]
