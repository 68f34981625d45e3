"""The only reader and writer of IDX files, as the data set is published."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from serving.fashion.contract import PIXELS, SIDE
from stages.console import StageError
from stages.data import forms
from stages.data.arrays import atomic_write
from stages.data.forms import IMAGES_MAGIC, LABELS_MAGIC
from stages.data.processed import BLOCK, Images

RAW = Path("data/raw")
TRAIN_FILES, TEST_FILES = forms.TRAIN_FILES, forms.TEST_FILES


def read_labels(path: Path, class_names: tuple[str, ...], first_label: int = 0) -> np.ndarray:
    """The labels of a gzipped IDX file, uint8 [n], 0 to classes - 1.

    first_label: what the file calls the first class. Strict, as read_idx.
    """
    labels = np.concatenate([np.empty(0, np.uint8), *_read(path, LABELS_MAGIC)])
    if not len(labels):
        raise StageError(f"{path}: no labels, expected at least one")
    last_label = first_label + len(class_names) - 1
    invalid = np.flatnonzero((labels < first_label) | (labels > last_label))
    if len(invalid):
        raise StageError(
            f"{path}: label {labels[invalid[0]]} at position {invalid[0]:,}, "
            f"expected {first_label} to {last_label}"
        )
    return labels - np.uint8(first_label)


def read_images(path: Path, labels: int, transposed: bool = False) -> Iterator[np.ndarray]:
    """The images of a gzipped IDX file, uint8 [up to BLOCK, 784] at a time.

    labels: how many there are; transposed: the file has images column by column. Strict, as
    read_idx; of a file damaged at its end, blocks before the damage are yielded first.
    """
    count = 0
    for block in _read(path, IMAGES_MAGIC, SIDE, SIDE):
        yield (block.swapaxes(1, 2) if transposed else block).reshape(-1, PIXELS)
        count += len(block)
    if count != labels:
        raise StageError(f"{path}: {count:,} images, but there are {labels:,} labels")


def read_idx(
    images: Path,
    labels: Path,
    class_names: tuple[str, ...],
    first_label: int = 0,
    transposed: bool = False,
) -> Images:
    """Read a pair of gzipped IDX files, strictly; the arguments are those of the functions above.

    Raises StageError for a damaged or truncated file, trailing bytes, another magic number or image
    size, images and labels of different number, none at all, and a label without a class name.
    """
    classes = read_labels(labels, class_names, first_label)
    pixels = np.concatenate(list(read_images(images, len(classes), transposed)))
    return Images(pixels, classes, class_names)


def _read(path: Path, magic: int, *shape: int) -> Iterator[np.ndarray]:
    """Items, uint8 [up to BLOCK, *shape] at a time."""
    size, start, read = prod(shape), 8 + 4 * len(shape), 0
    try:
        with gzip.open(path) as file:
            found, count, *sides = struct.unpack(f">{start // 4}I", file.read(start))
            if (found, *sides) != (magic, *shape):
                headers = (found, count, *sides), (magic, "n", *shape)
                actual, expected = (", ".join(map(str, header)) for header in headers)
                raise StageError(f"{path}: header {actual}; expected {expected}, for n items")
            while content := file.read(BLOCK * size):
                read += len(content)
                if read <= count * size and not len(content) % size:
                    yield np.frombuffer(content, np.uint8).reshape(-1, *shape)
    except FileNotFoundError:
        raise StageError(f"{path}: not found; fetch it with: dvc repro download") from None
    except (EOFError, OSError, struct.error, zlib.error) as error:
        raise StageError(f"{path}: damaged gzip file: {error}") from None
    if read != count * size:
        raise StageError(
            f"{path}: {start + read:,} bytes, expected {start + count * size:,} "
            f"for the {count:,} items that its header states"
        )


def write_idx(images: Path, labels: Path, content: Images, level: int = 9) -> None:
    """Write a pair of gzipped IDX files; the bytes depend on the content and gzip's level alone."""
    count = len(content.labels)
    _write(images, struct.pack(">4I", IMAGES_MAGIC, count, SIDE, SIDE), content.images, level)
    _write(labels, struct.pack(">2I", LABELS_MAGIC, count), content.labels, level)


def _write(path: Path, header: bytes, items: np.ndarray, level: int) -> None:
    content = header + items.astype(np.uint8).tobytes()
    with atomic_write(path) as tmp:
        tmp.write_bytes(gzip.compress(content, level, mtime=0))
