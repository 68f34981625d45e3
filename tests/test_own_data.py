"""A custom data set, by params alone.  Run: pytest tests/test_own_data.py"""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from scratch import PARAMS, Digits

from serving.fashion.contract import SIDE
from stages import download, preprocess
from stages.console import StageError
from stages.data.processed import TEST, TRAIN_IMAGES, TRAIN_LABELS, Images, read_npz
from stages.data.strict_yaml import read_yaml

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
def source(tmp_path: Path, digits: Digits) -> Path:
    """A folder with a data set that is written so."""
    folder = tmp_path / "source"
    folder.mkdir()
    for place, data in zip((0, 2), digits, strict=True):
        write(folder / FILES[place], folder / FILES[place + 1], data)
    return folder


@pytest.fixture
def take(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, object]], None]:
    """What downloads and preprocesses that data set, some values of download.own changed."""
    custom = {"class_names": NAMES, "files": FILES, "first_label": 1, "transposed": True}
    params = read_yaml(PARAMS)
    params["download"] |= {"dataset": "own", "sources": [str(source)]}
    params["features"]["kind"] = "pixels"
    monkeypatch.chdir(tmp_path)

    def run(changes: dict[str, object]) -> None:
        params["download"]["own"] |= custom | changes
        Path("params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        download.main()
        preprocess.main()

    return run


def test_custom_images_train_as_they_are(
    take: Callable[[dict[str, object]], None], digits: Digits, capsys: pytest.CaptureFixture[str]
):
    take({})
    assert capsys.readouterr().out.count(", MD5 ") == 4
    assert np.array_equal(np.load(TRAIN_IMAGES), digits[0].images)
    assert np.array_equal(np.load(TRAIN_LABELS), digits[0].labels)
    test = read_npz(TEST)
    assert np.array_equal(test.images, digits[1].images)
    assert np.array_equal(test.labels, digits[1].labels)
    assert test.class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"class_names": []}, r"download.own.class_names is \[\]; expected the names of 2 classes"),
        ({"class_names": ["A"]}, r"download.own.class_names is \['A'\]; expected the names of 2"),
        ({"class_names": NAMES[:9]}, "label 10 at position "),
        ({"class_names": [*NAMES, "K"]}, "0 images to train on are of class 'K'; expected 2 or"),
        ({"first_label": 0}, "label 10 at position "),
        ({"files": FILES[:3]}, "download.own.files is "),
        ({"files": [*FILES[:3], "x.gz"]}, r"no source gave x.gz: .* download\.sources$"),
        ({"md5": ["0" * 32] * 4}, "wrong checksum: expected MD5 0{32}, got "),
        ({"class_names": ["A", "A"]}, "expected each name once"),
    ],
)
def test_what_does_not_fit_is_rejected(
    take: Callable[[dict[str, object]], None], values: dict[str, object], words: str
):
    with pytest.raises(StageError, match=words) as error:
        take(values)
    assert "\n" not in str(error.value)
