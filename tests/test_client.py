"""The client returns right responses and names what is wrong.  Run: pytest tests/test_client.py"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import run_client
from scratch import ROOT, Digits, run

from serving.client import Client, GrpcClient, ResponseError, RestClient, connect
from serving.fashion.contract import CLASS_LABELS, LABELS, OUTPUTS, PROBABILITIES
from serving.launch import Server, free_ports
from stages.data.arrays import write_npz
from stages.data.processed import Images

LABEL = {"name": LABELS, "datatype": "INT64", "shape": [3], "data": [7, 7, 7]}
PROBABILITY = {"name": PROBABILITIES, "datatype": "FP64", "shape": [3, 2], "data": [0.25, 0.75] * 3}
RESPONSE = {"model_name": "m", "model_version": "v1", "outputs": [LABEL, PROBABILITY]}


@pytest.fixture
def fake() -> Iterator[Callable[..., RestClient]]:
    """A client of a server that sends RESPONSE with changes, or other bytes."""

    class Handler(BaseHTTPRequestHandler):
        response: dict[str, Any] | bytes

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])
            content = self.response
            if isinstance(content, dict):
                content = json.dumps(RESPONSE | {"id": request["id"]} | content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def client(response: dict[str, Any] | bytes) -> RestClient:
            Handler.response = response
            return RestClient(f"http://127.0.0.1:{server.server_port}")

        yield client
        server.shutdown()


def test_a_right_response_is_returned_and_a_proxy_of_the_environment_is_not_used(
    fake: Callable[..., RestClient], small: Images, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with fake({}) as client:
        outputs = client.infer("m", small.images[:3], OUTPUTS[:2], "v1")
    assert outputs[LABELS].tolist() == [7, 7, 7]
    assert outputs[LABELS].dtype == np.int64
    assert outputs[PROBABILITIES].tolist() == [[0.25, 0.75]] * 3


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"model_name": "n"}, "model is 'n', expected 'm'"),
        ({"model_version": "v2"}, "version is 'v2', expected 'v1'"),
        ({"id": "1"}, "id is '1', expected '"),
        ({"outputs": []}, r"outputs is \[\], expected \['predict', "),
        (
            {"outputs": [LABEL | {"shape": [2], "data": [7, 7]}, PROBABILITY]},
            "number of rows of predict is 2, expected 3",
        ),
        (
            {"outputs": [LABEL | {"data": None}, PROBABILITY]},
            "not a response of the protocol: TypeError",
        ),
        (b"{}", "not a response of the protocol: KeyError"),
        (b"<html>", "expected JSON, got '<html>'"),
    ],
)
def test_a_wrong_response_is_an_error_that_names_what_is_wrong(
    fake: Callable[..., RestClient],
    small: Images,
    response: dict[str, Any] | bytes,
    message: str,
):
    with pytest.raises(ResponseError, match=message) as error:
        fake(response).infer("m", small.images[:3], OUTPUTS[:2], "v1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("protocol", "scheme"), [("rest", "http://"), ("grpc", "")])
def test_a_closed_port_is_an_error_in_one_line(small: Images, protocol: str, scheme: str):
    (port,) = free_ports(1)
    client = connect(protocol, f"{scheme}127.0.0.1:{port}")
    with pytest.raises(ResponseError, match=r"no response: ConnectionError|UNAVAILABLE: ") as error:
        client.infer("m", small.images[:1])
    assert "\n" not in str(error.value)


def test_a_server_that_starts_late_is_reached(tmp_path: Path):
    (port,) = free_ports(1)
    (tmp_path / "v2/health").mkdir(parents=True)
    (tmp_path / "v2/health/ready").touch()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))

    def serve() -> None:
        with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
            server.handle_request()

    late = threading.Timer(0.1, serve)
    late.start()
    assert RestClient(f"http://127.0.0.1:{port}").ready()
    late.join()


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with connect(request.param, getattr(server, request.param)) as client:
        yield client


def test_health_models_and_metadata_are_the_same_over_both_protocols(server: Server):
    rest, grpc = RestClient(server.rest), GrpcClient(server.grpc)
    assert rest.models() == grpc.models() == ["fashion-sklearn", "fashion-xgboost"]
    for name in rest.models():
        assert rest.ready(name)
        assert grpc.ready(name, "v1")
        metadata = rest.metadata(name)
        assert metadata.pop("parameters")["class_names"] == json.dumps(list("0123456789"))
        assert metadata == grpc.metadata(name)


@pytest.mark.parametrize(("name", "version"), [("fashion-torch", ""), ("fashion-sklearn", "v9")])
def test_a_model_that_the_server_lacks_is_an_error(client: Client, name: str, version: str):
    for method in (client.ready, client.metadata):
        with pytest.raises(
            ResponseError, match=rf"(HTTP 404|NOT_FOUND): Model {name}.* not found$"
        ):
            method(name, version)


def test_a_rejection_is_one_line_with_the_message_of_the_server(client: Client, small: Images):
    message = r"expected outputs out of predict, predict_proba, label, image, got colour"
    with pytest.raises(ResponseError, match=rf"(HTTP 400|INVALID_ARGUMENT): {message}$"):
        client.infer("fashion-sklearn", small.images[:1], ["colour"])


@pytest.fixture(params=["rest", "grpc"])
def options(request: pytest.FixtureRequest, server: Server) -> list[str]:
    return ["--protocol", request.param, "--url", getattr(server, request.param)]


@pytest.fixture
def evaluation(tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> Images:
    """Evaluation images where the program looks for them, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "data/processed/test.npz", digits[1])
    return digits[1]


def test_health_says_who_is_ready(server: Server):
    shown = run(ROOT, "python", "-m", "serving.client", "health", "--url", server.rest)
    lines = [re.sub(" +", " ", line) for line in shown.splitlines()]
    assert lines == ["server ready", "fashion-sklearn ready", "fashion-xgboost ready"]


def test_metadata_is_printed_as_json(options: list[str]):
    _, text = run_client("metadata", "--model", "fashion-sklearn", *options)
    assert json.loads(text)["fashion-sklearn"]["versions"] == ["v1"]


def test_predict_shows_a_line_an_image(options: list[str], evaluation: Images):
    code, text = run_client("predict", "--index", "0..2,5", *options)
    assert code == 0
    heading, *lines = text.splitlines()
    assert heading.split() == ["image", "actual", "fashion-sklearn", "fashion-xgboost"]
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "5"]
    assert [line.split()[1] for line in lines] == [str(evaluation.labels[i]) for i in (0, 1, 2, 5)]


def test_predict_prints_json_with_what_the_library_returns(
    options: list[str], evaluation: Images, server: Server
):
    code, text = run_client("predict", "--index", "3", "--json", *options)
    assert code == 0
    printed = json.loads(text)["models"]["fashion-xgboost"]
    outputs = RestClient(server.rest).infer("fashion-xgboost", evaluation.images[3:4], OUTPUTS)
    assert printed[LABELS] == outputs[LABELS].tolist()
    assert np.allclose(printed[PROBABILITIES], outputs[PROBABILITIES])
    assert printed[CLASS_LABELS] == [str(outputs[LABELS][0])]


def test_predict_reads_pictures_and_shows_every_probability(
    options: list[str], evaluation: Images, tmp_path: Path
):
    pixels = evaluation.images[7].reshape(28, 28)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(255 - pixels).save(tmp_path / "b.png")
    texts = [
        run_client("predict", *arguments, "--proba", *options)[1]
        for arguments in (["a.png"], ["b.png", "--invert"])
    ]
    assert texts[0] == texts[1].replace("b.png", "a.png")
    assert texts[0].splitlines()[3].split() == ["fashion-sklearn", *"0123456789"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "expected pictures or --index, one of both"),
        (["predict", "--index", "9..1"], r"--index: expected 3, 0..9 or 1,5,7, below \d+, got 9"),
        (["predict", "--index", "300"], r"below 300, got 300"),
        (["health", "--model", "fashion-torch"], r"Model fashion-torch not found"),
    ],
)
@pytest.mark.usefixtures("evaluation")
def test_mistakes_are_one_line(server: Server, arguments: list[str], message: str):
    code, text = run_client(*arguments, "--url", server.rest)
    assert not text
    assert re.match(rf"error: .*{message}", str(code))
    assert "\n" not in str(code)


def test_a_folder_is_predicted_in_batches_and_bad_files_are_named(
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("serving.client.pictures.BATCH_FILES", 4)
    for number in range(9):
        Image.new("L", (28, 28), number).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either", "utf-8")
    Image.new("L", (30, 30), 250).save(tmp_path / "7.png")
    code, shown = run_client("predict", str(tmp_path), str(tmp_path / "none.png"), *options)
    assert code == 1
    names = [line.split()[0] for line in shown.splitlines()[1:]]
    assert names == [f"{number}.png" for number in range(9) if number != 5]
    errors = capsys.readouterr().err
    assert "error: 5.png: " in errors
    assert "got 10 bytes that begin with b'no pictu'" in errors
    assert "error: none.png: No such file or directory" in errors
    assert "note: 7.png: a bright border" in errors
    (tmp_path / "empty").mkdir()
    code, _ = run_client("predict", str(tmp_path / "empty"), *options)
    assert "expected pictures in it (.bmp, .jpeg, .jpg, .png, .webp)" in str(code)
