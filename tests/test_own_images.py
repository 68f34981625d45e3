"""A data set out of a folder of pictures.  Run: pytest tests/test_own_images.py"""

import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
from PIL import Image
from scratch import ROOT, Digits, files_in, make_params, run

from serving.fashion.model.pictures import read_picture
from stages import download
from stages.console import StageError
from stages.data import own_images
from stages.data.idx import RAW, TEST_FILES, TRAIN_FILES, read_idx
from stages.data.processed import Images
from stages.params import load_params

# Each of these is something else to a shell, to YAML or to Hydra, if it is not quoted.
NAMES = ["0", "no", "1:30", 'it\'s, "so"', "null", "été = sommer", "#1 [x] {y}"]
NAMES += ["${x}", "back\\", "a\\${oc.env:HOME}", "${", '\\"', "\\\\\\", "$HOME", "a: ~"]

Make = Callable[..., Digits]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The pictures of a test, none at first."""
    (tmp_path / "${in}").mkdir()
    return tmp_path / "${in}"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "${idx}\\"


@pytest.fixture
def make(folder: Path, target: Path) -> Make:
    """Makes a data set of them; returns what is to train with, and to test with."""

    def make(*options: str) -> Digits:
        own_images.main([str(folder), str(target), *options])
        return read(target, ("a",) * 255)

    return make


def read(target: Path, names: tuple[str, ...]) -> Digits:
    train, test = (read_idx(target / i, target / k, names) for i, k in (TRAIN_FILES, TEST_FILES))
    return train, test


def add_pictures(folder: Path, *names: str) -> None:
    """A picture of each name, which is its class's and a number; each is another one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        grey = np.random.default_rng(list(name.encode())).integers(0, 60, (28, 28), np.uint8)
        Image.fromarray(grey).save(folder / name, "png")


def add_classes(folder: Path, names: Iterable[str], count: int) -> None:
    add_pictures(folder, *(f"{name}/{number}" for name in names for number in range(count)))


def content(images: Images) -> list[bytes]:
    return sorted(image.tobytes() for image in images.images)


def pixels(*files: Path, invert: bool = False) -> list[bytes]:
    """What a server makes of picture files."""
    return sorted(read_picture(file.read_bytes(), invert).tobytes() for file in files)


@pytest.mark.parametrize("options", [[], ["--invert"]])
def test_the_models_train_on_the_pixels_that_a_server_makes_of_the_pictures(
    folder: Path,
    make: Make,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    add_classes(folder, NAMES, 10)
    make(*options)
    output = capsys.readouterr().out
    assert "120 pictures to train on and 30 to test on, of 15 classes" in output
    words = shlex.split(output[output.index("dvc exp run") :].replace("\\\n", ""))[3:]
    assert set(words[::2]) == {"-S"}
    make_params(folder.parent, *words[1::2])
    monkeypatch.chdir(folder.parent)
    download.main()
    params = load_params()
    assert params.evaluate.min_accuracy == own_images.floor(30)
    parts = read(RAW, params.download.class_names)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[8] * 15, [2] * 15]
    for label, name in enumerate(sorted(NAMES)):
        found = [image for part in parts for image in part.images[part.labels == label]]
        expected = pixels(*(folder / name).iterdir(), invert=bool(options))
        assert sorted(map(bytes, found)) == expected
        assert parts[0].class_names[label] == name


def test_the_same_pictures_make_the_same_bytes_and_the_seed_chooses_which_of_them_test(
    folder: Path, target: Path, make: Make
):
    add_classes(folder, ["a", "b", "c"], 6)
    written = []
    for seed in ("7", "7", "8"):
        _, test = make("--seed", seed, "--test-share", "0.5")
        written.append([(target / name).read_bytes() for name in own_images.FILES])
    assert written[0] == written[1] != written[2]
    assert len(set(test.labels[:5])) > 1  # in no order of classes


@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
def test_two_images_of_each_class_train_and_one_tests_whatever_the_share(share: float):
    labels = np.repeat(np.arange(3), [3, 4, 50])
    tests = own_images.choose_tests(labels, np.arange(57), share, seed=7)
    assert np.bincount(labels[~tests]).min() >= 2
    assert np.bincount(labels[tests]).min() >= 1


def test_copies_of_a_picture_never_lie_on_both_sides_and_are_named(
    folder: Path, make: Make, capsys: pytest.CaptureFixture[str]
):
    add_classes(folder, ["a", "b"], 5)
    for path in list(folder.glob("*/*")):
        for k in range(3):
            shutil.copy(path, f"{path}-{k}")
    train, test = map(content, make())
    assert (len(train), len(test)) == (32, 8)
    assert not set(train) & set(test)
    error, one = capsys.readouterr().err, folder / "a"
    assert f"note: 30 of 40 pictures are copies of others: {one}/0-0 = {one}/0, " in error
    assert error.endswith(", …\n")


def test_a_picture_in_two_classes_is_named_and_never_tests(
    folder: Path, make: Make, capsys: pytest.CaptureFixture[str]
):
    add_pictures(folder, "a/0", "a/1", "a/2", "b/0", "b/1")
    shutil.copy(folder / "a/1", folder / "b/x")
    train, test = map(content, make("--test-share", "0.9"))
    assert (len(train), len(test)) == (4, 2)
    assert train.count(*pixels(folder / "b/x")) == 2
    assert (
        "note: 1 of 6 pictures are copies of some in another class; leave each in one: "
        f"{folder}/b/x = {folder}/a/1\n"
    ) in capsys.readouterr().err


def test_folders_train_and_test_keep_the_split_and_copies_across_it_are_named(
    folder: Path, make: Make, capsys: pytest.CaptureFixture[str]
):
    train, test = folder / "Train", folder / "TEST"
    add_classes(train, ["a", "b"], 4)
    add_pictures(test, "a/9", "b/9")
    add_pictures(folder / "validation", "a/8", "c/8")
    shutil.copy(train / "b/3", test / "b/8")
    parts = make()
    assert [sorted(part.labels) for part in parts] == [[0] * 4 + [1] * 4, [0, 1, 1]]
    for part, side in zip(parts, (train, test), strict=True):
        assert content(part) == pixels(*side.glob("*/*"))
    error = capsys.readouterr().err
    assert f"note: {folder}/validation: left out; with classes in train or test" in error
    assert (
        "note: 1 of 11 pictures are in test and copies of some in train; leave each in one: "
        f"{test}/b/8 = {train}/b/3\n"
    ) in error


def test_classes_may_be_named_train_and_test(folder: Path, make: Make):
    add_classes(folder, ["bus", "test", "train"], 3)
    assert sorted(make()[1].labels) == [0, 1, 2]


def test_each_class_that_a_side_lacks_is_named(folder: Path, target: Path, make: Make):
    add_pictures(folder, "train/a/0", "train/a/1", "train/b/0", "test/b/0", "test/c/0")
    with pytest.raises(StageError) as error:
        make()
    lines = str(error.value).splitlines()
    assert [line.partition("; expected at least 2 and 1")[0] for line in lines] == [
        f"{folder}: a: 2 pictures to train on and 0 to test on",
        f"{folder}: b: 1 pictures to train on and 1 to test on",
        f"{folder}: c: 0 pictures to train on and 1 to test on",
    ]
    assert not target.exists()


def test_what_systems_leave_behind_is_passed_over_and_any_suffix_will_do(folder: Path, make: Make):
    add_pictures(folder, *(f"{c}/{n}.JPEG" for c in "ab" for n in range(3)))
    for suffix in ("webp", "BMP", "jpg"):
        Image.new("L", (30, 9), 50 + len(suffix)).save(folder / f"a/x.{suffix}")
    for junk in ("a/Thumbs.db", "a/Desktop.ini", "b/.DS_Store", "b/._0.JPEG", "read me.txt"):
        (folder / junk).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "b/link").symlink_to(folder / "b/0.JPEG")
    assert sum(len(part.labels) for part in make()) == 10


def test_all_bad_files_are_named_at_once_and_skipped_if_that_is_wanted(
    folder: Path, target: Path, make: Make, capsys: pytest.CaptureFixture[str]
):
    add_classes(folder, ["a", "b"], 3)
    (folder / "a/page.png").write_text("<html>")
    (folder / "b/cut.png").write_bytes((folder / "b/0").read_bytes()[:-30])
    (folder / "b/more.png").mkdir()
    with pytest.raises(StageError) as error:
        make()
    page, cut, more = str(error.value).splitlines()
    assert page.startswith(f"{folder}/a/page.png: expected a PNG, JPEG, WebP or BMP file, got")
    assert f"{folder}/b/cut.png: expected a whole PNG" in cut
    assert f"{folder}/b/more.png: Is a directory; expected a PNG" in more
    assert all("leave out all such files by --skip-bad" in line for line in (page, cut, more))
    assert not target.exists()
    assert sum(len(part.labels) for part in make("--skip-bad")) == 6
    assert capsys.readouterr().err.count(": left out: ") == 3


def test_bright_borders_are_named_unless_they_are_inverted(
    folder: Path, make: Make, capsys: pytest.CaptureFixture[str]
):
    add_classes(folder, ["a", "b"], 3)
    Image.new("L", (30, 30), 250).save(folder / "a/9.png")
    make()
    words = f"1 of 7 pictures have a bright border, as {folder}/a/9.png; for dark objects"
    assert words in capsys.readouterr().err
    make("--invert")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 4, 30, 999])
def test_few_test_pictures_set_a_floor_that_a_sound_model_hardly_ever_misses(count: int):
    random = np.random.default_rng(7)
    floor = own_images.floor(count)
    assert np.mean(random.binomial(count, 0.8, 100_000) / count < floor) < 0.002
    assert np.mean(random.binomial(count, 0.8, 100_000) / count < floor + 2 / count) > 0.0005


def test_many_test_pictures_set_no_floor(
    folder: Path, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    add_classes(folder, ["a", "b"], 5)
    monkeypatch.setattr(own_images, "FEW_TESTS", 2)
    make()
    assert "min_accuracy" not in capsys.readouterr().out


NO_NAME = r"expected UTF-8 other than '\?\?\?'; rename it"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder, _: shutil.rmtree(folder / "a"), "1 sub-folders; expected 2 to 255, one"),
        (lambda folder, _: add_classes(folder, map(str, range(254)), 1), "256 sub-folders; expect"),
        (lambda folder, _: (folder / "???").mkdir(), NO_NAME),
        (lambda folder, _: (folder / b"caf\xe9".decode(errors="surrogateescape")).mkdir(), NO_NAME),
        (lambda _, target: target.touch(), "File exists; name a folder to write to"),
    ],
)
def test_a_folder_that_will_not_do_is_rejected_in_one_line_and_nothing_written(
    folder: Path, target: Path, make: Make, spoil: Callable[[Path, Path], object], words: str
):
    add_classes(folder, ["a", "b"], 3)
    spoil(folder, target)
    with pytest.raises(StageError, match=f"^.*{words}.*$"):
        make()
    assert not target.is_dir()


def test_a_share_out_of_range_is_rejected(make: Make):
    with pytest.raises(StageError, match="--test-share is 1; expected a number above 0, below 1"):
        make("--test-share", "1")


def test_files_that_cannot_all_be_written_leave_those_of_before(
    folder: Path, target: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    add_classes(folder, ["a", "b"], 5)
    make()
    before = files_in(target)
    write = Mock(wraps=own_images.write_idx, side_effect=[DEFAULT, OSError("No space left")])
    monkeypatch.setattr(own_images, "write_idx", write)
    with pytest.raises(OSError, match="No space left"):
        make("--seed", "8")
    assert files_in(target) == before


def test_a_mistake_is_a_line_on_stderr_and_exit_code_1():
    output = run(ROOT, "python", "-m", "stages.data.own_images", "/nowhere", "/idx", expect=1)
    assert output == (
        "error: /nowhere: no such folder; expected one with a sub-folder of pictures for each "
        "class\n"
    )
