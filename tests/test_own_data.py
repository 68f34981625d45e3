"""A data set of one's own, by params alone.  Run: pytest tests/test_own_data.py"""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from scratch import run

from serving.fashion.contract import SIDE
from stages.dataset import TEST, TRAIN_IMAGES, TRAIN_LABELS, Images, read_npz

FILES = ["pictures.gz", "letters.gz", "other-pictures.gz", "other-letters.gz"]
NAMES = list("ABCDEFGHIJ")


def write(images: Path, labels: Path, data: Images) -> None:
    """As EMNIST's letters are: column by column, classes numbered from 1."""
    pictures = data.images.reshape(-1, SIDE, SIDE).swapaxes(1, 2)
    header = struct.pack(">4I", 2051, len(pictures), SIDE, SIDE)
    images.write_bytes(gzip.compress(header + pictures.tobytes()))
    header = struct.pack(">2I", 2049, len(data.labels))
    labels.write_bytes(gzip.compress(header + (data.labels + 1).astype(np.uint8).tobytes()))


@pytest.fixture
def project(trained: Path, tmp_path: Path, digits: tuple[Images, Images]) -> Path:
    """A project whose data set is in a folder, written so."""
    folder = Path(shutil.copytree(trained, tmp_path / "project"))
    source = tmp_path / "source"
    source.mkdir()
    for place, data in zip((0, 2), digits, strict=True):
        write(source / FILES[place], source / FILES[place + 1], data)
    change(folder, dataset="own", sources=[str(source)])
    change_own(folder, class_names=NAMES, files=FILES, first_label=1, transposed=True)
    return folder


def change(folder: Path, **values: object) -> None:
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    content["download"] |= values
    content["scores"]["ridge"] = float(content["scores"]["ridge"])
    path.write_text(yaml.safe_dump(content), "utf-8")


def change_own(folder: Path, **values: object) -> None:
    content = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
    change(folder, own=content["download"]["own"] | values)


def test_images_of_ones_own_train_as_they_are(project: Path, digits: tuple[Images, Images]):
    said = run(project, "dvc", "repro", "preprocess")
    assert said.count(", MD5 ") == 4
    assert np.array_equal(np.load(project / TRAIN_IMAGES), digits[0].images)
    assert np.array_equal(np.load(project / TRAIN_LABELS), digits[0].labels)
    test = read_npz(project / TEST)
    assert np.array_equal(test.images, digits[1].images)
    assert np.array_equal(test.labels, digits[1].labels)
    assert test.class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"class_names": []}, "download.own.class_names is []; expected the name of each class"),
        ({"class_names": NAMES[:9]}, "label 10 at position "),
        ({"class_names": [*NAMES, "K"]}, "no image to train on is of class 'K'"),
        ({"first_label": 0}, "label 10 at position "),
        ({"files": FILES[:3]}, "download.own.files is "),
        ({"md5": ["0" * 32] * 4}, "wrong checksum: expected MD5 0{32}, got "),
        ({"class_names": ["A", "A"]}, "expected a list of names, each once, at most 255"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(
    project: Path, values: dict[str, object], words: str
):
    change_own(project, **values)
    said = run(
        project, "bash", "-c", "python -m stages.download && python -m stages.preprocess", expect=1
    )
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert words.replace("0{32}", "0" * 32) in line
