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
from processes import ready, started, wait_until
from scratch import ROOT, deep, run, set_limits, write_log
from wire import body, each_protocol, head, log_of, metrics, open_connection, post, tensor

from serving.client import GrpcClient, RestClient, connect
from serving.fashion.contract import CONFIDENCES, IMAGES, LABELS, OUTPUTS, PIXELS
from serving.fashion.inference import request_log
from serving.fashion.inference.handler import RequestContext, ServedModel
from serving.fashion.inference.request_log import RequestLog, log_files
from serving.fashion.logged import LoggedImages, read_log
from serving.fashion.model.predictor import FashionPredictor
from serving.launch import Server

SECRET = "not-to-be-found-anywhere"


@contextmanager
def logging(repository: Path, folder: Path, **more: str) -> Iterator[tuple[Server, Path]]:
    """A server that logs each request, and the log."""
    log = folder / "log"
    variables = {"FASHION_REQUEST_LOG": str(log), "FASHION_REQUEST_LOG_IMAGES": "1"} | more
    with ready(repository, folder, **variables) as server:
        yield server, log


def lines_of(folder: Path, count: int) -> list[LoggedImages]:
    """The log's lines once there are so many."""
    wait_until(lambda: len(list(read_log(folder))) >= count, f"{count} lines")
    return list(read_log(folder))


def test_each_request_is_found_by_its_id_with_what_was_answered(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    with logging(repository, tmp_path) as (server, folder):
        answers = {}
        for number, model in enumerate(("fashion-sklearn", "fashion-xgboost")):
            answers[model] = post(
                server, model, body(tensor(images[:3]), outputs=OUTPUTS, id=f"mine {number}")
            )
        refused = post(server, "fashion-sklearn", body(tensor([0.0], [1, 784]), id="bad"))
        unknown = post(server, "nobody", body(tensor(images[:1])))
        first, second, bad, none = lines_of(folder, 4)
    for number, (model, line) in enumerate(
        (("fashion-sklearn", first), ("fashion-xgboost", second))
    ):
        outputs = answers[model].outputs
        assert (line.id, line.model, line.version, line.protocol) == (
            f"mine {number}", model, "v1", "rest",
        )  # fmt: skip
        assert (line.status, line.images, line.labels) == (200, 3, outputs["predict"])
        highest = np.reshape(outputs["predict_proba"], (3, -1)).max(axis=1)
        assert line.probabilities == pytest.approx(highest, abs=1e-6)
        assert line.pixels == images[:3].tobytes()
        assert line.milliseconds > 0
    assert (bad.id, bad.status, bad.error, bad.pixels) == ("bad", 400, refused.error, b"")
    assert (none.model, none.status, none.error) == ("nobody", 404, unknown.error)


@each_protocol
def test_the_id_that_a_client_was_given_is_in_the_log(
    repository: Path, tmp_path: Path, images: np.ndarray, protocol: str
):
    with logging(repository, tmp_path, FASHION_REQUEST_LOG_IMAGES="0") as (server, folder):
        with connect(protocol, getattr(server, protocol)) as client:
            labels = client.infer("fashion-sklearn", images[:2])[LABELS]
        (line,) = lines_of(folder, 1)
        text = b"".join(path.read_bytes() for path in log_files(folder))
    assert (line.protocol, line.labels, line.pixels) == (protocol, labels.tolist(), b"")
    assert len(line.id) == len("9f3c1a52-0d5e-4b8e-8f0e-0123456789ab")
    assert b"127.0.0.1" not in text


def test_what_does_not_arrive_or_is_no_message_leaves_its_reason(
    own_repository: Path, tmp_path: Path
):
    set_limits(own_repository, request_seconds=1)
    with logging(own_repository, tmp_path) as (server, folder):
        with open_connection(server) as slow:
            slow.sendall(head("fashion-sklearn", 9) + b"{")
            assert slow.recv(2**16).startswith(b"HTTP/1.1 408 ")
        with grpc.insecure_channel(server.grpc) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff\xff", timeout=60)
        late, other = lines_of(folder, 2)
    assert (late.status, late.model) == (408, "fashion-sklearn")
    assert "expected a whole request within 1 seconds" in late.error
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (other.status, other.protocol) == (400, "grpc")
    assert other.error == "expected a ModelInferRequest, got other bytes"


@deep
def test_a_full_disk_loses_lines_says_so_once_and_stops_no_request(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    with logging(repository, tmp_path) as (server, _):
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
    """A request that was answered."""
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
        line = log_of(server).strip().splitlines()[-1]
    assert line.startswith(f"error: FASHION_REQUEST_LOG is {folder}: ")
    assert "Not a directory" in line


def replay(server: Server, folder: Path, *options: str, expect: int = 0) -> str:
    address = ("--url", server.grpc if "grpc" in options else server.rest)
    command = ("python", "-m", "serving.client", "replay", str(folder), *address, *options)
    return run(ROOT, *command, expect=expect)


def test_logged_images_are_sent_again_and_what_changes_is_told(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    log, counts = tmp_path / "log", {"fashion-sklearn": 4, "fashion-xgboost": 3}
    variables = {"FASHION_REQUEST_LOG": str(log), "FASHION_REQUEST_LOG_IMAGES": "1"}
    with ready(repository, tmp_path, **variables) as server:
        assert "expected requests with pixels for a model" in replay(server, log, expect=1)
        for model, count in counts.items():
            with RestClient(server.rest) as rest, GrpcClient(server.grpc) as grpc:
                for place in range(count):
                    (rest, grpc)[place % 2].infer(model, images[10 * place :][:10])
        wait_until(lambda: len(list(read_log(log))) == 7, "seven lines")
        kept, lines = tmp_path / "kept", list(read_log(log))
        write_log(kept, lines)
        for protocol in ("rest", "grpc"):
            found = json.loads(replay(server, kept, "--json", "--protocol", protocol))
            for model, count in counts.items():
                change = found[model]
                assert (change["requests"], change["images"]) == (count, 10 * count)
                assert change["changed"] == 0
                assert change["probability"] < 1e-5
                assert min(change["logged_ms"], change["now_ms"]) > 0
        lines[0].labels[0] += 1 if lines[0].labels[0] < 9 else -1
        write_log(kept, lines)
        assert " 1        0.0250" in replay(server, kept, expect=3)
        assert " 1        0.0250" in replay(server, kept, "--allow", "0.03")
        assert " 1        0.0250" in replay(server, kept, "--allow", "0.02", expect=3)
        only = replay(server, kept, "--model", "fashion-xgboost")
        assert "fashion-xgboost  3         30" in only
        assert "fashion-sklearn" not in only
        assert "not found" in replay(server, kept, "--version", "v9", expect=1)
