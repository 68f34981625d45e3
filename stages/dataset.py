"""The only reader and writer of the data set's files: IDX as published, npz once processed."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serving.fashion.contract import FEATURES_FILE, PIXELS, SIDE
from stages.atomic import replacing
from stages.errors import StageError

RAW, PROCESSED = Path("data/raw"), Path("data/processed")
FEATURES, TRAIN_FEATURES = PROCESSED / FEATURES_FILE, PROCESSED / "train_features.npy"
TRAIN_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")

# Source of the format: http://yann.lecun.com/exdb/mnist, "The IDX file format": two zero bytes,
# type (8: unsigned byte), number of dimensions, then each dimension as a big-endian uint32.
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049


class Images(NamedTuple):
    """Labelled images. images: uint8 [n, 784]; labels: uint8 [n]; class_names: by label."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def read_idx(
    images: Path,
    labels: Path,
    class_names: tuple[str, ...],
    first_label: int = 0,
    transposed: bool = False,
) -> Images:
    """Read a pair of gzipped IDX files, strictly.

    first_label: what the files call the first class, here 0; transposed: their images are column
    by column. Raises StageError, naming the file, what was expected and what was found, for a
    damaged or truncated file, trailing bytes, another magic number or image size, images and labels
    of different number, no images at all, and a label without a class name.
    """
    pictures = _read(images, IMAGES_MAGIC, (SIDE, SIDE))
    pixels = (pictures.swapaxes(1, 2) if transposed else pictures).reshape(-1, PIXELS)
    classes = _read(labels, LABELS_MAGIC, ())
    if len(pixels) != len(classes):
        raise StageError(
            f"{labels}: {len(classes):,} labels, but {images} holds {len(pixels):,} images"
        )
    if not len(pixels):
        raise StageError(f"{images}: no images, expected at least one")
    last_label = first_label + len(class_names) - 1
    strange = np.flatnonzero((classes < first_label) | (classes > last_label))
    if len(strange):
        raise StageError(
            f"{labels}: label {classes[strange[0]]} at position {strange[0]:,}, "
            f"expected {first_label} to {last_label}"
        )
    return Images(pixels, classes - np.uint8(first_label), class_names)


def _read(path: Path, magic: int, item_shape: tuple[int, ...]) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise StageError(f"{path}: not found; fetch it with: dvc repro download") from None
    except (EOFError, OSError, zlib.error) as error:
        raise StageError(f"{path}: damaged gzip file: {error}") from None
    header = struct.Struct(f">{2 + len(item_shape)}I")
    if len(content) < header.size:
        raise StageError(f"{path}: {len(content)} bytes, expected a header of {header.size}")
    found, count, *shape = header.unpack_from(content)
    if found != magic:
        raise StageError(f"{path}: magic number {found}, expected {magic}")
    if tuple(shape) != item_shape:
        size, expected = (" × ".join(map(str, s)) for s in (shape, item_shape))
        raise StageError(f"{path}: images of {size} pixels, expected {expected}")
    expected_size = header.size + count * int(np.prod(item_shape, dtype=int))
    if len(content) != expected_size:
        raise StageError(
            f"{path}: {len(content):,} bytes, "
            f"expected {expected_size:,} for the {count:,} items that its header states"
        )
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(count, *item_shape)


def write_idx(images: Path, labels: Path, content: Images) -> None:
    """Write a pair of gzipped IDX files; the bytes depend on the content alone."""
    count = len(content.labels)
    _write(images, struct.pack(">4I", IMAGES_MAGIC, count, SIDE, SIDE), content.images)
    _write(labels, struct.pack(">2I", LABELS_MAGIC, count), content.labels)


def _write(path: Path, header: bytes, items: np.ndarray) -> None:
    with replacing(path) as part:
        part.write_bytes(gzip.compress(header + items.astype(np.uint8).tobytes(), mtime=0))


def read_npz(path: Path) -> Images:
    """Read what write_npz wrote. Raises StageError when it is not there."""
    if not path.exists():
        raise StageError(f"{path}: not found; make it with: dvc repro preprocess")
    with np.load(path, allow_pickle=False) as content:
        names = tuple(content["class_names"].tolist())
        return Images(content["images"], content["labels"], names)


def read_features() -> np.ndarray:
    """The features of the training images, float32 [n, k]. Raises StageError when not there."""
    if not TRAIN_FEATURES.exists():
        raise StageError(f"{TRAIN_FEATURES}: not found; make it with: dvc repro preprocess")
    return np.load(TRAIN_FEATURES, allow_pickle=False)


def write_npz(path: Path, content: Images) -> None:
    """Write images, labels and class_names as npz; the bytes depend on the content alone."""
    with replacing(path) as part:
        np.savez(part, **content._asdict())
