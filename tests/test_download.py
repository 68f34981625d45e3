"""Four files from the first source that has them right.  Run: pytest tests/test_download.py"""

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from scratch import ROOT, make_params, run

from stages.console import StageError
from stages.data import sources
from stages.data.digits import make_digits
from stages.data.sources import File, fetch
from stages.download import REMEDY

NAME = "train-labels-idx1-ubyte.gz"
CONTENT = gzip.compress(b"the right bytes" * 50_000, mtime=0) + bytes(300_000)
FILE = File(NAME, NAME, hashlib.md5(CONTENT).hexdigest())


class Handler(BaseHTTPRequestHandler):
    """Serves /<behaviour>/<file>; counts the requests."""

    asked: list[str]

    def do_GET(self) -> None:
        behaviour = self.path.split("/")[1]
        self.asked.append(behaviour)
        getattr(self, behaviour)()

    def good(self, content: bytes = CONTENT, encoding: str = "identity") -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(content)

    def encoded(self) -> None:
        self.good(encoding="gzip")

    def redirect(self, location: str = f"/good/{NAME}") -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.end_headers()

    def missing(self) -> None:
        self.send_error(404)

    def busy_once(self) -> None:
        self.send_error(503) if self.asked.count("busy_once") == 1 else self.good()

    def cut_off(self) -> None:
        self.good(CONTENT[: len(CONTENT) // 2])
        self.close_connection = True

    def wrong(self) -> None:
        self.good(CONTENT[::-1])

    def slow(self) -> None:
        stop = threading.Event()
        self.server.stop_slow.append(stop)  # type: ignore[attr-defined]
        stop.wait(30)

    def stalls_midway(self) -> None:
        self.good(CONTENT[: len(CONTENT) // 2])
        self.wfile.flush()
        self.slow()

    def loop(self) -> None:
        self.redirect(self.path)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(sources, "BACK_OFF_SECONDS", 0.01)
    monkeypatch.setattr(sources, "READ_SECONDS", 0.3)
    Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.stop_slow = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        for stop in server.stop_slow:  # type: ignore[attr-defined]
            stop.set()
        server.shutdown()


@pytest.fixture
def source(server: ThreadingHTTPServer) -> Callable[[str], str]:
    return lambda behaviour: f"http://127.0.0.1:{server.server_port}/{behaviour}"


@pytest.mark.parametrize("behaviour", ["good", "redirect", "encoded", "busy_once"])
def test_the_file_is_fetched_whole(tmp_path: Path, source: Callable[[str], str], behaviour: str):
    assert fetch(FILE, [source(behaviour)], tmp_path) == f"from {source(behaviour)}"
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("behaviour", "attempts", "reason"),
    [
        ("missing", 1, "HTTP 404 Not Found"),
        ("cut_off", 3, r"cut off midway \(3 attempts\)"),
        ("slow", 3, r"no data for 0.3 s \(3 attempts\)"),
        ("stalls_midway", 3, r"no data for 0.3 s \(3 attempts\)"),
        ("wrong", 1, "wrong checksum: expected MD5 [0-9a-f]{32}, got [0-9a-f]{32}"),
    ],
)
def test_a_source_that_fails_is_named_with_its_reason_and_leaves_no_file(
    tmp_path: Path, source: Callable[[str], str], behaviour: str, attempts: int, reason: str
):
    with pytest.raises(StageError, match=f"{source(behaviour)}: {reason}") as error:
        fetch(FILE, [source(behaviour)], tmp_path)
    assert "\n" not in str(error.value)
    assert Handler.asked == [behaviour] * attempts
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_checksum_is_taken_as_it_comes_and_its_own_is_told(
    tmp_path: Path, source: Callable[[str], str]
):
    (tmp_path / "labels.gz").write_bytes(b"of another time")
    output = fetch(File("labels.gz", NAME, None), [source("good")], tmp_path)
    assert output == f"from {source('good')}, MD5 {FILE.md5}"
    assert (tmp_path / "labels.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("first", ["missing", "cut_off", "wrong"])
def test_the_second_source_is_used_after_the_first_fails(
    tmp_path: Path, source: Callable[[str], str], first: str
):
    output = fetch(FILE, [source(first), source("good")], tmp_path)
    assert output.startswith(f"from {source('good')} (not from {source(first)}: ")
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_closed_port_is_a_source_that_cannot_be_connected(
    tmp_path: Path, source: Callable[[str], str], server: ThreadingHTTPServer
):
    server.server_close()
    with pytest.raises(StageError, match="cannot connect"):
        fetch(FILE, [source("good")], tmp_path)


def test_a_good_file_is_kept_and_a_bad_one_replaced(tmp_path: Path, source: Callable[[str], str]):
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch(FILE, [source("good")], tmp_path) == "already there"
    assert Handler.asked == []
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    fetch(FILE, [source("good")], tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.usefixtures("server")
def test_a_folder_is_a_source_too(tmp_path: Path):
    folder, target = tmp_path / "source", tmp_path / "target"
    folder.mkdir()
    with pytest.raises(StageError, match="source: No such file or directory"):
        fetch(FILE, [str(folder)], target)
    (folder / NAME).write_bytes(CONTENT)
    fetch(FILE, [str(folder)], target)
    assert (target / NAME).read_bytes() == CONTENT
    assert (folder / NAME).read_bytes() == CONTENT


def test_endless_redirects_are_a_reason(tmp_path: Path, source: Callable[[str], str]):
    with pytest.raises(StageError, match="loop: too many redirects"):
        fetch(FILE, [source("loop")], tmp_path)


def test_a_proxy_that_does_not_answer_is_the_reason(
    tmp_path: Path, source: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(StageError, match="cannot connect to the proxy"):
        fetch(FILE, [source("good")], tmp_path)


def test_a_server_without_tls_and_no_usable_url_are_reasons(
    tmp_path: Path, source: Callable[[str], str]
):
    with pytest.raises(StageError, match="no secure connection"):
        fetch(FILE, [source("good").replace("http:", "https:")], tmp_path)
    with pytest.raises(StageError, match="not a usable URL"):
        fetch(FILE, ["http://"], tmp_path)


def test_no_source_at_all_ends_the_stage_in_one_line(tmp_path: Path):
    make_params(tmp_path, "download.dataset=fashion-mnist")
    output = run(
        tmp_path,
        *("python", "-m", "stages.download"),
        expect=1,
        PYTHONPATH=str(ROOT),
        FASHION_MNIST_SOURCE=f"{tmp_path}/not-here",
    )
    assert output.startswith("error: data/raw/train-images-idx3-ubyte.gz: no source gave it: ")
    assert output.index("/not-here: No such file") < output.index(" /nowhere: No such file")
    assert output.endswith(f". {REMEDY}\n")
    assert output.count("\n") == 1


def test_digits_are_enlarged_and_split_by_class():
    train, test = make_digits()
    assert train.images.shape == (1497, 784)
    assert test.images.shape == (300, 784)
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert np.bincount(test.labels).min() >= 28
    framed = test.images.reshape(-1, 28, 28)
    assert not framed[:, :2].any()
    assert not framed[:, :, -2:].any()
    assert np.array_equal(framed[:, 2::3, 2::3][:, :8, :8], framed[:, 4::3, 4::3][:, :8, :8])
