"""Every request leaves a line, and none waits for it.  Run: pytest tests/test_request_log.py"""

import json
import os
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from processes import ready, run_client, wait_until
from scratch import set_limits, write_log
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
    message,
    open_connection,
    post,
    service,
    tensor,
)

from serving.fashion.contract import CONFIDENCES, IMAGES, LABELS, OUTPUTS, PIXELS
from serving.fashion.inference import request_log
from serving.fashion.inference.handler import RequestContext, ServedModel
from serving.fashion.inference.request_log import RequestLog, log_files
from serving.fashion.logged import LoggedImages, read_log
from serving.fashion.model.predictor import FashionPredictor
from serving.launch import Server


@pytest.fixture(scope="module")
def logged(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs each request with its images, in a folder next to its own log."""
    folder = tmp_path_factory.mktemp("logged")
    copy = Path(shutil.copytree(repository, folder / "serving"))
    set_limits(copy, request_seconds=2)
    log = {"FASHION_REQUEST_LOG": str(folder / "requests"), "FASHION_REQUEST_LOG_IMAGES": "1"}
    with ready(copy, folder, **log) as server:
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


def test_the_id_that_a_client_was_given_is_in_the_log(logged: Server, images: np.ndarray):
    request = body(tensor(images[:2]))
    over_rest = requests.post(infer_url(logged, MODELS[0]), json=request, timeout=SECONDS).json()
    with service(logged) as methods:
        over_grpc = methods.ModelInfer(message(request, MODELS[0]), timeout=SECONDS)
    lines = lines_of(logged, over_rest["id"], over_grpc.id)
    assert [line.protocol for line in lines] == ["rest", "grpc"]
    assert [line.labels for line in lines] == [over_rest["outputs"][0]["data"]] * 2


def test_what_is_rejected_or_does_not_arrive_leaves_its_reason_and_no_address(logged: Server):
    unknown, bad = (post(logged, name, body(tensor([0.0], [1]))) for name in ("nobody", MODELS[0]))
    with open_connection(logged) as slow:
        slow.sendall(head(MODELS[0], 9) + b"{")
        assert slow.recv(2**16).startswith(b"HTTP/1.1 408 ")
    with grpc.insecure_channel(logged.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff", timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    expected = {
        (UNKNOWN, "rest", "nobody", unknown.error),
        (REJECTED, "rest", MODELS[0], bad.error),
        (408, "rest", MODELS[0], "expected a whole request within 2 seconds, got a part of one"),
        (REJECTED, "grpc", "", "expected a ModelInferRequest, got other bytes"),
    }

    def found() -> set[tuple[int, str, str, str]]:
        lines = [line for line in read_log(log_folder(logged)) if not line.pixels]
        return {(line.status, line.protocol, line.model, line.error) for line in lines}

    wait_until(lambda: found() >= expected, "all four lines")
    text = b"".join(path.read_bytes() for path in log_files(log_folder(logged)))
    assert b"127.0.0.1" not in text


def context_of(images: int) -> RequestContext:
    """A request for so many black images, that was served."""
    results = {
        LABELS: np.zeros(images, int),
        CONFIDENCES: np.ones(images),
        IMAGES: np.zeros((images, PIXELS), np.uint8),
    }
    predictor: Any = object.__new__(FashionPredictor)
    nothing: Any = None
    with RequestContext("rest") as context:
        context.served = ServedModel("m", "v1", predictor, nothing, nothing)
        context.model, context.results = "m", results
    return context


def write(log: RequestLog, images: int = 1) -> None:
    """Add the line of a request, and wait until it is written, or lost."""
    log.add(context_of(images))
    wait_until(lambda: log._done == log._taken, "the line", 0.001)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written soon after they are added."""
    monkeypatch.setattr(request_log, "WRITE_SECONDS", 0.001)


@pytest.mark.usefixtures("at_once")
def test_a_second_failure_of_the_disk_is_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Disk(FileIO):
        is_full = False

        def write(self, data: Any) -> int:
            if Disk.is_full:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(request_log, "FileIO", Disk)
    log = RequestLog(tmp_path, 0, 1, lambda _: None)
    for is_full in (True, True, False, True):
        Disk.is_full = is_full
        write(log)
    log.close()
    assert caplog.text.count("lines of the request log are lost: No space left") == 2


@pytest.mark.usefixtures("at_once")
def test_the_oldest_files_go_beyond_the_total(tmp_path: Path):
    log = RequestLog(tmp_path, 1, 1, lambda _: None)
    for _ in range(60):  # 42 kB each, in files of 64 KiB
        write(log, 40)
    log.close()
    sizes = [path.stat().st_size for path in log_files(tmp_path)]
    assert 5 < len(sizes) < 20
    assert sum(sizes) <= 2**20
    assert len(list(read_log(tmp_path))) < 30


@pytest.mark.usefixtures("at_once")
def test_a_slow_disk_loses_lines_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(request_log, "WAITING_BYTES", 2**20)
    counts: list[int] = []
    log = RequestLog(tmp_path, 1, 100, counts.append)
    log._file.close()
    (path,) = log_files(tmp_path)
    path.unlink()
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # and never read: the second write waits
    log._file = FileIO(path, "w")
    for _ in range(50):
        log.add(context_of(100))
    assert sum(counts) >= 50 - 2**20 // (100 * PIXELS) - 2
    os.close(reading)  # the disk is gone: what it was given is lost too, and the thread goes on
    wait_until(lambda: log._done == log._taken, "nothing to wait")
    path.unlink()
    write(log)
    log.close()
    assert list(read_log(tmp_path))[-1].images == 1


def test_a_folder_that_is_removed_is_made_again_and_what_is_cut_off_is_left_out(tmp_path: Path):
    log = RequestLog(tmp_path / "log", 0, 1, lambda _: None)
    shutil.rmtree(tmp_path / "log")
    log.add(context_of(1))
    log.close()
    (path,) = log_files(tmp_path / "log")
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(path.read_bytes() + b'{"time": "2026-')
    (line,) = read_log(tmp_path / "log")
    assert (line.images, line.pixels) == (1, b"")  # which the share leaves out


def replay(server: Server, folder: Path, *options: str) -> tuple[int | str | None, str]:
    """What the client's program ends with, and prints."""
    url = server.grpc if "grpc" in options else server.rest
    return run_client("replay", str(folder), "--url", url, *options)


def test_logged_images_are_sent_again_and_what_changes_is_reported(
    logged: Server, tmp_path: Path, images: np.ndarray
):
    counts, kept = dict(zip(MODELS, (4, 3), strict=True)), tmp_path / "kept"
    write_log(kept, [])
    assert "expected requests with pixels for a model" in str(replay(logged, kept)[0])
    ids = {f"{model} {n}": model for model, count in counts.items() for n in range(count)}
    for place, (id_, model) in enumerate(ids.items()):
        request = body(tensor(images[10 * place :][:10]), id=id_)
        assert infer(logged, ("rest", "grpc")[place % 2], model, request).status == OK
    write_log(kept, lines := lines_of(logged, *ids))
    for protocol in ("rest", "grpc"):
        code, shown = replay(logged, kept, "--json", "--protocol", protocol)
        assert code == 0
        for model, count in counts.items():
            change = json.loads(shown)[model]
            assert (change["requests"], change["images"]) == (count, 10 * count)
            assert (change["changed"], change["probability"] < 1e-5) == (0, True)
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
