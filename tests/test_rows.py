"""Rows of a file are those of the array in it.  Run: pytest tests/test_rows.py"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.errors import StageError
from stages.rows import RowsFile, blocks, write_rows

ARRAY = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.fixture
def file(tmp_path: Path) -> RowsFile:
    write_rows(tmp_path / "rows.npy", 20, [ARRAY[:7], ARRAY[7:7], ARRAY[7:]])
    return RowsFile(tmp_path / "rows.npy")


def test_a_file_is_numpys_own(tmp_path: Path, file: RowsFile):
    assert np.array_equal(np.load(tmp_path / "rows.npy", allow_pickle=False), ARRAY)
    np.save(tmp_path / "numpys.npy", ARRAY)
    assert (tmp_path / "numpys.npy").read_bytes() == (tmp_path / "rows.npy").read_bytes()
    assert (len(file), file.shape, file.dtype) == (20, (20, 3), np.float32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    positions=st.lists(st.integers(0, 19)), ends=st.tuples(st.integers(0, 25), st.integers(0, 25))
)
def test_any_rows_are_those_of_the_array(
    file: RowsFile, positions: list[int], ends: tuple[int, int]
):
    wanted = np.array(positions, int)
    assert np.array_equal(file[wanted], ARRAY[wanted])
    assert np.array_equal(file[slice(*ends)], ARRAY[slice(*ends)])
    assert np.array_equal(file[:], ARRAY)


def test_blocks_are_all_rows_in_order(file: RowsFile):
    assert np.array_equal(np.concatenate([file[rows] for rows in blocks(20, 6)]), ARRAY)


def test_other_rows_than_announced_leave_no_file(tmp_path: Path):
    with pytest.raises(RuntimeError, match="19 rows, expected 20"):
        write_rows(tmp_path / "rows.npy", 20, [ARRAY[:19]])
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_cut_is_told_in_one_line(tmp_path: Path, file: RowsFile):
    path = tmp_path / "rows.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageError, match=r"rows.npy: truncated; make it again with: dvc repro"):
        file[10:]
