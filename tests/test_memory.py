"""Preprocessing takes no more memory for many times the images.

Run: DEEP=1 pytest tests/test_memory.py; on real images too, at the bound that is stated.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scratch import FULL_SIZE, REAL_DATA, ROOT, deep, make_params, needs_real_data, run

from benchmarks.scaling import augmented
from serving.fashion.contract import CLASS_NAMES
from stages.data.arrays import map_rows
from stages.data.digits import make_digits
from stages.data.idx import TEST_FILES, TRAIN_FILES, read_idx, write_idx
from stages.data.processed import TRAIN_FEATURES, Images

TIMES = 8
STATED = 2 << 30  # bytes of resident memory; the system takes pages of mapped files back at will
PEAK = """
import re, runpy, threading
peak, ended = 0, threading.Event()
def watch():
    global peak
    while not ended.wait(0.005):
        found = re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())
        peak = max(peak, int(found[1]))
watcher = threading.Thread(target=watch)
watcher.start()
try:
    runpy.run_module("stages.preprocess", run_name="__main__")
finally:
    ended.set()
    watcher.join()
    print("peak", peak)
"""
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="no /proc")


def project(folder: Path, train: Images, test: Images, copies: int, *changes: str) -> Path:
    """A folder with a data set of one's own, downloaded."""
    folder.mkdir()
    own = ("dataset=own", f"sources=[{folder}]", f"own.class_names={json.dumps(train.class_names)}")
    make_params(folder, *(f"download.{value}" for value in own), *changes)
    images, labels = (
        np.concatenate(part)
        for part in zip(*augmented(train.images, train.labels, copies), strict=True)
    )
    many = Images(images, labels, train.class_names)
    write_idx(folder / TRAIN_FILES[0], folder / TRAIN_FILES[1], many, level=1)
    write_idx(folder / TEST_FILES[0], folder / TEST_FILES[1], test)
    run(folder, sys.executable, "-m", "stages.download", PYTHONPATH=str(ROOT))
    return folder


def preprocess(folder: Path) -> int:
    """Run the stage; how many bytes of memory it took at most, pages of mapped files aside."""
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = run(folder, sys.executable, "-c", PEAK, expect=0, **variables)
    return int(output.split()[-1]) << 10


@only_linux
@deep
def test_eight_times_the_images_take_the_memory_of_a_few(tmp_path: Path):
    train, test = make_digits()
    few = train._replace(images=np.tile(train.images, (5, 1)), labels=np.tile(train.labels, 5))
    small = ("features.kind=pixels", "features.components=250", "xgboost.scores.landmarks=100")
    once = preprocess(project(tmp_path / "once", few, test, 1, *small))
    many = project(tmp_path / "many", few, test, TIMES, *small)
    assert preprocess(many) < once + (150 << 20)
    features = map_rows(many / TRAIN_FEATURES)
    assert len(features) == TIMES * len(few.labels) > 50_000
    assert features.dtype.itemsize * np.prod(features.shape) > 150 << 20


@only_linux
@deep
@needs_real_data
def test_sixteen_times_fashion_mnist_keep_to_the_bound_that_is_stated(tmp_path: Path):
    assert REAL_DATA
    names = CLASS_NAMES["fashion-mnist"]
    train, test = (
        read_idx(REAL_DATA / images, REAL_DATA / labels, names)
        for images, labels in (TRAIN_FILES, TEST_FILES)
    )
    assert preprocess(project(tmp_path / "many", train, test, 16, *FULL_SIZE)) < STATED
    assert len(map_rows(tmp_path / "many" / TRAIN_FEATURES)) == 960_000
