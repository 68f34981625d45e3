"""Nobody takes the server down by sending.  Run: pytest tests/test_limits.py

Each test ends with valid requests that get the right results.
"""

import json
import re
import resource
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import requests
from processes import wait_until
from scratch import deep, set_limits
from wire import (
    MODELS,
    OK,
    REJECTED,
    binary,
    body,
    head,
    infer,
    infer_url,
    message,
    open_connection,
    post,
    post_binary,
    read_response,
    send,
    tensor,
)

from serving.launch import Server, running

pytestmark = pytest.mark.usefixtures("predicts_right")
MODEL = MODELS[1]
PEAK_MB = 1200
BUSY, LARGE, LATE, LONG = 503, 413, 408, 431
LIMITS = {"body_mb": 2, "bodies_mb": 4, "request_seconds": 2.0, "waiting": 5}


@pytest.fixture(scope="module")
def limited(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of small limits."""
    copy = Path(shutil.copytree(repository, tmp_path_factory.mktemp("limited") / "serving"))
    set_limits(copy, **LIMITS)
    with running(copy) as server:
        yield server


@pytest.fixture
def predicts_right(limited: Server, images: np.ndarray) -> Iterator[Callable[[], None]]:
    """Holds a response against the first one; at the end of the test, too."""
    request = body(tensor(images[:3]))
    expected = [post(limited, model, request) for model in MODELS]
    assert {response.status for response in expected} == {OK}

    def check() -> None:
        assert [post(limited, model, request) for model in MODELS] == expected

    yield check
    check()


def read(connection: socket.socket) -> tuple[int, str]:
    """Status and message of a response; no message of a good one."""
    with connection.makefile("rb") as file:
        status, content = read_response(file)
    return status, json.loads(content).get("error", "")


def post_images(server: Server, count: int, model: str = MODEL) -> requests.Response:
    size = count * 784
    return post_binary(server, model, body(binary(size, [count, 784])), bytes(size))


def test_a_body_that_is_too_large_is_rejected_by_its_length_or_while_it_is_read(limited: Server):
    with open_connection(limited) as connection:
        connection.sendall(head(MODEL, 2 * 2**30))
        words = "expected a body of at most 2 MiB, got 2,048.0; send fewer rows a request"
        assert read(connection) == (LARGE, words)
    with open_connection(limited) as connection:
        connection.sendall(head(MODEL, None))
        for _ in range(9):
            connection.sendall(b"40000\r\n" + bytes(0x40000) + b"\r\n")
        status, message = read(connection)
    assert status == LARGE
    assert message.startswith("expected a body of at most 2 MiB, got 2.")


def test_a_client_that_sends_all_of_too_large_a_body_reads_the_rejection(limited: Server):
    url = infer_url(limited, MODEL)
    with requests.Session() as session:
        assert session.post(url, bytes(80 * 2**20), timeout=60).status_code == LARGE
        assert session.post(url, b"{}", timeout=60).status_code == REJECTED


@pytest.mark.parametrize("path", ["/v2/repository/index", "/nothing"])
def test_other_requests_take_no_large_body(limited: Server, path: str):
    response = requests.post(limited.rest + path, bytes(2 * 2**20), timeout=60)
    assert response.status_code == LARGE
    assert response.json()["error"].startswith("expected a body of at most 1 MiB, got 2.0")


def test_a_body_that_is_announced_and_not_sent_takes_no_place(
    limited: Server, predicts_right: Callable[[], None]
):
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(open_connection(limited)).sendall(head(MODEL, 2**20))
        assert post_images(limited, 200).status_code == OK
        predicts_right()


def test_where_bodies_fill_the_budget_the_one_that_began_last_is_rejected(
    limited: Server, predicts_right: Callable[[], None]
):
    words = "expected at most 4 MiB of requests at once; send it again later"
    piece = b" " * (2**20 - 2**14)
    with ExitStack() as stack:
        slow = []
        for _ in range(6):  # each in pieces, so that it is arriving
            connection = stack.enter_context(open_connection(limited))
            slow.append(connection)
            connection.sendall(head(MODEL, 2**20) + piece)
        assert [read(connection) for connection in slow[4:]] == [(BUSY, words)] * 2
        response = post_images(limited, 200)
        assert (response.status_code, response.json()["error"]) == (BUSY, words)
        assert response.headers["retry-after"] == "1"
        images = body(tensor(np.zeros((200, 784)), datatype="UINT8"))
        over_grpc = send(limited, message(images, MODEL, raw=True))
        assert (over_grpc.status, over_grpc.error) == (grpc.StatusCode.UNAVAILABLE, words)
        predicts_right()
    wait_until(lambda: post_images(limited, 200).status_code == OK, "the bodies to be let go of")


BEGUN = (
    b"POST /v2/mod",
    b"GET /v2 HTTP/1.1\r\nHost: h\r\nX",
    head(MODEL, 1000),
    head(MODEL, 1000) + b'{"in',
    head(MODEL, None) + b"5\r\nab",
)


def test_a_request_that_does_not_arrive_whole_in_time_ends_its_connection(limited: Server):
    words = "expected a whole request within 2 seconds, got a part of one"
    with ExitStack() as stack:
        silent, *others = (stack.enter_context(open_connection(limited)) for _ in ("", *BEGUN))
        for connection, begun in zip(others, BEGUN, strict=True):
            connection.sendall(begun)
        for connection, begun in zip(others, BEGUN, strict=True):
            assert read(connection) == (LATE, words), begun
            assert connection.recv(1) == b"", begun
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    "begun", [b"GET /" + b"a" * 70_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000]
)
def test_a_head_without_end_is_rejected(limited: Server, begun: bytes):
    with open_connection(limited) as connection:
        connection.sendall(begun)
        assert read(connection) == (LONG, "expected at most 65,536 bytes of headers, got more")


def test_more_requests_than_may_wait_for_a_model_are_rejected(limited: Server, images: np.ndarray):
    single = body(tensor(images[:1]))
    expected = post(limited, MODELS[0], single)

    def once(place: int) -> str:
        response = infer(limited, ("rest", "grpc")[place % 2], MODELS[0], single)
        if response.status in (BUSY, grpc.StatusCode.UNAVAILABLE):
            return response.error
        return "right" if response == expected else str(response)

    with ThreadPoolExecutor(100) as pool:
        kept_busy = [pool.submit(post_images, limited, 2500, MODELS[0]) for _ in range(2)]
        outcomes = Counter(pool.map(once, range(300)))
        assert {done.result().status_code for done in kept_busy} <= {OK, BUSY}
    words = "expected at most 5 requests that wait for the model; send it again later"
    assert set(outcomes) == {"right", words}, outcomes


def test_grpc_messages_that_are_rejected_are_not_kept_in_memory(limited: Server):
    large = message(body(tensor(np.zeros((3000, 784), int), datatype="UINT8")), MODEL, raw=True)
    process = psutil.Process(limited.guard.pid).children()[0]
    before = process.memory_info().rss
    for _ in range(60):
        assert "expected a body of at most 2 MiB" in send(limited, large).error
    assert process.memory_info().rss - before < 70e6  # of 141e6 bytes sent


@pytest.mark.parametrize("ranges", ["0-1,5-9", "-5", ",".join(f"{i}-" for i in range(6000))])
def test_ranges_of_a_file_are_not_heeded(limited: Server, ranges: str):
    url, headers = f"{limited.rest}/demo/demo.js", {"Range": f"bytes={ranges}"}
    part = requests.get(url, headers=headers, timeout=60)
    assert (part.status_code, part.content) == (OK, requests.get(url, timeout=60).content)


Responses = list[tuple[int, str]]


def large_requests(server: Server, _single: bytes) -> Responses:
    """24 of 10,000 images as JSON floats: 46 MB each."""
    row = np.random.default_rng(1).integers(0, 256, 784).astype(float).tolist()
    content = json.dumps(body(tensor(row * 10_000, [10_000, 784]))).encode()
    url = infer_url(server, MODEL)
    with ThreadPoolExecutor(24) as pool:
        done = pool.map(lambda _: requests.post(url, content, timeout=300), range(24))
        return [(one.status_code, one.json().get("error", "")) for one in done]


def one_of_2_gb(server: Server, _single: bytes) -> Responses:
    with open_connection(server) as connection:
        connection.sendall(head(MODEL, 2 * 2**30))
        response = read(connection)
        for _ in range(2048):
            connection.sendall(bytes(2**20))
        return [response]


def many(server: Server, count: int, content: bytes) -> Responses:
    """The responses to what so many connections send at once."""
    with ExitStack() as stack:
        connections = [stack.enter_context(open_connection(server)) for _ in range(count)]
        for connection in connections:
            connection.settimeout(120)
            connection.sendall(content)
        return [read(connection) for connection in connections]


def half_of_500_requests(server: Server, single: bytes) -> Responses:
    return many(server, 500, head(MODEL, len(single)) + single[: len(single) // 2])


def two_thousand_singles(server: Server, single: bytes) -> Responses:
    return many(server, 2000, head(MODEL, len(single)) + single)


@deep
@pytest.mark.parametrize(
    "attack", [large_requests, half_of_500_requests, one_of_2_gb, two_thousand_singles]
)
def test_under_attack_memory_stays_bounded_and_good_requests_are_served_right(
    repository: Path, images: np.ndarray, attack: Callable[[Server, bytes], Responses]
):
    """With the limits of tests/params.yaml."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    request = body(tensor(images[:1]))
    good: Counter[bool] = Counter()
    ended = threading.Event()
    with running(repository) as server, ThreadPoolExecutor(1) as pool:
        expected = post(server, MODEL, request)

        def infer_singles() -> None:
            while not ended.is_set():
                good[post(server, MODEL, request) == expected] += 1

        singles = pool.submit(infer_singles)
        try:
            responses = Counter(attack(server, json.dumps(request).encode()))
        finally:
            ended.set()
        singles.result()
        assert post(server, MODEL, request) == expected
        process = psutil.Process(server.guard.pid).children()[0]
        found = Path(f"/proc/{process.pid}/status").read_text("utf-8")
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", found)[0]) / 1e3
    print(f"{attack.__name__}: {dict(responses)}, good {dict(good)}, peak {peak:.0f} MB")
    assert set(good) == {True}
    assert peak < PEAK_MB
    for status, error in responses:
        assert status in (OK, LATE, LARGE, BUSY)
        assert status == OK or "expected" in error
