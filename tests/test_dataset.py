"""IDX files are read strictly, npz files repeatably.  Run: pytest tests/test_dataset.py"""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.console import StageError
from stages.data.arrays import map_rows, write_npz, write_rows
from stages.data.idx import read_idx, write_idx
from stages.data.processed import Images, read_npz

IMAGES, LABELS = "images.gz", "labels.gz"


@pytest.fixture
def folder(tmp_path: Path, small: Images) -> Path:
    write_idx(tmp_path / IMAGES, tmp_path / LABELS, small)
    return tmp_path


def read(folder: Path) -> Images:
    return read_idx(folder / IMAGES, folder / LABELS, tuple("abcd"))


def alter(folder: Path, name: str, offset: int, new: bytes) -> None:
    content = bytearray(gzip.decompress((folder / name).read_bytes()))
    content[offset : offset + len(new)] = new
    (folder / name).write_bytes(gzip.compress(bytes(content)))


def test_the_published_layout_is_read(tmp_path: Path):
    pixels = np.arange(2 * 784, dtype=np.uint32).astype(np.uint8)
    header = bytes.fromhex("00000803 00000002 0000001c 0000001c")
    (tmp_path / IMAGES).write_bytes(gzip.compress(header + pixels.tobytes()))
    (tmp_path / LABELS).write_bytes(gzip.compress(bytes.fromhex("00000801 00000002 03 00")))
    found = read(tmp_path)
    assert np.array_equal(found.images, pixels.reshape(2, 784))
    assert found.labels.tolist() == [3, 0]


@pytest.mark.parametrize(
    ("name", "offset", "new", "message"),
    [
        (IMAGES, 8, b"\0\0\0\x20", "images.gz: header 2051, 40, 32, 28; expected 2051, n, 28, 28"),
        (LABELS, 0, b"\0\0\x08\x03", "labels.gz: header 2051, 40; expected 2049, n, for n items"),
        (IMAGES, 4, b"\0\0\0\x29", "31,376 bytes, expected 32,160 for the 41 items"),
        (LABELS, 4, b"\0\0\0\x27", "labels.gz: 48 bytes, expected 47 for the 39 items"),
        (LABELS, 8 + 7, b"\x04", "labels.gz: label 4 at position 7, expected 0 to 3"),
    ],
)
def test_a_wrong_header_or_label_is_named(
    folder: Path, name: str, offset: int, new: bytes, message: str
):
    alter(folder, name, offset, new)
    with pytest.raises(StageError, match=message):
        read(folder)


def test_fewer_labels_than_images_and_none_at_all_are_an_error(folder: Path, small: Images):
    for count, message in ((39, "images.gz: 40 images, but there are 39 labels"), (0, "no labels")):
        write_idx(folder / "other.gz", folder / LABELS, small._replace(labels=small.labels[:count]))
        with pytest.raises(StageError, match=message):
            read(folder)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (read, "labels.gz: not found; .*dvc repro download"),
        (lambda folder: read_npz(folder / "test.npz"), "test.npz: not found; .*dvc repro preproc"),
        (lambda folder: map_rows(folder / "rows.npy"), "rows.npy: not found; .*dvc repro preproc"),
    ],
)
def test_a_missing_file_is_named_with_its_remedy(
    tmp_path: Path, load: Callable[[Path], object], message: str
):
    with pytest.raises(StageError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_truncated_file_is_always_an_error(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    size = len(whole)
    for length in (*range(0, size, 1 + size // 50), *range(size - 9, size)):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(StageError, match=name):
            read(folder)


@pytest.mark.parametrize(("name", "size"), [(IMAGES, 16), (LABELS, 8)])
def test_a_flipped_bit_in_a_header_is_always_an_error(folder: Path, name: str, size: int):
    whole = (folder / name).read_bytes()
    for place, byte in enumerate(gzip.decompress(whole)[:size]):
        for bit in range(8):
            (folder / name).write_bytes(whole)
            alter(folder, name, place, bytes([byte ^ 1 << bit]))
            with pytest.raises(StageError, match=name):
                read(folder)


def test_an_npz_has_the_same_bytes_under_any_python(tmp_path: Path):
    images = Images(np.zeros((1, 784), np.uint8), np.ones(1, np.uint8), ("a", "b"))
    write_npz(tmp_path / "1.npz", images)
    found = hashlib.md5((tmp_path / "1.npz").read_bytes()).hexdigest()
    assert found == "1a377c5426b2e4bc2517aad96cbc6fdf"


ARRAY = np.arange(60, dtype=np.float32).reshape(20, 3)


def test_rows_in_parts_are_a_file_as_numpy_writes_it(tmp_path: Path):
    write_rows(tmp_path / "rows.npy", 20, [ARRAY[:7], ARRAY[7:7], ARRAY[7:]])
    np.save(tmp_path / "numpys.npy", ARRAY)
    assert (tmp_path / "numpys.npy").read_bytes() == (tmp_path / "rows.npy").read_bytes()
    rows = map_rows(tmp_path / "rows.npy")
    assert np.array_equal(rows, ARRAY)
    assert isinstance(rows, np.memmap)


def test_other_rows_than_announced_leave_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError, match="19 rows, expected 20"):
        write_rows(tmp_path / "rows.npy", 20, [ARRAY[:19]])
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_cut_is_one_line(tmp_path: Path):
    path = tmp_path / "rows.npy"
    write_rows(path, 20, [ARRAY])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageError, match=r"rows.npy: truncated; make it again with: dvc repro"):
        map_rows(path)
