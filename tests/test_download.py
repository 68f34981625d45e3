"""Four files from the first source that has them right.  Run: pytest tests/test_download.py"""

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scratch import ROOT, make_params, run

from stages.console import StageError
from stages.data import sources
from stages.data.digits import make_digits
from stages.data.idx import TRAIN_FILES, write_idx
from stages.data.processed import Images
from stages.data.sources import File, fetch
from stages.download import REMEDY

NAME = "train-labels-idx1-ubyte.gz"
LABELS = b"\0\0\x08\x01" + (3).to_bytes(4, "big") + b"\x01\x00\x02"
CONTENT = gzip.compress(LABELS, mtime=0) + bytes(300_000)
FILE = File(NAME, NAME, hashlib.md5(CONTENT).hexdigest())


class Handler(BaseHTTPRequestHandler):
    """Serves /<behaviour>/<file>; counts the requests."""

    requests: list[str]

    def do_GET(self) -> None:
        behaviour = self.path.split("/")[1]
        self.requests.append(behaviour)
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
        self.send_error(503) if self.requests.count("busy_once") == 1 else self.good()

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
    Handler.requests = []
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
        ("wrong", 1, "begins with .*; expected an IDX, gzip, CSV or npz file"),
    ],
)
def test_a_source_that_fails_is_named_with_its_reason_and_leaves_no_file(
    tmp_path: Path, source: Callable[[str], str], behaviour: str, attempts: int, reason: str
):
    with pytest.raises(StageError, match=f"{source(behaviour)}: {reason}") as error:
        fetch(FILE, [source(behaviour)], tmp_path)
    assert "\n" not in str(error.value)
    assert Handler.requests == [behaviour] * attempts
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_checksum_is_accepted_and_its_checksum_is_printed(
    tmp_path: Path, source: Callable[[str], str]
):
    (tmp_path / "labels.gz").write_bytes(b"of another time")
    output = fetch(File("labels.gz", NAME, None), [source("good")], tmp_path)
    assert output == f"from {source('good')}, MD5 {FILE.md5}"
    assert (tmp_path / "labels.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "cannot connect"),
        ("{}/loop", "loop: not a usable URL: Exceeded 30 redirects"),
        ("https://127.0.0.1:{port}/good", "no secure connection"),
        ("http://", "not a usable URL"),
        ("http://localhost:9", "cannot connect to the proxy"),
    ],
)
def test_a_source_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path,
    server: ThreadingHTTPServer,
    address: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
):
    if "proxy" in reason:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    url = address.format(f"http://127.0.0.1:{server.server_port}", port=server.server_port)
    with pytest.raises(StageError, match=reason):
        fetch(FILE, [url], tmp_path)


@pytest.mark.parametrize("first", ["missing", "cut_off", "wrong"])
def test_the_second_source_is_used_after_the_first_fails(
    tmp_path: Path, source: Callable[[str], str], first: str
):
    output = fetch(FILE, [source(first), source("good")], tmp_path)
    assert output.startswith(f"from {source('good')} (not from {source(first)}: ")
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_good_file_is_kept_and_a_bad_one_replaced(tmp_path: Path, source: Callable[[str], str]):
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch(FILE, [source("good")], tmp_path) == "already there"
    assert Handler.requests == []
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


SMALL = Images(
    np.random.default_rng(1).integers(0, 256, (5, 784), np.uint8), np.arange(5, dtype=np.uint8), ()
)
HEADER = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))]) + "\n"
TABLE = "\n".join(
    ",".join(map(str, row)) for row in np.column_stack([SMALL.labels, SMALL.images]).tolist()
)
IMAGES_NAME, LABELS_NAME = TRAIN_FILES


def idx_of(folder: Path) -> list[bytes]:
    """The content of the pair of IDX files of SMALL."""
    write_idx(folder / IMAGES_NAME, folder / LABELS_NAME, SMALL)
    return [gzip.decompress((folder / name).read_bytes()) for name in TRAIN_FILES]


def as_unpacked(folder: Path, content: list[bytes]) -> None:
    for name, values in zip(TRAIN_FILES, content, strict=True):
        (folder / name.removesuffix(".gz").upper()).write_bytes(values)


def as_packed_anew(folder: Path, content: list[bytes]) -> None:
    for name, values in zip(TRAIN_FILES, content, strict=True):
        (folder / name).write_bytes(gzip.compress(values, 1))


def as_root_of_torchvision(folder: Path, content: list[bytes]) -> None:
    (folder / "FashionMNIST/raw").mkdir(parents=True)
    as_packed_anew(folder / "FashionMNIST/raw", content)


def as_csv(folder: Path, _: list[bytes]) -> None:
    (folder / "fashion-mnist_train.csv").write_text(HEADER + TABLE, "utf-8")
    (folder / "fashion-mnist_test.csv").write_text(HEADER, "utf-8")


def as_csv_of_a_spreadsheet(folder: Path, _: list[bytes]) -> None:
    text = (HEADER + TABLE + "\n\n").replace("\n", "\r\n")
    (folder / "Train.CSV").write_bytes(b"\xef\xbb\xbf" + text.encode())


def as_csv_without_header(folder: Path, _: list[bytes]) -> None:
    (folder / "train.csv.gz").write_bytes(gzip.compress(TABLE.encode()))


def as_mixed(folder: Path, content: list[bytes]) -> None:
    as_csv(folder, content)
    as_packed_anew(folder, content)
    (folder / LABELS_NAME).unlink()


def as_npz(folder: Path, _: list[bytes]) -> None:
    images, labels, none = SMALL.images.reshape(-1, 28, 28), SMALL.labels.astype(int), np.zeros(0)
    np.savez(folder / "fashion.npz", x_train=images, y_train=labels, x_test=none, y_test=none)


def as_npz_of_a_part(folder: Path, _: list[bytes]) -> None:
    np.savez_compressed(folder / "train.npz", images=SMALL.images, labels=SMALL.labels)


@pytest.mark.parametrize(
    "form",
    [
        as_unpacked,
        as_packed_anew,
        as_root_of_torchvision,
        as_csv,
        as_csv_of_a_spreadsheet,
        as_csv_without_header,
        as_mixed,
        as_npz,
        as_npz_of_a_part,
    ],
)
@pytest.mark.parametrize("address", ["{}", "file://{}/"])
def test_every_form_of_a_file_becomes_the_same_bytes_and_is_kept_then(
    tmp_path: Path, form: Callable[[Path, list[bytes]], None], address: str
):
    (tmp_path / "a folder").mkdir()
    content = idx_of(tmp_path)
    form(tmp_path / "a folder", content)
    for name, values in zip(TRAIN_FILES, content, strict=True):
        file = File(name, name, "0" * 32, hashlib.md5(values).hexdigest())
        target = tmp_path / "target"
        fetch(file, [address.format(tmp_path / "a folder")], target)
        assert (target / name).read_bytes() == gzip.compress(values, 6, mtime=0)
        assert fetch(file, [], target) == "already there"


@pytest.mark.parametrize("is_summed", [False, True])
def test_a_table_of_other_data_is_converted_with_the_sum_of_the_table_or_none(
    tmp_path: Path, is_summed: bool
):
    (_, labels) = idx_of(tmp_path)
    table = (HEADER + TABLE).encode()
    (tmp_path / "mine.csv").write_bytes(table)
    file = File(LABELS_NAME, "mine.csv", hashlib.md5(table).hexdigest() if is_summed else None)
    fetch(file, [str(tmp_path)], tmp_path / "target")
    assert gzip.decompress((tmp_path / "target" / LABELS_NAME).read_bytes()) == labels


def test_the_published_bytes_stay_as_they_are(tmp_path: Path):
    (content, _) = idx_of(tmp_path)
    published = gzip.compress(content, 1, mtime=7)
    (tmp_path / IMAGES_NAME).write_bytes(published)
    (tmp_path / IMAGES_NAME.removesuffix(".gz")).write_bytes(content)
    md5s = (hashlib.md5(c).hexdigest() for c in (published, content))
    fetch(File(IMAGES_NAME, IMAGES_NAME, *md5s), [str(tmp_path)], tmp_path / "target")
    assert (tmp_path / "target" / IMAGES_NAME).read_bytes() == published


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.csv", HEADER + TABLE[:-40], r"line 6: \d+ columns, expected 785: label, pixel1 to"),
        ("train.csv", HEADER + TABLE.replace("\n1,", "\ncat,"), "line 3: 'cat', expected a whole"),
        ("train.csv", HEADER + TABLE.replace("\n1,", "\n256,"), "line 3: '256', expected a whole"),
        ("train.csv", TABLE.replace("\n1,", "\n2,"), "wrong checksum: expected MD5 0"),
        ("train.csv", "<html>", "line 1: 1 columns, expected 785"),
        ("train.csv", "", "wrong checksum"),
        ("train-images-idx3-ubyte", "\0\0\x08\1\0\0\0\3ab", "10 bytes, expected 11 by its header"),
        ("train-images-idx3-ubyte", "\0\0\x08", "expected an IDX"),
        ("train-images-idx3-ubyte.gz", "\x1f", "line 1: 1 columns"),
        ("train-images-idx3-ubyte", "\0\1\2\3", "expected an IDX, gzip, CSV or npz file"),
        ("train.npz", "PK\3\4", "damaged: File is not a zip file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(
    tmp_path: Path, name: str, content: str, reason: str
):
    (tmp_path / name).write_text(content, "utf-8")
    file = File(IMAGES_NAME, IMAGES_NAME, "0" * 32, "0" * 32)
    with pytest.raises(StageError, match=f"{name}: .*{reason}") as error:
        fetch(file, [str(tmp_path)], tmp_path / "target")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"arr_0": SMALL.images}, "arrays arr_0; expected x_train, y_train, x_test, y_test"),
        ({"x_train": SMALL.images / 255, "y_train": SMALL.labels}, "x_train: float64, expected"),
        ({"images": SMALL.images[1:], "labels": SMALL.labels}, "expected 28 × 28 pixels for each"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_rejected(
    tmp_path: Path, arrays: dict[str, Any], reason: str
):
    np.savez(tmp_path / "train.npz", **arrays)
    file = File(IMAGES_NAME, IMAGES_NAME, "0" * 32, "0" * 32)
    with pytest.raises(StageError, match=reason):
        fetch(file, [str(tmp_path)], tmp_path / "target")


def test_a_stage_that_is_started_as_a_file_says_how_to_run_it(tmp_path: Path):
    output = run(tmp_path, "python", str(ROOT / "stages/evaluate.py"), expect=1)
    assert output == "run it from the project's root: python -m stages.evaluate\n"


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
