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
from stages.data.idx import RAW, TEST_FILES, TRAIN_FILES, read_idx
from stages.data.processed import Images
from stages.params import load_params

# Each of these is something else to a shell, to YAML or to Hydra, if it is not quoted.
NAMES = ["0", "no", "1:30", 'it\'s, "so"', "null", "été = sommer", "#1 [x] {y}"]
HYDRA_NAMES = ["${x}", "back\\", "a\\${oc.env:HOME}", "${", '\\"', "\\\\\\", "$HOME", "a: ~"]


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
    tests = own_images.choose_tests(labels, np.arange(57), share, seed=7)
    assert np.bincount(labels[~tests]).min() >= 2
    assert np.bincount(labels[tests]).min() >= 1


def test_images_to_test_on_come_in_no_order_of_classes(folder: Path, tmp_path: Path):
    own_images.main([str(folder), str(tmp_path / "idx"), "--test-share", "0.5"])
    assert len(set(read_set(tmp_path / "idx")[1].labels[:10])) > 2


def make_pictures(folder: Path, *names: str) -> None:
    """A picture of each name, which is its class's and a number; each is another one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        grey = np.random.default_rng(list(name.encode())).integers(0, 60, (28, 28), np.uint8)
        Image.fromarray(grey).save(folder / name, "png")


def copy(folder: Path, source: str, *names: str) -> None:
    for name in names:
        shutil.copy(folder / source, folder / name)


def read_set(target: Path) -> Digits:
    """What was written to train with, and to test with."""
    train, test = (
        read_idx(target / i, target / k, ("a",) * 255) for i, k in (TRAIN_FILES, TEST_FILES)
    )
    return train, test


def pictures_in(target: Path) -> tuple[list[bytes], list[bytes]]:
    """The pictures that train, and those that test."""
    train, test = ([image.tobytes() for image in part.images] for part in read_set(target))
    return train, test


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_picture_never_lie_on_both_sides_and_are_named(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
):
    make_pictures(tmp_path / "in", *(f"{c}/{n}.png" for c in "ab" for n in range(5)))
    for c in "ab":
        for n in range(5):
            copy(tmp_path / "in", f"{c}/{n}.png", *(f"{c}/{n}-{k}.png" for k in range(3)))
    own_images.main([str(tmp_path / "in"), str(tmp_path / "idx"), "--seed", str(seed)])
    train, test = pictures_in(tmp_path / "idx")
    assert (len(train), len(test)) == (32, 8)
    assert not set(train) & set(test)
    error, one = capsys.readouterr().err, tmp_path / "in/a"
    assert f"note: 30 of 40 pictures are copies of others: {one}/0-1.png = {one}/0-0.png" in error
    assert f", {one}/0.png = {one}/0-0.png, …\n" in error


def test_a_picture_in_two_classes_is_named_and_never_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_pictures(tmp_path / "in", "a/0", "a/1", "a/2", "b/0", "b/1")
    copy(tmp_path / "in", "a/1", "b/x")
    own_images.main([str(tmp_path / "in"), str(tmp_path / "idx"), "--test-share", "0.9"])
    train, test = pictures_in(tmp_path / "idx")
    assert (len(train), len(test)) == (4, 2)
    assert train.count(read_picture((tmp_path / "in/b/x").read_bytes(), False).tobytes()) == 2
    assert (
        "note: 1 of 6 pictures are copies of some in another class; leave each in one: "
        f"{tmp_path}/in/b/x = {tmp_path}/in/a/1\n"
    ) in capsys.readouterr().err


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "TEST")])
def test_folders_train_and_test_keep_the_split_and_copies_across_it_are_named(
    tmp_path: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
):
    train, test = (tmp_path / "in" / name for name in names)
    make_pictures(train, *(f"{c}/{n}" for c in "ab" for n in range(4)))
    make_pictures(test, "a/9", "b/9")
    make_pictures(tmp_path / "in/validation", "a/8", "c/8")
    shutil.copy(train / "b/3", test / "b/8")
    own_images.main([str(tmp_path / "in"), str(tmp_path / "idx")])
    assert [sorted(part.labels) for part in read_set(tmp_path / "idx")] == [
        [0] * 4 + [1] * 4,
        [0, 1, 1],
    ]
    parts = pictures_in(tmp_path / "idx")
    for part, folder in zip(parts, (train, test), strict=True):
        files = folder.glob("*/*")
        assert sorted(part) == sorted(read_picture(f.read_bytes(), False).tobytes() for f in files)
    error = capsys.readouterr().err
    assert f"note: {tmp_path}/in/validation: left out; with classes in train or test" in error
    assert (
        "note: 1 of 11 pictures are in test and copies of some in train; leave each in one: "
        f"{test}/b/8 = {train}/b/3\n"
    ) in error


def test_classes_may_be_named_train_and_test(tmp_path: Path):
    make_pictures(
        tmp_path / "in", *(f"{c}/{n}" for c in ("bus", "test", "train") for n in range(3))
    )
    own_images.main([str(tmp_path / "in"), str(tmp_path / "idx")])
    assert sorted(read_set(tmp_path / "idx")[1].labels) == [0, 1, 2]


def test_each_class_that_a_side_lacks_is_named(tmp_path: Path):
    make_pictures(tmp_path / "in", "train/a/0", "train/a/1", "train/b/0", "test/b/0", "test/c/0")
    with pytest.raises(StageError) as error:
        own_images.main([str(tmp_path / "in"), str(tmp_path / "idx")])
    lines = str(error.value).splitlines()
    assert [line.partition("; expected at least 2 and 1")[0] for line in lines] == [
        f"{tmp_path}/in: a: 2 pictures to train on and 0 to test on",
        f"{tmp_path}/in: b: 1 pictures to train on and 1 to test on",
        f"{tmp_path}/in: c: 0 pictures to train on and 1 to test on",
    ]
    assert not (tmp_path / "idx").exists()


def test_what_systems_leave_behind_is_passed_over_and_any_suffix_will_do(tmp_path: Path):
    make_pictures(tmp_path / "in", *(f"{c}/{n}.JPEG" for c in "ab" for n in range(3)))
    for suffix in ("webp", "BMP", "jpg"):
        Image.new("L", (30, 9), 50 + len(suffix)).save(tmp_path / f"in/a/x.{suffix}")
    for junk in ("a/Thumbs.db", "a/Desktop.ini", "b/.DS_Store", "b/._0.JPEG"):
        (tmp_path / "in" / junk).write_bytes(b"x")
    (tmp_path / "in/__MACOSX").mkdir()
    (tmp_path / "in/b/link").symlink_to(tmp_path / "in/b/0.JPEG")
    own_images.main([str(tmp_path / "in"), str(tmp_path / "idx")])
    assert sum(map(len, pictures_in(tmp_path / "idx"))) == 10


def test_all_bad_files_are_named_at_once_and_skipped_if_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_pictures(tmp_path / "in", *(f"{c}/{n}.png" for c in "ab" for n in range(3)))
    (tmp_path / "in/a/page.png").write_text("<html>")
    (tmp_path / "in/b/cut.png").write_bytes((tmp_path / "in/b/0.png").read_bytes()[:-30])
    (tmp_path / "in/b/gone.png").symlink_to("nowhere")
    arguments = [str(tmp_path / "in"), str(tmp_path / "idx")]
    with pytest.raises(StageError) as error:
        own_images.main(arguments)
    page, cut, gone = str(error.value).splitlines()
    assert page.startswith(f"{tmp_path}/in/a/page.png: expected a PNG, JPEG, WebP or BMP file, got")
    assert f"{tmp_path}/in/b/cut.png: expected a whole PNG" in cut
    assert f"{tmp_path}/in/b/gone.png: No such file or directory; expected a PNG" in gone
    assert all("leave out all such files by --skip-bad" in line for line in (page, cut, gone))
    assert not (tmp_path / "idx").exists()
    own_images.main([*arguments, "--skip-bad"])
    assert capsys.readouterr().err.count(": left out: ") == 3
    assert sum(map(len, pictures_in(tmp_path / "idx"))) == 6


def test_bright_borders_are_named_unless_they_are_inverted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_pictures(tmp_path / "in", *(f"{c}/{n}" for c in "ab" for n in range(3)))
    Image.new("L", (30, 30), 250).save(tmp_path / "in/a/9.png")
    arguments = [str(tmp_path / "in"), str(tmp_path / "idx")]
    own_images.main(arguments)
    words = f"1 of 7 pictures have a bright border, as {tmp_path}/in/a/9.png; for dark objects"
    assert words in capsys.readouterr().err
    own_images.main([*arguments, "--invert"])
    assert not capsys.readouterr().err


def test_names_that_hydra_would_read_come_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make_pictures(tmp_path / "${in}", *(f"{name}/{n}" for name in HYDRA_NAMES for n in range(3)))
    own_images.main([str(tmp_path / "${in}"), str(tmp_path / "${idx}\\")])
    train, _ = data_of_command(capsys.readouterr().out, tmp_path / "project", monkeypatch)
    assert train.class_names == tuple(sorted(HYDRA_NAMES))


@pytest.mark.parametrize("name", ["???", b"caf\xe9".decode(errors="surrogateescape")])
def test_a_name_that_no_params_can_hold_is_told(tmp_path: Path, name: str):
    make_pictures(tmp_path, "a/0")
    (tmp_path / name).mkdir()
    with pytest.raises(StageError, match="expected UTF-8 other than '\\?\\?\\?'; rename it"):
        own_images.main([str(tmp_path), str(tmp_path / "idx")])


@pytest.mark.parametrize("count", [1, 2, 4, 10, 30, 100, 999])
def test_few_test_pictures_set_a_floor_that_a_sound_model_hardly_ever_misses(count: int):
    random = np.random.default_rng(7)
    floor = own_images.floor(count)
    assert np.mean(random.binomial(count, 0.8, 100_000) / count < floor) < 0.002
    assert np.mean(random.binomial(count, 0.8, 100_000) / count < floor + 2 / count) > 0.0005


def test_only_few_test_pictures_set_a_floor(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    own_images.main([str(folder), str(tmp_path / "idx")])
    assert "-S evaluate.min_accuracy=0.428" in capsys.readouterr().out
    monkeypatch.setattr(own_images, "FEW_TESTS", 14)
    own_images.main([str(folder), str(tmp_path / "idx")])
    assert "min_accuracy" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "no such folder; expected one with a sub-folder of pictures for each"),
        (lambda f: keep(f, 1), "1 sub-folders; expected 2 to"),
        (lambda f: [(f / f"c{n}").mkdir() for n in range(249)], "256 sub-folders; expected 2 to"),
        (lambda f: keep(f / "0", 2), "0: 2 pictures to train on and 0 to test on; expected"),
        (lambda f: (f / "0/x.gif").write_bytes(b"GIF89a"), "0/x.gif: expected a PNG, JPEG,"),
        (lambda f: (f / "0/x").mkdir(), "0/x: Is a directory; expected a PNG, JPEG,"),
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
