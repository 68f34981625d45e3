"""What happens when something breaks, with figures.  Run: pytest tests/test_faults.py -s"""

import json
import random
import resource
import signal
import socket
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import requests
from processes import DEADLINE_SECONDS, ready, wait_until
from scratch import ROOT, Digits, make_params, run
from wire import MODELS, OK, REJECTED, body, head, log_of, open_connection, post, tensor

from serving.fashion.contract import LABELS
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import models_in
from serving.launch import Server


@pytest.fixture(scope="module")
def expected(repository: Path, digits: Digits) -> dict[str, np.ndarray]:
    """The right labels of the test digits, by model."""
    return {
        model.name: load_classifier(model.path).classify(digits[1].images)[LABELS]
        for model in models_in(repository)
    }


class Load:
    """Asks a server from several threads until it is ended, and counts what comes back."""

    def __init__(self, server: Server, images: np.ndarray, expected: dict[str, np.ndarray]) -> None:
        self.server, self.images, self.expected = server, images, expected
        self.counts: Counter[str] = Counter()
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(8)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        print({"sent": self.counts.total(), **self.counts})

    def _ask(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self._ended.is_set():
            size = rng.choice((1, 1, 1, 8))
            rows = rng.sample(range(len(self.images)), size)
            what = self._once(rng.choice(MODELS), rows)
            with self._lock:
                self.counts[what] += 1
            if what == "not connected":
                self._ended.wait(0.05)

    def _once(self, model: str, rows: list[int]) -> str:
        try:
            response = post(self.server, model, body(tensor(self.images[rows])))
        except requests.ConnectionError as error:
            return "not connected" if "Connection refused" in str(error) else "lost"
        except requests.RequestException:
            return "lost"
        if response.status != OK:
            return f"rejected with {response.status}"
        right = np.array_equal(response.outputs[LABELS], self.expected[model][rows])
        return "right" if right else "wrong"

    def reaches(self, count: int) -> None:
        """Wait for this many more right responses."""
        before = self.counts["right"]
        wait_until(lambda: self.counts["right"] >= before + count, f"{count} right responses")


def test_a_server_reported_to_end_under_load_responses_what_it_took_and_frees_its_ports(
    own_repository: Path, tmp_path: Path, images: np.ndarray, expected: dict[str, np.ndarray]
):
    with ready(own_repository, tmp_path) as server:
        with Load(server, images, expected) as load:
            load.reaches(50)
            server.guard.send_signal(signal.SIGTERM)
            assert server.guard.wait(DEADLINE_SECONDS) == 0
        assert load.counts["wrong"] == 0
        # One that the system has taken, and the server not yet, is reset as the socket closes.
        assert load.counts["lost"] <= 1
        assert "Traceback" not in log_of(server)
        for url in (server.rest, server.grpc):
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("127.0.0.1", int(url.rpartition(":")[2])))


def test_a_full_disk_while_packaging_is_one_line_and_leaves_what_was_there(tmp_path: Path):
    program = (
        "import pathlib, resource, sys\n"
        "from stages import console, package\n"
        "def main():\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "    package.package(pathlib.Path('serving/models'), [pathlib.Path('new')],\n"
        "        package.load_params().package, None)\n"
        "console.run(main)\n"
    )
    old = tmp_path / "serving/models/old"
    old.mkdir(parents=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/big.bin").write_bytes(b"x" * 20_000)
    (tmp_path / "new/training.json").write_text(
        '{"served": {"name": "m", "file": "big.bin"}}', "utf-8"
    )
    make_params(tmp_path)
    output = run(tmp_path, sys.executable, "-c", program, expect=1, PYTHONPATH=str(ROOT))
    assert output == "error: File too large; free some space, then run again\n"
    assert old.is_dir()
    assert not list(tmp_path.glob(".part-*"))


BAD = [
    body(),
    body(tensor(np.zeros((1, 783)))),
    body(tensor(np.full((2, 784), 256.0))),
    body(tensor(["no picture"], [1], "BYTES")),
    body(tensor(np.zeros((1, 784))), outputs=("colour",)),
]


def test_bad_requests_beside_good_ones_spoil_none_of_them(
    server: Server, images: np.ndarray, expected: dict[str, np.ndarray]
):
    counts: Counter[str] = Counter()

    def once(place: int) -> None:
        model = MODELS[place % 2]
        if place % 3:
            rows = list(range(place % len(images)))[-(place % 4) - 1 :]
            response = post(server, model, body(tensor(images[rows])))
            right = response.outputs.get(LABELS) == expected[model][rows].tolist()
            counts["right" if right else f"wrong: {response}"] += 1
        else:
            response = post(server, model, BAD[place % len(BAD)])
            counts["rejected" if response.status == REJECTED else f"not rejected: {response}"] += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(once, range(2, 302)))
    assert counts == {"right": 200, "rejected": 100}


def test_a_slow_client_keeps_nobody_waiting(
    server: Server, images: np.ndarray, expected: dict[str, np.ndarray]
):
    text = json.dumps(body(tensor(images[:1]))).encode()
    with open_connection(server) as slow:
        slow.sendall(head(MODELS[0], len(text)) + text[:100])
        with Load(server, images, expected) as load:
            load.reaches(50)
        slow.sendall(text[100:])
        response = slow.recv(65536)
    assert set(load.counts) == {"right"}
    assert response.startswith(b"HTTP/1.1 200")


def test_two_hundred_connections_at_once_are_all_served_right(
    server: Server, images: np.ndarray, expected: dict[str, np.ndarray]
):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 1024), hard), hard))
    with ExitStack() as stack:
        for _ in range(200):  # idle ones, which must not keep the others out
            stack.enter_context(open_connection(server))

        def once(place: int) -> bool:
            row = place % len(images)
            model = MODELS[place % 2]
            response = post(server, model, body(tensor(images[row : row + 1])))
            return response.outputs.get(LABELS) == [expected[model][row]]

        with ThreadPoolExecutor(200) as pool:
            right = list(pool.map(once, range(400)))
    print({"sent": 400, "right": sum(right)})
    assert all(right)
