"""Where a source has a file of the data set, and what it holds, in whichever form it is offered.

Forms: IDX and CSV, gzipped or not, npz; in a folder, or in that of torchvision below it. Any Python
from 3.8 can import it, for doctor.py, before anything is installed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname, urlopen

from serving.fashion.contract import PIXEL_MAX, PIXELS, SIDE

TRAIN_FILES = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_FILES = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
TORCHVISION = "FashionMNIST/raw", "raw"  # below the root that its data sets are given
# Source of the format: http://yann.lecun.com/exdb/mnist, "The IDX file format": two zero bytes,
# type (8: unsigned byte), number of dimensions, then each dimension as a big-endian uint32.
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
IDX, GZIP, ZIP = b"\0\0\x08", b"\x1f\x8b", b"PK\x03\x04"  # first bytes
TRAIN_WORDS, TEST_WORDS = ("train",), ("test", "t10k")
NOT_FOUND = "No such file or directory"


class UnavailableError(Exception):
    """A file is not available from a source; the message is the reason."""


def is_url(source: str) -> bool:
    """Whether a source is no folder."""
    return source.lower().startswith(("http:", "https:"))


def failure(source: str, names: Sequence[str]) -> str:
    """Why these files are not available from a source, or "". Of a URL, the first is requested."""
    try:
        if is_url(source):
            urlopen(f"{source.rstrip('/')}/{names[0]}", timeout=5.0).close()
        for name in () if is_url(source) else names:
            locate(source, name, name)
    except (OSError, ValueError, UnavailableError) as error:
        return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
    return ""


def locate(source: str, name: str, target: str) -> list[Path]:
    """The files of a folder that may have what a file holds, most likely first; at least one.

    name: of the IDX file, in any case, with or without .gz; target: how data/raw names it. Raises
    UnavailableError.
    """
    if source.lower().startswith("file:"):
        source = url2pathname(urlsplit(source).path)
    root = Path(source).expanduser()
    ranked = []
    try:
        paths = list(root.iterdir()) if root.is_dir() or not root.exists() else [root]
    except OSError as error:
        raise UnavailableError(error.strerror) from None
    for path in [*paths, *(path for folder in TORCHVISION for path in root.glob(f"{folder}/*"))]:
        entry = path.name.lower()
        words = {w for w in (*TRAIN_WORDS, *TEST_WORDS) if w in entry}
        is_table = entry.endswith((".csv", ".csv.gz", ".npz") if words else ".npz")
        if _plain(entry) == _plain(name):
            ranked.append((int(not entry.endswith(".gz")), path))
        elif is_table and words.issubset(_words(target)) and not entry.startswith("."):
            ranked.append((2, path))
    if not ranked:
        raise UnavailableError(f"{NOT_FOUND}: {name}, nor a CSV or npz file of it")
    return [path for _, path in sorted(ranked)]


def _words(target: str) -> tuple[str, ...]:
    return TEST_WORDS if target.startswith(TEST_WORDS) else TRAIN_WORDS


def _plain(name: str) -> str:
    name = name.lower()
    return (name[:-3] if name.endswith(".gz") else name).replace(".", "-")


def is_gzipped_idx(path: Path) -> bool:
    """Whether a file has the form in which data/raw has it, as far as its first bytes tell."""
    try:
        with gzip.open(path) as file:
            return file.read(len(IDX)) == IDX
    except (EOFError, OSError, zlib.error):
        return False


def read(path: Path, target: str) -> bytes:
    """The content of a file in any form, as IDX; target: its name in data/raw.

    Raises UnavailableError, with what is wrong with the file.
    """
    try:
        with path.open("rb") as file:
            return _read(file, target)
    except (EOFError, OSError, ValueError, csv.Error, zlib.error, zipfile.BadZipFile) as error:
        raise UnavailableError(f"damaged: {error}") from None


def _read(file: Any, target: str) -> bytes:
    head = bytes(file.peek(8)[:8])
    if head.startswith(GZIP):
        return _read(gzip.open(file), target)
    if head.startswith(IDX):
        return bytes(file.read())
    if head.startswith(ZIP):
        labels, pixels = _from_npz(file.read(), _words(target))
    elif head.removeprefix(codecs.BOM_UTF8).isascii() and b"\0" not in head:
        labels, pixels = _from_csv(file)
    else:
        raise UnavailableError(f"begins with {head!r}; expected an IDX, gzip, CSV or npz file")
    if "labels" in target:
        return struct.pack(">2I", LABELS_MAGIC, len(labels)) + labels
    return struct.pack(">4I", IMAGES_MAGIC, len(labels), SIDE, SIDE) + pixels


def _from_csv(file: IO[bytes]) -> tuple[bytes, bytes]:
    """Labels and pixels of a table with a label and 784 pixels a line, below a header or none."""
    labels, pixels, label = bytearray(), bytearray(), 0
    lines = codecs.iterdecode(file, "utf-8-sig")  # with the mark that spreadsheets begin with
    for number, fields in enumerate(csv.reader(lines, skipinitialspace=True), 1):
        if not fields:
            continue
        if len(fields) != PIXELS + 1:
            expected = f"{PIXELS + 1}: label, pixel1 to pixel{PIXELS}"
            raise UnavailableError(f"line {number}: {len(fields)} columns, expected {expected}")
        try:
            row = bytearray(map(int, fields))
        except ValueError:
            names = [f.strip().lower() for f in fields]
            if number == 1 and "label" in names:
                label = names.index("label")
                continue
            wrong = next(f for f in fields if not f.strip().isdecimal() or int(f) > PIXEL_MAX)
            expected = f"expected a whole number to {PIXEL_MAX}"
            raise UnavailableError(f"line {number}: {wrong!r}, {expected}") from None
        labels.append(row.pop(label))
        pixels += row
    return bytes(labels), bytes(pixels)


def _from_npz(content: bytes, words: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Labels and pixels: of x_train, y_train or the like; or of images and labels alone."""
    import numpy as np  # noqa: PLC0415 (need not be installed for doctor.py)

    found = []
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        names = [n for n in arrays if any(w in n.lower() for w in words)] or arrays.files
        for letter, word in ("y", "label"), ("x", "image"):
            fit = [n for n in names if n.lower().startswith(letter) or word in n.lower()]
            if len(fit) != 1:
                listed = ", ".join(arrays.files)
                raise UnavailableError(
                    f"arrays {listed}; expected x_train, y_train, x_test, y_test"
                )
            values = arrays[fit[0]]
            found.append(values.astype(np.uint8))
            if not np.array_equal(found[-1], values):
                expected = f"expected whole numbers from 0 to {PIXEL_MAX}"
                raise UnavailableError(f"{fit[0]}: {values.dtype}, {expected}")
    labels, pixels = found
    if pixels.size != labels.size * PIXELS:
        shapes = f"images {pixels.shape}, labels {labels.shape}"
        raise UnavailableError(f"{shapes}; expected {SIDE} × {SIDE} pixels for each label")
    return labels.tobytes(), pixels.tobytes()
