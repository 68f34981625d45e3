"""Arrays in .npy files, of which only some rows are in memory at once."""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from stages.atomic import replacing
from stages.errors import StageError


class RowsFile:
    """A C-ordered array [n, k] of a .npy file, of which each access reads the rows asked for.

    A memory map would do as well, but counts in full as the process's memory where that is limited.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            npy.read_magic(file)
            self.shape, _, self.dtype = npy.read_array_header_1_0(file)
            self._path, self._start = path, file.tell()
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=int))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        """Rows of a slice, or at positions, int [m]; those that follow each other in one go."""
        if isinstance(wanted, slice):
            wanted = np.arange(*wanted.indices(len(self)))
        rows = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        ends = np.flatnonzero(np.diff(wanted, append=-1) != 1) + 1
        with self._path.open("rb") as file:
            for start, end in pairwise([0, *ends.tolist()]):
                file.seek(self._start + int(wanted[start]) * self._row_bytes)
                if file.readinto(rows[start:end].data) != (end - start) * self._row_bytes:
                    raise StageError(f"{self._path}: truncated; make it again with: dvc repro")
        return rows


Rows = np.ndarray | RowsFile  # what can be counted, sliced, and asked for rows by position


def write_rows(path: Path, count: int, parts: Iterable[np.ndarray]) -> None:
    """Write parts, one after the other, `count` rows in all, as a .npy file."""
    rest = iter(parts)
    first = next(rest)
    shape, came = (count, *first.shape[1:]), 0
    header = {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    with replacing(path) as part, part.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        for rows in chain([first], rest):
            file.write(np.ascontiguousarray(rows, first.dtype).data)
            came += len(rows)
        if came != count:
            raise RuntimeError(f"{path}: {came:,} rows, expected {count:,}")


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `size`, the last one of less, that are all of `count` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
