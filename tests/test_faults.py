"""What happens when something breaks, with figures.  Run: pytest tests/test_faults.py -s"""

import json
import random
import resource
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from processes import DEADLINE_SECONDS, ready, wait_until
from scratch import ROOT, deep, run, set_options
from wire import (
    MODELS,
    OK,
    REJECTED,
    SECONDS,
    body,
    head,
    log_of,
    offline,
    open_connection,
    post,
    tensor,
)

from serving.fashion.contract import LABELS
from serving.launch import Server


class Load:
    """Sends requests from several threads until it is ended, and counts what comes back.

    expected: the right labels of the images, by model.
    """

    def __init__(
        self, images: np.ndarray, expected: dict[str, np.ndarray], server: Server, threads: int = 8
    ) -> None:
        self.server, self.images, self.expected = server, images, expected
        self.counts: Counter[str] = Counter()
        self._ended, self._lock = threading.Event(), threading.Lock()
        seeds = range(threads)
        self._threads = [threading.Thread(target=self._send, args=(seed,)) for seed in seeds]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        print({"sent": self.counts.total(), **self.counts})

    def _send(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self._ended.is_set():
            rows = rng.sample(range(len(self.images)), rng.choice((1, 1, 1, 8)))
            what = self._once(rng.choice(MODELS), rows)
            with self._lock:
                self.counts[what] += 1
            if what == "not connected":
                self._ended.wait(0.05)

    def _once(self, model: str, rows: list[int]) -> str:
        try:
            response = post(self.server, model, body(tensor(self.images[rows])))
        except requests.RequestException as error:
            return "not connected" if "Connection refused" in str(error) else "lost"
        if response.status != OK:
            return f"rejected with {response.status}"
        right = np.array_equal(response.outputs[LABELS], self.expected[model][rows])
        return "right" if right else "wrong"

    def reaches(self, count: int) -> None:
        """Wait for this many more right responses."""
        before = self.counts["right"]
        wait_until(lambda: self.counts["right"] >= before + count, f"{count} right responses")


@pytest.fixture(scope="module")
def load(repository: Path, images: np.ndarray) -> Callable[..., Load]:
    """Loads a server with images whose right labels are known."""
    return partial(Load, images, {m: offline(repository, m, images)[LABELS] for m in MODELS})


def test_sigterm_under_load_loses_no_accepted_request_and_frees_the_ports(
    own_repository: Path, tmp_path: Path, load: Callable[..., Load]
):
    with ready(own_repository, tmp_path) as server:
        with load(server) as sent:
            sent.reaches(50)
            server.guard.send_signal(signal.SIGTERM)
            assert server.guard.wait(DEADLINE_SECONDS) == 0
        assert sent.counts["wrong"] == 0
        # One that the system has taken, and the server not yet, is reset as the socket closes.
        assert sent.counts["lost"] <= 1
        assert "Traceback" not in log_of(server)
        for url in (server.rest, server.grpc):
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("127.0.0.1", int(url.rpartition(":")[2])))


@deep
def test_a_model_that_is_loaded_anew_under_load_loses_no_request_and_no_memory(
    own_repository: Path, tmp_path: Path, load: Callable[..., Load]
):
    set_options(own_repository, allow_load=True)
    memory = []
    with ready(own_repository, tmp_path) as server, load(server) as sent:
        for _ in range(6):
            url = f"{server.rest}/v2/repository/models/{MODELS[0]}/load"
            assert requests.post(url, timeout=SECONDS).ok
            time.sleep(1)  # of load, in which what was replaced is freed
            memory.append(psutil.Process(server.guard.pid).memory_info().rss / 2**20)
    assert set(sent.counts) == {"right"}
    assert memory[-1] - memory[0] < 60


def test_a_full_disk_is_one_line(tmp_path: Path):
    program = (
        "import pathlib, resource\n"
        "from stages import console\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
        "console.run(lambda: pathlib.Path('file').write_bytes(b'xx'))\n"
    )
    output = run(tmp_path, sys.executable, "-c", program, expect=1, PYTHONPATH=str(ROOT))
    assert output.endswith("error: File too large; free some space, then run again\n")


BAD = [
    body(),
    body(tensor(np.zeros((1, 783)))),
    body(tensor(np.full((2, 784), 256.0))),
    body(tensor(["no picture"], [1], "BYTES")),
    body(tensor(np.zeros((1, 784))), outputs=("colour",)),
]


def test_bad_requests_beside_good_ones_spoil_none_of_them(
    server: Server, load: Callable[..., Load]
):
    with load(server) as sent:
        for request in BAD * 10:
            for model in MODELS:
                assert post(server, model, request).status == REJECTED
        sent.reaches(50)
    assert set(sent.counts) == {"right"}


def test_a_slow_client_and_two_hundred_idle_connections_keep_none_of_two_hundred_clients_waiting(
    server: Server, images: np.ndarray, load: Callable[..., Load]
):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 1024), hard), hard))
    text = json.dumps(body(tensor(images[:1]))).encode()
    with ExitStack() as stack:
        slow, *_ = (stack.enter_context(open_connection(server)) for _ in range(201))
        slow.sendall(head(MODELS[0], len(text)) + text[:100])
        with load(server, threads=200) as sent:
            sent.reaches(400)
        slow.sendall(text[100:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    assert set(sent.counts) == {"right"}
