"""Rows of a file are those of the array in it.  Run: pytest tests/test_rows.py"""

from pathlib import Path

import numpy as np
import pytest

from stages.console import StageError
from stages.data.arrays import blocks, map_rows, write_rows

ARRAY = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.fixture
def file(tmp_path: Path) -> np.ndarray:
    write_rows(tmp_path / "rows.npy", 20, [ARRAY[:7], ARRAY[7:7], ARRAY[7:]])
    return map_rows(tmp_path / "rows.npy")


def test_a_file_is_numpys_own(tmp_path: Path, file: np.ndarray):
    assert np.array_equal(np.load(tmp_path / "rows.npy", allow_pickle=False), ARRAY)
    np.save(tmp_path / "numpys.npy", ARRAY)
    assert (tmp_path / "numpys.npy").read_bytes() == (tmp_path / "rows.npy").read_bytes()
    assert np.array_equal(file, ARRAY)
    assert isinstance(file, np.memmap)


def test_blocks_are_all_rows_in_order(file: np.ndarray):
    assert np.array_equal(np.concatenate([file[rows] for rows in blocks(20, 6)]), ARRAY)


def test_other_rows_than_announced_leave_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError, match="19 rows, expected 20"):
        write_rows(tmp_path / "rows.npy", 20, [ARRAY[:19]])
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("file")
def test_a_file_that_was_cut_or_is_missing_is_one_line(tmp_path: Path):
    path = tmp_path / "rows.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageError, match=r"rows.npy: truncated; make it again with: dvc repro"):
        map_rows(path)
    path.unlink()
    with pytest.raises(StageError, match=r"rows.npy: not found; make it with: dvc repro"):
        map_rows(path)
