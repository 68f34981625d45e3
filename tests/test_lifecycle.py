"""How a server starts, changes and ends.  Run: pytest tests/test_lifecycle.py"""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from processes import await_ready, ready, run_client, started, wait_until
from scratch import edit_json, set_options
from tritonclient.grpc import service_pb2 as pb
from wire import (
    MODELS,
    REJECTED,
    SECONDS,
    body,
    head,
    infer,
    log_of,
    message,
    open_connection,
    post_raw,
    service,
    tensor,
)

from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server

MODEL, OTHER = MODELS
HEALTH = "/grpc.health.v1.Health/Check"


class Collector(TraceServiceServicer):
    """An OpenTelemetry collector that keeps spans."""

    def __init__(self, address: str) -> None:
        self.address, self.spans = address, list[Any]()

    def Export(self, request: Any, _: Any) -> ExportTraceServiceResponse:  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    collector = Collector(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    add_TraceServiceServicer_to_server(collector, server)
    server.start()
    yield collector
    server.stop(0)


@pytest.fixture(scope="module")
def configured(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[Server]:
    """A server with settings of MLServer's; the last of its three tests ends it."""
    variables = {
        "MLSERVER_USE_STRUCTURED_LOGGING": "true",
        "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": "1000",
        "MLSERVER_ROOT_PATH": "/ml",
        "MLSERVER_TRACING_SERVER": collector.address,
    }
    with ready(repository, tmp_path_factory.mktemp("configured"), **variables) as server:
        yield server


def test_each_line_of_a_structured_log_is_json(configured: Server, images: np.ndarray):
    forged = tensor(images[:1]) | {"datatype": 'x", "level": "FORGED'}
    assert infer(configured, "rest", MODEL, body(forged)).status == REJECTED
    wait_until(lambda: "FORGED" in log_of(configured), "the line in the log")
    lines = [json.loads(line) for line in log_of(configured).splitlines()]
    assert {line["level"] for line in lines} == {"INFO", "WARNING"}
    assert any("Uvicorn running on" in line["message"] for line in lines)


def test_a_variable_that_a_file_outranks_and_a_prefix_are_reported(configured: Server):
    words = "MLSERVER_GRPC_MAX_MESSAGE_LENGTH=1000 is ignored: settings.json has"
    assert words in log_of(configured)
    page = requests.get(f"{configured.rest}/v2/docs", timeout=SECONDS).text
    assert re.findall(r"url: '(.*?)'", page) == ["/ml/v2/docs/dataplane.json"]
    schema = requests.get(f"{configured.rest}/v2/docs/dataplane.json", timeout=SECONDS).json()
    assert schema["servers"] == [{"url": "/ml"}]
    moved = requests.get(f"{configured.rest}/", timeout=SECONDS, allow_redirects=False)
    assert moved.headers["location"] == "./demo/"


def test_each_request_is_one_span_and_half_a_request_does_not_hold_up_the_end(
    configured: Server, collector: Collector, images: np.ndarray
):
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    metadata = tuple(headers.items())
    request = body(tensor(images[:1]))
    assert post_raw(configured, MODEL, json.dumps(request).encode(), headers).ok
    assert requests.get(f"{configured.rest}/v2/health/live", headers=headers, timeout=SECONDS).ok
    with grpc.insecure_channel(configured.grpc) as channel:
        channel.unary_unary(HEALTH)(b"", timeout=SECONDS, metadata=metadata)
    with service(configured) as methods:
        methods.ModelInfer(message(request, MODEL), timeout=SECONDS, metadata=metadata)
    with open_connection(configured) as half:
        half.sendall(head(MODEL, 1000) + b"{")
        time.sleep(0.2)
        configured.guard.send_signal(signal.SIGTERM)  # which sends the spans that wait
        assert b"408 Request Timeout" in half.recv(65536)
    assert configured.guard.wait(15) == 0
    spans = [span for span in collector.spans if span.trace_id.hex() == trace]
    assert [span.parent_span_id.hex() for span in spans] == [parent] * 2  # none of health
    assert any("ModelInfer" in span.name for span in spans)


@pytest.fixture(scope="module")
def reloadable(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that loads models by request; the last of its three tests ends it."""
    folder = tmp_path_factory.mktemp("reloadable")
    copy = Path(shutil.copytree(repository, folder / "serving"))
    set_options(copy, allow_load=True)
    with ready(copy, folder) as server:
        yield server


def health(server: Server, protocol: str) -> str:
    """What the client shows of a server."""
    options = ("--protocol", protocol, "--url", getattr(server, protocol))
    code, shown = run_client("health", *options)
    assert code == 0
    return re.sub(" +", " ", shown)


def test_a_server_whose_files_were_replaced_says_so_until_they_are_loaded(reloadable: Server):
    assert "replaced" not in health(reloadable, "grpc")
    settings = reloadable.log.parent / "serving/models" / MODEL / "v1" / MODEL_SETTINGS
    edit_json(settings, lambda s: s.update(platform="another"))
    words = "its files were replaced after it was loaded; restart the server, or load it anew"
    wait_until(lambda: f"{MODEL}: {words}" in log_of(reloadable), "a line in the log")
    for protocol in ("rest", "grpc"):
        expected = f"server ready\n{MODEL} ready {words}\n{OTHER} ready\n"
        assert health(reloadable, protocol) == expected
    url = f"{reloadable.rest}/v2/repository/models/{MODEL}/load"
    assert requests.post(url, timeout=SECONDS).ok
    assert "replaced" not in health(reloadable, "rest")
    assert log_of(reloadable).count(words) == 1


LOAD = "/inference.model_repository.ModelRepositoryService/ModelLoad"


def test_models_are_loaded_over_grpc_by_either_service(reloadable: Server):
    name = OTHER.encode()
    request = b"\x12%c%b" % (len(name), name)  # RepositoryModelLoadRequest.model_name
    with grpc.insecure_channel(reloadable.grpc) as channel:
        channel.unary_unary(LOAD)(request, timeout=SECONDS)
        index = channel.unary_unary(LOAD.replace("ModelLoad", "RepositoryIndex"))
        assert name in index(b"", timeout=SECONDS)
    assert log_of(reloadable).count(f"Reloaded model '{OTHER}'") == 1


def test_a_second_signal_ends_at_once(reloadable: Server):
    with open_connection(reloadable) as half:
        half.sendall(head(MODEL, 1000) + b"{")
        reloadable.guard.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in log_of(reloadable), "the end", 0.01)
        reloadable.guard.send_signal(signal.SIGTERM)
        assert reloadable.guard.wait(15) == 1
    assert "a second signal: ended at once" in log_of(reloadable)


def test_nothing_is_loaded_over_grpc_where_that_is_not_allowed(server: Server):
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(LOAD)(b"\x12\x01a", timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_an_ipv6_address_is_listened_on(repository: Path, tmp_path: Path):
    with started(repository, tmp_path, MLSERVER_HOST="[::1]") as bound:
        rest, address = (url.replace("127.0.0.1", "[::1]") for url in (bound.rest, bound.grpc))
        server = bound._replace(rest=rest, grpc=address)
        await_ready(server)
        with service(server) as methods:
            assert methods.ServerReady(pb.ServerReadyRequest(), timeout=SECONDS).ready
