"""A data set out of a folder of pictures.  Run: pytest tests/test_own_images.py"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scratch import ROOT, Digits, make_params, run

from serving.fashion.model.pictures import read_picture
from stages import download
from stages.console import StageError
from stages.data import own_images
from stages.data.idx import RAW, TEST_FILES, TRAIN_FILES, Images, read_idx
from stages.params import load_params

# Each of these is something else to a shell, to YAML or to Hydra, if it is not quoted.
NAMES = ["0", "no", "1:30", 'it\'s, "so"', "null", "été = sommer", "#1 [x] {y}"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures of each class, of one brightness each; beside them, what is none."""
    for label, name in enumerate(sorted(NAMES)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for n in range(10):
            picture = Image.new("RGB", (56, 40), (20 * label + n,) * 3)
            picture.save(tmp_path / "pictures" / name / f"{n}.{'png' if n % 2 else 'jpg'}")
    (tmp_path / "pictures/0/.DS_Store").touch()
    (tmp_path / "pictures/read me.txt").touch()
    return tmp_path / "pictures"


def data_of_command(output: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> Digits:
    """What the printed command makes the first stages read."""
    options = shlex.split(output[output.index("dvc exp run") :].replace("\\\n", ""))[3:]
    assert set(options[::2]) == {"-S"}
    project.mkdir()
    make_params(project, *options[1::2])
    monkeypatch.chdir(project)
    download.main()
    names = load_params().download.class_names
    pairs = ((RAW / images, RAW / labels) for images, labels in (TRAIN_FILES, TEST_FILES))
    train, test = (read_idx(images, labels, names) for images, labels in pairs)
    return train, test


@pytest.mark.parametrize("options", [[], ["--invert"]])
def test_the_models_train_on_the_pixels_that_a_server_makes_of_the_pictures(
    folder: Path,
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    own_images.main([str(folder), str(tmp_path / "idx"), *options])
    output = capsys.readouterr().out
    assert "56 pictures to train on and 14 to test on, of 7 classes" in output
    parts = data_of_command(output, tmp_path / "project", monkeypatch)
    assert all(part.class_names == tuple(sorted(NAMES)) for part in parts)
    found = sorted(
        (part.class_names[label], image.tobytes())
        for part in parts
        for image, label in zip(part.images, part.labels, strict=True)
    )
    assert found == sorted(
        (path.parent.name, read_picture(path.read_bytes(), bool(options)).tobytes())
        for path in folder.glob("*/[0-9]*")
    )
    for part, count in zip(parts, (8, 2), strict=True):
        assert np.bincount(part.labels).tolist() == [count] * len(NAMES)


def test_the_same_pictures_make_the_same_bytes_and_the_seed_chooses_which_of_them_test(
    folder: Path, tmp_path: Path
):
    for name, seed in (("one", "7"), ("again", "7"), ("other", "8")):
        own_images.main([str(folder), str(tmp_path / name), "--seed", seed])
    one, again, other = (
        [(tmp_path / name / file).read_bytes() for file in own_images.FILES]
        for name in ("one", "again", "other")
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
def test_two_images_of_each_class_train_and_one_tests_whatever_the_share(share: float):
    labels = np.repeat(np.arange(3), [3, 4, 50])
    train, test = own_images.divided(labels, share, seed=7)
    assert sorted([*train, *test]) == list(range(57))
    assert np.bincount(labels[train]).min() >= 2
    assert np.bincount(labels[test]).min() >= 1


def test_images_to_test_on_come_in_no_order_of_classes():
    labels = np.repeat(np.arange(3), 50)
    _, test = own_images.divided(labels, 0.5, seed=7)
    assert set(labels[test[:10]]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "no such folder; expected one with a sub-folder of pictures for each"),
        (lambda f: keep(f, 1), "1 sub-folders; expected 2 to"),
        (lambda f: [(f / f"c{n}").mkdir() for n in range(249)], "256 sub-folders; expected 2 to"),
        (lambda f: keep(f / "0", 2), "2 pictures; expected at least 3, two to train on"),
        (
            lambda f: (f / "0/x.gif").write_bytes(b"GIF89a"),
            "0/x.gif: expected a PNG, JPEG,",
        ),
        (
            lambda f: (f / "0/x").mkdir(),
            "0/x: Is a directory; expected a PNG, JPEG,",
        ),
    ],
)
def test_a_folder_that_will_not_do_is_told_in_one_line_and_nothing_written(
    folder: Path, tmp_path: Path, spoil: object, words: str
):
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(StageError) as error:
        own_images.main([str(folder), str(tmp_path / "idx")])
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "idx").exists()


def keep(folder: Path, count: int) -> None:
    """Remove all but the first ones of what is not hidden."""
    for path in sorted(folder.glob("[!.]*"))[count:]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_target_that_is_a_file_and_a_share_out_of_range_are_told(folder: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StageError, match="file: File exists; name a folder to write to"):
        own_images.main([str(folder), str(tmp_path / "file")])
    with pytest.raises(StageError, match="--test-share is 1; expected a number above 0, below 1"):
        own_images.main([str(folder), str(tmp_path / "idx"), "--test-share", "1"])


def test_files_that_cannot_all_be_written_leave_those_of_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "idx"
    own_images.main([str(folder), str(target)])
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    real, full = own_images.write_idx, OSError(28, "No space left on device")

    def write(images: Path, labels: Path, content: Images) -> None:
        if images.name == TEST_FILES[0]:
            raise full
        real(images, labels, content)

    monkeypatch.setattr(own_images, "write_idx", write)
    with pytest.raises(OSError, match="No space left"):
        own_images.main([str(folder), str(target), "--seed", "8"])
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_mistake_is_a_line_on_stderr_and_exit_code_1():
    output = run(
        ROOT, "python", "-m", "stages.data.own_images", "/nowhere", "/nowhere/idx", expect=1
    )
    assert output == (
        "error: /nowhere: no such folder; expected one with a sub-folder of pictures for each "
        "class\n"
    )
