"""Every request leaves a line, and none waits for it.  Run: pytest tests/test_request_log.py"""

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from processes import ready, run_client, started, wait_until
from scratch import deep, set_limits, write_log
from wire import (
    MODELS,
    OK,
    REJECTED,
    SECONDS,
    UNKNOWN,
    body,
    head,
    infer,
    infer_url,
    log_of,
    message,
    metrics,
    open_connection,
    post,
    service,
    tensor,
)

from serving.client import RestClient
from serving.fashion.contract import CONFIDENCES, IMAGES, LABELS, OUTPUTS, PIXELS
from serving.fashion.inference import request_log
from serving.fashion.inference.handler import RequestContext, ServedModel
from serving.fashion.inference.request_log import RequestLog, log_files
from serving.fashion.logged import LoggedImages, read_log
from serving.fashion.model.predictor import FashionPredictor
from serving.launch import Server


@contextmanager
def logging(repository: Path, folder: Path, images: str = "1") -> Iterator[Server]:
    """A server that logs each request, in a folder next to its log."""
    log = str(folder / "requests")
    variables = {"FASHION_REQUEST_LOG": log, "FASHION_REQUEST_LOG_IMAGES": images}
    with ready(repository, folder, **variables) as server:
        yield server


@pytest.fixture(scope="module")
def logged(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs each request with its images."""
    with logging(repository, tmp_path_factory.mktemp("logged")) as server:
        yield server


def log_folder(server: Server) -> Path:
    return server.log.parent / "requests"


def lines_of(server: Server, *ids: str) -> list[LoggedImages]:
    """The log's lines of requests, by their ids, once it has them all."""

    def found() -> dict[str, LoggedImages]:
        return {line.id: line for line in read_log(log_folder(server)) if line.id in ids}

    wait_until(lambda: len(found()) == len(ids), "the lines in the log")
    return [found()[id_] for id_ in ids]


def test_each_request_is_found_by_its_id_with_what_was_served(logged: Server, images: np.ndarray):
    for model in MODELS:
        request = body(tensor(images[:3]), outputs=OUTPUTS, id=f"mine {model}")
        outputs = post(logged, model, request).outputs
        (line,) = lines_of(logged, f"mine {model}")
        assert (line.model, line.version, line.protocol) == (model, "v1", "rest")
        assert (line.status, line.images, line.labels) == (OK, 3, outputs["predict"])
        highest = np.reshape(outputs["predict_proba"], (3, -1)).max(axis=1)
        assert line.probabilities == pytest.approx(highest, abs=1e-6)
        assert line.pixels == images[:3].tobytes()
        assert line.milliseconds > 0
    unknown = post(logged, "nobody", body(tensor(images[:1])))
    rejected = post(logged, MODELS[0], body(tensor([0.0], [1, 784]), id="bad"))
    (bad,) = lines_of(logged, "bad")
    assert (bad.status, bad.error, bad.pixels) == (REJECTED, rejected.error, b"")
    (none,) = (line for line in read_log(log_folder(logged)) if line.model == "nobody")
    assert (none.status, none.error) == (UNKNOWN, unknown.error)


def test_the_id_that_a_client_was_given_is_in_the_log(logged: Server, images: np.ndarray):
    request = body(tensor(images[:2]))
    address = infer_url(logged, MODELS[0])
    over_rest = requests.post(address, json=request, timeout=SECONDS).json()
    with service(logged) as methods:
        over_grpc = methods.ModelInfer(message(request, MODELS[0]), timeout=SECONDS)
    lines = lines_of(logged, over_rest["id"], over_grpc.id)
    assert [line.protocol for line in lines] == ["rest", "grpc"]
    assert [line.labels for line in lines] == [over_rest["outputs"][0]["data"]] * 2


def test_what_does_not_arrive_or_is_no_message_leaves_its_reason_and_no_address(
    own_repository: Path, tmp_path: Path, images: np.ndarray
):
    set_limits(own_repository, request_seconds=1)
    with logging(own_repository, tmp_path, images="0") as server:
        assert post(server, MODELS[0], body(tensor(images[:1]))).status == OK
        with open_connection(server) as slow:
            slow.sendall(head(MODELS[0], 9) + b"{")
            assert slow.recv(2**16).startswith(b"HTTP/1.1 408 ")
        with grpc.insecure_channel(server.grpc) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff\xff", timeout=SECONDS)
        folder = log_folder(server)
        wait_until(lambda: len(list(read_log(folder))) == 3, "three lines")
    good, late, other = read_log(folder)
    assert (good.images, good.pixels) == (1, b"")
    assert (late.status, late.model) == (408, MODELS[0])
    assert "expected a whole request within 1 seconds" in late.error
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (other.status, other.protocol) == (REJECTED, "grpc")
    assert other.error == "expected a ModelInferRequest, got other bytes"
    assert b"127.0.0.1" not in b"".join(path.read_bytes() for path in log_files(folder))


@deep
def test_a_full_disk_loses_lines_says_so_once_and_stops_no_request(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    with logging(repository, tmp_path) as server:
        size = server.log.stat().st_size + 10 * PIXELS
        resource.prlimit(server.guard.pid, resource.RLIMIT_FSIZE, (size, size))
        with RestClient(server.rest) as client:
            for _ in range(4):
                client.infer("fashion-sklearn", images[:40])
            wait_until(lambda: lost(server) > 0, "lost lines")
            before = lost(server)
            client.infer("fashion-sklearn", images[:40])
            wait_until(lambda: lost(server) > before, "another lost line")
        text = log_of(server)
    assert text.count("lines of the request log are lost") == 1


def lost(server: Server) -> float:
    return metrics(server)["fashion_request_log_lost_lines_total", frozenset()]


def context_of(images: np.ndarray) -> RequestContext:
    """A request that was served."""
    results = {
        LABELS: np.zeros(len(images), int),
        CONFIDENCES: np.ones(len(images)),
        IMAGES: images,
    }
    predictor: Any = object.__new__(FashionPredictor)
    nothing: Any = None
    with RequestContext("rest") as context:
        context.served = ServedModel("m", "v1", predictor, nothing, nothing)
        context.model, context.results = "m", results
    return context


def test_a_second_failure_of_the_disk_is_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Disk(FileIO):
        is_full = False

        def write(self, data: Any) -> int:
            if Disk.is_full:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(request_log, "WRITE_SECONDS", 0.001)
    monkeypatch.setattr(request_log, "FileIO", Disk)
    log = RequestLog(tmp_path, 0, 1, lambda _: None)
    for is_full in (True, True, False, True):
        Disk.is_full = is_full
        log.add(context_of(np.zeros((1, PIXELS), np.uint8)))
        wait_until(lambda: log._done == log._taken, "the line", 0.001)
    log.close()
    assert caplog.text.count("lines of the request log are lost: No space left") == 2


def test_the_oldest_files_go_beyond_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_log, "WRITE_SECONDS", 0.001)
    log = RequestLog(tmp_path, 1, 1, lambda _: None)
    images = np.zeros((40, PIXELS), np.uint8)
    for _ in range(60):  # 42 kB each, in files of 64 KiB
        log.add(context_of(images))
        wait_until(lambda: log._done == log._taken, "the line", 0.001)
    log.close()
    sizes = [path.stat().st_size for path in log_files(tmp_path)]
    assert 5 < len(sizes) < 20
    assert sum(sizes) <= 2**20
    assert len(list(read_log(tmp_path))) < 30


def test_a_slow_disk_loses_lines_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(request_log, "WRITE_SECONDS", 0.001)
    monkeypatch.setattr(request_log, "WAITING_BYTES", 2**20)
    counts: list[int] = []
    log = RequestLog(tmp_path, 1, 100, counts.append)
    log._file.close()
    (path,) = log_files(tmp_path)
    path.unlink()
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # and never read: the second write waits
    log._file = FileIO(path, "w")
    images = np.zeros((100, PIXELS), np.uint8)
    for _ in range(50):
        log.add(context_of(images))
    assert sum(counts) >= 50 - 2**20 // (100 * PIXELS) - 2
    os.close(reading)  # the disk is gone: what it was given is lost too, and the thread goes on
    wait_until(lambda: log._done == log._taken, "nothing to wait")
    path.unlink()
    log.add(context_of(images[:1]))
    log.close()
    assert list(read_log(tmp_path))[-1].images == 1


def test_a_folder_that_is_removed_is_made_again(tmp_path: Path):
    log = RequestLog(tmp_path / "log", 0, 1, lambda _: None)
    shutil.rmtree(tmp_path / "log")
    log.add(context_of(np.zeros((1, PIXELS), np.uint8)))
    log.close()
    assert len(list(read_log(tmp_path / "log"))) == 1
    (path,) = log_files(tmp_path / "log")
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_cut_off_is_left_out_when_it_is_read(tmp_path: Path):
    log = RequestLog(tmp_path, 0, 1, lambda _: None)
    log.add(context_of(np.zeros((1, PIXELS), np.uint8)))
    log.close()
    (path,) = log_files(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"time": "2026-')
    assert len(list(read_log(tmp_path))) == 1


def test_a_log_that_cannot_be_written_ends_the_start(repository: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file/log")
    with started(repository, tmp_path, FASHION_REQUEST_LOG=folder) as server:
        assert server.guard.wait(60) == 1
        (line,) = log_of(server).strip().splitlines()
    assert line.startswith(f"error: FASHION_REQUEST_LOG is {folder}: ")
    assert "Not a directory" in line


def replay(server: Server, folder: Path, *options: str) -> tuple[int | str | None, str]:
    """What the client's program ends with, and prints."""
    url = server.grpc if "grpc" in options else server.rest
    return run_client("replay", str(folder), "--url", url, *options)


def test_logged_images_are_sent_again_and_what_changes_is_reported(
    logged: Server, tmp_path: Path, images: np.ndarray
):
    counts, ids, kept = dict(zip(MODELS, (4, 3), strict=True)), [], tmp_path / "kept"
    write_log(kept, [])
    assert "expected requests with pixels for a model" in str(replay(logged, kept)[0])
    for model, count in counts.items():
        for place in range(count):
            ids.append(f"{model} {place}")
            request = body(tensor(images[10 * place :][:10]), id=ids[-1])
            assert infer(logged, ("rest", "grpc")[place % 2], model, request).status == OK
    write_log(kept, lines := lines_of(logged, *ids))
    for protocol in ("rest", "grpc"):
        code, shown = replay(logged, kept, "--json", "--protocol", protocol)
        assert code == 0
        for model, count in counts.items():
            change = json.loads(shown)[model]
            assert (change["requests"], change["images"]) == (count, 10 * count)
            assert change["changed"] == 0
            assert change["probability"] < 1e-5
            assert min(change["logged_ms"], change["now_ms"]) > 0
    lines[0].labels[0] += 1 if lines[0].labels[0] < 9 else -1
    write_log(kept, lines)
    for allowed, expected in (((), 3), (("--allow", "0.03"), 0), (("--allow", "0.02"), 3)):
        code, shown = replay(logged, kept, *allowed)
        assert code == expected
        assert " 1        0.0250" in shown
    only = replay(logged, kept, "--model", "fashion-xgboost")[1]
    assert "fashion-xgboost  3         30" in only
    assert "fashion-sklearn" not in only
    assert "not found" in str(replay(logged, kept, "--version", "v9")[0])
