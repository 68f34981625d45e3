"""Many images take no more memory than is stated.  Run: DEEP=1 pytest tests/test_memory.py"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scratch import FULL_SIZE, ROOT, Digits, deep, make_params, run

from benchmarks.processes import in_new_process
from serving.fashion.contract import PIXELS
from stages import preprocess
from stages.data.arrays import map_rows
from stages.data.idx import TEST_FILES, TRAIN_FILES, write_idx
from stages.data.processed import TRAIN_FEATURES, Images

TRAIN, TEST = 960_000, 10_000  # images: 16 times those of Fashion-MNIST to train with
STATED_MB = 2 * 1024**3 / 1e6  # pages of mapped files aside, which the system takes back at will


@deep
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured otherwise")
def test_preprocessing_keeps_to_the_bound_that_is_stated(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for part, count, files in zip(digits, (TRAIN, TEST), (TRAIN_FILES, TEST_FILES), strict=True):
        images = np.resize(part.images, (count, PIXELS))
        many = Images(images, np.resize(part.labels, count), part.class_names)
        write_idx(tmp_path / files[0], tmp_path / files[1], many, level=1)
    names = json.dumps(digits[0].class_names)
    own = ("dataset=own", f"sources=[{tmp_path}]", f"own.class_names={names}")
    make_params(tmp_path, *(f"download.{value}" for value in own), *FULL_SIZE)
    run(tmp_path, sys.executable, "-m", "stages.download", PYTHONPATH=str(ROOT))
    monkeypatch.chdir(tmp_path)
    _, peak_mb = in_new_process(preprocess.main)
    assert peak_mb < STATED_MB
    assert len(map_rows(TRAIN_FEATURES)) == TRAIN
