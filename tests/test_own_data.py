"""A custom data set, by params alone.  Run: pytest tests/test_own_data.py"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from scratch import PARAMS, Digits

from serving.fashion.contract import SIDE
from stages import download, preprocess
from stages.console import StageError
from stages.data.idx import write_idx
from stages.data.processed import TEST, TRAIN_IMAGES, TRAIN_LABELS, Images, read_npz
from stages.data.strict_yaml import read_yaml

FILES = ["pictures.gz", "letters.gz", "other-pictures.gz", "other-letters.gz"]
NAMES = list("ABCDEFGHIJ")


Take = Callable[[dict[str, object]], None]


@pytest.fixture
def take(tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> Take:
    """Downloads and preprocesses a data set, some values of download.own changed.

    Its files are as EMNIST's letters are: column by column, classes numbered from 1.
    """
    for place, (images, labels, names) in zip((0, 2), digits, strict=True):
        columns = images.reshape(-1, SIDE, SIDE).swapaxes(1, 2).reshape(images.shape)
        content = Images(columns, labels + 1, names)
        write_idx(tmp_path / FILES[place], tmp_path / FILES[place + 1], content, level=1)
    custom = {"class_names": NAMES, "files": FILES, "first_label": 1, "transposed": True}
    params = read_yaml(PARAMS)
    params["download"] |= {"dataset": "own", "sources": [str(tmp_path)]}
    params["features"]["kind"] = "pixels"
    monkeypatch.chdir(tmp_path)

    def take(changes: dict[str, object]) -> None:
        params["download"]["own"] |= custom | changes
        Path("params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        download.main()
        preprocess.main()

    return take


def test_custom_images_train_as_they_are(
    take: Take, digits: Digits, capsys: pytest.CaptureFixture[str]
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
        ({"class_names": ["A"]}, r"download.own.class_names is \['A'\]; expected the names of 2"),
        ({"class_names": [*NAMES, "K"]}, "0 images to train on are of class 'K'; expected 2 or"),
        ({"first_label": 0}, "label 10 at position "),
        ({"files": [*FILES[:3], "x.gz"]}, r"no source gave x.gz: .* download\.sources"),
    ],
)
def test_what_does_not_fit_is_rejected(take: Take, values: dict[str, object], words: str):
    with pytest.raises(StageError, match=f"^.*{words}.*$"):
        take(values)
