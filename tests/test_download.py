"""Four files from the first source that has them right.  Run: pytest tests/test_download.py"""

import gzip
import hashlib
import io
import struct
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
from stages.data.idx import TRAIN_FILES
from stages.data.processed import Images
from stages.data.sources import File, fetch
from stages.download import REMEDY

NAME = "train-labels-idx1-ubyte.gz"
LABELS = b"\0\0\x08\x01" + (3).to_bytes(4, "big") + b"\x01\x00\x02"
CONTENT = gzip.compress(LABELS, mtime=0) + bytes(300_000)
FILE = File(NAME, NAME, hashlib.md5(CONTENT).hexdigest())


class Handler(BaseHTTPRequestHandler):
    """Serves /<behaviour>/<file>; counts the requests. ended: set when the test has."""

    requested: list[str]
    ended: threading.Event

    def do_GET(self) -> None:
        behaviour = self.path.split("/")[1]
        self.requested.append(behaviour)
        getattr(self, behaviour)()

    def good(self, content: bytes = CONTENT, encoding: str = "identity") -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(content)

    def encoded(self) -> None:
        self.good(encoding="gzip")

    def missing(self) -> None:
        self.send_error(404)

    def busy_once(self) -> None:
        self.send_error(503) if self.requested.count("busy_once") == 1 else self.good()

    def cut_off(self) -> None:
        self.good(CONTENT[: len(CONTENT) // 2])
        self.close_connection = True

    def wrong(self) -> None:
        self.good(CONTENT[::-1])

    def slow(self) -> None:
        self.ended.wait(30)

    def stalls_midway(self) -> None:
        self.good(CONTENT[: len(CONTENT) // 2])
        self.wfile.flush()
        self.slow()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(sources, "BACK_OFF_SECONDS", 0.01)
    monkeypatch.setattr(sources, "READ_SECONDS", 0.3)
    Handler.requested, Handler.ended = [], threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        Handler.ended.set()
        server.shutdown()


@pytest.fixture
def source(server: ThreadingHTTPServer) -> Callable[[str], str]:
    return lambda behaviour: f"http://127.0.0.1:{server.server_port}/{behaviour}"


@pytest.mark.parametrize("behaviour", ["good", "encoded", "busy_once"])
def test_the_file_is_fetched_whole(tmp_path: Path, source: Callable[[str], str], behaviour: str):
    assert fetch(FILE, [source(behaviour)], tmp_path) == f"from {source(behaviour)}"
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://{}/missing", "HTTP 404 Not Found"),
        ("http://{}/cut_off", r"cut off midway \(3 attempts\)"),
        ("http://{}/slow", r"no data for 0.3 s \(3 attempts\)"),
        ("http://{}/stalls_midway", r"no data for 0.3 s \(3 attempts\)"),
        ("http://{}/wrong", "begins with .*; expected an IDX, gzip, CSV or npz file"),
        ("http://127.0.0.1:9", r"cannot connect \(3 attempts\)"),
        ("https://{}", r"no secure connection: certificate or TLS rejected \(3 attempts\)"),
        ("http://", "not a usable URL: .*"),
        ("http://localhost:9", r"cannot connect to the proxy .* \(3 attempts\)"),
    ],
)
def test_a_source_that_fails_is_named_with_its_reason_and_leaves_no_file(
    tmp_path: Path,
    server: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    reason: str,
):
    if "proxy" in reason:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    url = address.format(f"127.0.0.1:{server.server_port}")
    with pytest.raises(StageError, match=f"{url}: {reason}$"):
        fetch(FILE, [url], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_checksum_is_taken_as_it_comes_and_its_own_is_reported(
    tmp_path: Path, source: Callable[[str], str]
):
    (tmp_path / "labels.gz").write_bytes(b"of another time")
    output = fetch(File("labels.gz", NAME, None), [source("good")], tmp_path)
    assert output == f"from {source('good')}, MD5 {FILE.md5}"
    assert (tmp_path / "labels.gz").read_bytes() == CONTENT


def test_the_second_source_is_used_after_the_first_fails(
    tmp_path: Path, source: Callable[[str], str]
):
    output = fetch(FILE, [source("cut_off"), source("good")], tmp_path)
    assert output.startswith(f"from {source('good')} (not from {source('cut_off')}: ")
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_good_file_is_kept_and_a_bad_one_replaced(tmp_path: Path, source: Callable[[str], str]):
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    fetch(FILE, [source("good")], tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert fetch(FILE, [], tmp_path) == "already there"


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
CONTENTS = (  # of the pair of IDX files
    struct.pack(">4I", 2051, len(SMALL.labels), 28, 28) + SMALL.images.tobytes(),
    struct.pack(">2I", 2049, len(SMALL.labels)) + SMALL.labels.tobytes(),
)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


PACKED = {name: gzip.compress(c, 1) for name, c in zip(TRAIN_FILES, CONTENTS, strict=True)}
CSV = {"fashion-mnist_train.csv": (HEADER + TABLE).encode(), "fashion-mnist_test.csv": b"label\n"}
SPREADSHEET = b"\xef\xbb\xbf" + (HEADER + TABLE + "\n\n").replace("\n", "\r\n").encode()
SQUARE, NONE = SMALL.images.reshape(-1, 28, 28), np.zeros(1)
FORMS = {  # files by their names
    "unpacked": {n.removesuffix(".gz").upper(): gzip.decompress(c) for n, c in PACKED.items()},
    "packed anew": PACKED,
    "root of torchvision": {f"FashionMNIST/raw/{name}": c for name, c in PACKED.items()},
    "csv": CSV,
    "csv of a spreadsheet": {"Train.CSV": SPREADSHEET},
    "csv without header": {"train.csv.gz": gzip.compress(TABLE.encode())},
    "images as IDX, labels in a csv": CSV | {IMAGES_NAME: PACKED[IMAGES_NAME]},
    "npz": {
        "f.npz": npz(x_train=SQUARE, y_train=SMALL.labels.astype(int), x_test=NONE, y_test=NONE)
    },
    "npz of a part": {"train.npz": npz(images=SMALL.images, labels=SMALL.labels)},
}


@pytest.mark.parametrize("files", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("address", ["{}", "file://{}/"])
def test_every_form_of_a_file_becomes_a_gzipped_idx_file_and_is_kept_then(
    tmp_path: Path, files: dict[str, bytes], address: str
):
    folder, target = tmp_path / "a folder", tmp_path / "target"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, content in zip(TRAIN_FILES, CONTENTS, strict=True):
        file = File(name, name, hashlib.md5(content).hexdigest())
        fetch(file, [address.format(folder)], target)
        kept = (c for path, c in files.items() if path.endswith(name))
        expected = next(kept, gzip.compress(content, 6, mtime=0))
        assert (target / name).read_bytes() == expected
        assert fetch(file, [], target) == "already there"


@pytest.mark.parametrize("is_summed", [False, True])
def test_a_table_of_other_data_is_converted_with_the_sum_of_the_table_or_none(
    tmp_path: Path, is_summed: bool
):
    table = (HEADER + TABLE).encode()
    (tmp_path / "mine.csv").write_bytes(table)
    file = File(LABELS_NAME, "mine.csv", hashlib.md5(table).hexdigest() if is_summed else None)
    fetch(file, [str(tmp_path)], tmp_path / "target")
    assert gzip.decompress((tmp_path / "target" / LABELS_NAME).read_bytes()) == CONTENTS[1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.csv", HEADER + TABLE[:-40], r"line 6: \d+ columns, expected 785: label, pixel1 to"),
        ("train.csv", HEADER + TABLE.replace("\n1,", "\ncat,"), "line 3: 'cat', expected a whole"),
        ("train.csv", HEADER + TABLE.replace("\n1,", "\n256,"), "line 3: '256', expected a whole"),
        ("train.csv", TABLE.replace("\n1,", "\n2,"), "wrong checksum: expected MD5 0"),
        ("train.csv", "", "wrong checksum"),
        ("train-images-idx3-ubyte", "\0\1\2\3", "expected an IDX, gzip, CSV or npz file"),
        ("train-images-idx3-ubyte.gz", "\x1f", "line 1: 1 columns"),
        ("train.npz", "PK\3\4", "damaged: File is not a zip file"),
        ("train.npz", npz(arr_0=NONE), "arrays arr_0; expected x_train, y_train, x_test, y_test"),
        ("train.npz", npz(x_train=NONE + 0.5, y_train=NONE), "x_train: float64, expected whole"),
        ("train.npz", npz(images=SMALL.images, labels=NONE), "expected 28 × 28 pixels for each"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(
    tmp_path: Path, name: str, content: str | bytes, reason: str
):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    file = File(IMAGES_NAME, IMAGES_NAME, "0" * 32)
    with pytest.raises(StageError, match=f"{name}: .*{reason}.*$"):
        fetch(file, [str(tmp_path)], tmp_path / "target")


def test_a_stage_that_is_started_as_a_file_says_how_to_run_it(tmp_path: Path):
    output = run(tmp_path, "python", str(ROOT / "stages/evaluate.py"), expect=1)
    assert output == "run it from the project's root: python -m stages.evaluate\n"


def test_digits_are_enlarged_and_split_by_class():
    train, test = make_digits()
    assert (len(train.images), len(test.images)) == (1497, 300)
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert np.bincount(test.labels).min() >= 28
    framed = test.images.reshape(-1, 28, 28)
    assert not framed[:, :2].any()
    assert not framed[:, :, -2:].any()
    assert np.array_equal(framed[:, 2::3, 2::3][:, :8, :8], framed[:, 4::3, 4::3][:, :8, :8])
