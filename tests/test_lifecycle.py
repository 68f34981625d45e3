"""How a server starts, changes and ends.  Run: pytest tests/test_lifecycle.py"""

import json
import re
import signal
import threading
import time
from collections import Counter
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from processes import ready, started, wait_until
from scratch import ROOT, allow_load, deep, edit_json, run, slow
from wire import MODELS, ask, body, head, log_of, open_connection, post_raw, tensor

from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server

MODEL, OTHER = MODELS
OK, SECONDS = 200, 60


def settings_of(repository: Path, model: str) -> Path:
    (path,) = (repository / "models" / model).rglob(MODEL_SETTINGS)
    return path


def test_half_a_request_does_not_hold_up_the_end(repository: Path, tmp_path: Path):
    with ready(repository, tmp_path) as server:
        with open_connection(server) as half:
            half.sendall(head(MODEL, 1000) + b"{")
            time.sleep(0.2)
            server.guard.send_signal(signal.SIGTERM)
            assert b"408 Request Timeout" in half.recv(65536)
        assert server.guard.wait(15) == 0


def test_a_second_signal_ends_at_once(repository: Path, tmp_path: Path):
    with ready(repository, tmp_path) as server:
        with open_connection(server) as half:
            half.sendall(head(MODEL, 1000) + b"{")
            server.guard.send_signal(signal.SIGTERM)
            wait_until(lambda: "Shutting down" in log_of(server), "the end", 0.01)
            server.guard.send_signal(signal.SIGTERM)
            assert server.guard.wait(15) == 1
        assert "a second signal: ended at once" in log_of(server)


def health(server: Server, protocol: str) -> str:
    """What the client shows of a server."""
    url = server.rest if protocol == "rest" else server.grpc
    command = ("python", "-m", "serving.client", "health", "--protocol", protocol, "--url", url)
    return re.sub(" +", " ", run(ROOT, *command))


def test_a_server_whose_files_were_replaced_says_so_until_they_are_loaded(
    own_repository: Path, tmp_path: Path
):
    allow_load(own_repository)
    with ready(own_repository, tmp_path) as server:
        assert "replaced" not in health(server, "grpc")
        edit_json(settings_of(own_repository, MODEL), lambda s: s.update(platform="another"))
        words = "its files were replaced after it was loaded; restart the server, or load it anew"
        wait_until(lambda: f"{MODEL}: {words}" in log_of(server), "a line in the log")
        for protocol in ("rest", "grpc"):
            expected = f"server ready\n{MODEL} ready {words}\n{OTHER} ready\n"
            assert health(server, protocol) == expected
        url = f"{server.rest}/v2/repository/models/{MODEL}/load"
        assert requests.post(url, timeout=SECONDS).ok
        assert "replaced" not in health(server, "rest")
        assert log_of(server).count(words) == 1


@deep
def test_a_model_that_is_loaded_anew_under_load_loses_no_request_and_no_memory(
    own_repository: Path, tmp_path: Path, images: np.ndarray
):
    allow_load(own_repository)
    with ready(own_repository, tmp_path) as server:
        request, over, statuses = body(tensor(images[:1])), threading.Event(), Counter[Any]()

        def go() -> None:
            while not over.is_set():
                statuses[ask(server, "rest", MODEL, request).status] += 1

        memory = []
        with futures.ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(go) for _ in range(8)]
            for _ in range(6):
                url = f"{server.rest}/v2/repository/models/{MODEL}/load"
                assert requests.post(url, timeout=SECONDS).ok
                time.sleep(1)  # of load, in which what was replaced is freed
                memory.append(psutil.Process(server.guard.pid).memory_info().rss / 2**20)
            over.set()
            for client in clients:
                client.result()
        assert set(statuses) == {OK}
        assert memory[-1] - memory[0] < 60


def test_models_are_loaded_over_grpc_by_either_service(own_repository: Path, tmp_path: Path):
    method = "/inference.model_repository.ModelRepositoryService/ModelLoad"
    name = MODEL.encode()
    request = b"\x12%c%b" % (len(name), name)  # RepositoryModelLoadRequest.model_name
    allow_load(own_repository)
    with ready(own_repository, tmp_path) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            channel.unary_unary(method)(request, timeout=SECONDS)
            index = channel.unary_unary(method.replace("ModelLoad", "RepositoryIndex"))
            assert name in index(b"", timeout=SECONDS)
        assert log_of(server).count(f"Reloaded model '{MODEL}'") == 1


def test_nothing_is_loaded_over_grpc_where_that_is_not_allowed(server: Any):
    method = "/inference.model_repository.ModelRepositoryService/ModelLoad"
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(b"\x12\x01a", timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("host", ["::1", *(slow(host) for host in ("[::1]", "::"))])
def test_ipv6_addresses_are_listened_on(repository: Path, tmp_path: Path, host: str):
    with started(repository, tmp_path) as server:
        server.guard.kill()  # to have its free ports
        ports = (server.rest.rpartition(":")[2], server.grpc.rpartition(":")[2])
    names = {"MLSERVER_HTTP_PORT": ports[0], "MLSERVER_GRPC_PORT": ports[1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processes.on_free_ports", lambda _: names | {"MLSERVER_HOST": host})
        with started(repository, tmp_path) as server:
            url = f"http://[::1]:{ports[0]}/v2/health/ready"
            wait_until(lambda: _is_ok(url), "the models to be ready")
            with grpc.insecure_channel(f"[::1]:{ports[1]}") as channel:
                check = channel.unary_unary("/grpc.health.v1.Health/Check")
                assert check(b"", timeout=SECONDS) == b"\x08\x01"


def _is_ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=SECONDS).ok
    except requests.RequestException:
        return False


def test_each_line_of_a_structured_log_is_json(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    with ready(repository, tmp_path, MLSERVER_USE_STRUCTURED_LOGGING="true") as server:
        forged = tensor(images[:1]) | {"datatype": 'x", "level": "FORGED'}
        assert ask(server, "rest", MODEL, body(forged)).status == 400
        wait_until(lambda: "FORGED" in log_of(server), "the line in the log")
        lines = [json.loads(line) for line in log_of(server).splitlines()]
        assert {line["level"] for line in lines} == {"INFO", "WARNING"}
        assert any("Uvicorn running on" in line["message"] for line in lines)


def test_a_variable_that_a_file_outranks_and_a_prefix_are_told(repository: Path, tmp_path: Path):
    variables = {"MLSERVER_GRPC_MAX_MESSAGE_LENGTH": "1000", "MLSERVER_ROOT_PATH": "/ml"}
    with ready(repository, tmp_path, **variables) as server:
        words = "MLSERVER_GRPC_MAX_MESSAGE_LENGTH=1000 is ignored: settings.json has"
        assert words in log_of(server)
        page = requests.get(f"{server.rest}/v2/docs", timeout=SECONDS).text
        assert re.findall(r"url: '(.*?)'", page) == ["/ml/v2/docs/dataplane.json"]
        schema = requests.get(f"{server.rest}/v2/docs/dataplane.json", timeout=SECONDS).json()
        assert schema["servers"] == [{"url": "/ml"}]
        moved = requests.get(f"{server.rest}/", timeout=SECONDS, allow_redirects=False)
        assert moved.headers["location"] == "./demo/"


class Collector:
    """An OpenTelemetry collector that keeps spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        method = grpc.unary_unary_rpc_method_handler(
            self._export,
            otlp.ExportTraceServiceRequest.FromString,
            otlp.ExportTraceServiceResponse.SerializeToString,
        )
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        handler = grpc.method_handlers_generic_handler(name, {"Export": method})
        self._server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> "Collector":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0)

    def _export(self, request: Any, _: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return otlp.ExportTraceServiceResponse()


def test_each_request_is_one_span_and_health_is_none(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    request = body(tensor(images[:1]))
    with Collector() as collector:
        variables = {"MLSERVER_TRACING_SERVER": collector.address}
        with ready(repository, tmp_path, **variables) as server:
            headers = {"traceparent": f"00-{trace}-{parent}-01"}
            assert post_raw(server, MODEL, json.dumps(request).encode(), headers).ok
            assert ask(server, "grpc", MODEL, request).status == OK
            with grpc.insecure_channel(server.grpc) as channel:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=SECONDS)
            server.guard.send_signal(signal.SIGTERM)  # which sends the spans that wait
            server.guard.wait(SECONDS)
        spans = collector.spans
    assert len(spans) == 2
    rest = next(span for span in spans if span.trace_id.hex() == trace)
    assert rest.parent_span_id.hex() == parent
    assert "ModelInfer" in next(span.name for span in spans if span is not rest)
