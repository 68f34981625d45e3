"""Arrays in .npy files, of which only some rows are in memory at once; files written whole."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from stages.console import StageError


def map_rows(path: Path) -> np.ndarray:
    """A memory map of a .npy file. Raises StageError when it is not there, or truncated."""
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise StageError(f"{path}: not found; make it with: dvc repro preprocess") from None
    except ValueError:
        raise StageError(f"{path}: truncated; make it again with: dvc repro") from None


def write_rows(path: Path, count: int, parts: Iterable[np.ndarray]) -> None:
    """Write parts, one after the other, `count` rows in all, as a .npy file."""
    written = 0
    with atomic_write(path) as tmp, tmp.open("wb") as file:
        for rows in parts:
            if not file.tell():
                descr, shape = npy.dtype_to_descr(rows.dtype), (count, *rows.shape[1:])
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(rows).data)
            written += len(rows)
        if written != count:
            raise RuntimeError(f"{path}: {written:,} rows, expected {count:,}")


def write_npz(path: Path, content: Any) -> None:
    """Write the arrays of a named tuple as np.savez does; the bytes depend on the arrays alone.

    Those that np.savez writes depend on the version of Python, too.
    """
    with atomic_write(path) as tmp, ZipFile(tmp, "w") as archive:
        for name, values in content._asdict().items():
            file = BytesIO()
            np.save(file, values, allow_pickle=False)
            archive.writestr(ZipInfo(f"{name}.npy"), file.getvalue())


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `size`, the last one of less, that are all of `count` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` only if the block ends without error.

    Makes the folder. The suffix stays the same, since some writers choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".part-{path.name}")
    try:
        yield tmp
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it replaces `path` only if the block ends without error.

    It is made in the folder above that of `path`: inside serving/, a server would load it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.resolve().parent.parent, prefix=".part-") as tmp:
        new, old = Path(tmp, "new"), Path(tmp, "old")
        new.mkdir()
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
