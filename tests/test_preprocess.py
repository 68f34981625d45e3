"""Splits keep shares, and test images apart.  Run: pytest tests/test_preprocess.py"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scratch import make_params

from stages import download, preprocess
from stages.console import StageError
from stages.data.digits import make_digits
from stages.data.idx import RAW
from stages.data.processed import TEST, TRAIN_IMAGES, TRAIN_LABELS, Images, read_npz
from stages.data.splits import stratified
from stages.params import Params, Preprocess
from stages.preprocess import check_classes, choose, take_rows


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=200),
    share=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_a_stratified_choice_has_the_size_and_the_shares_requested(
    labels: list[int], share: float, seed: int
):
    array = np.array(labels)
    size = max(1, round(share * len(labels)))
    chosen = stratified(array, size, seed)
    assert len(set(chosen.tolist())) == len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    for label in set(labels):
        exact = labels.count(label) * size / len(labels)
        assert abs((array[chosen] == label).sum() - exact) < 1


def test_the_only_image_of_a_class_is_not_chosen_while_there_are_others():
    labels = np.repeat(np.arange(5), [1, 6, 6, 6, 6])
    assert np.bincount(labels[stratified(labels, 5, seed=1)]).tolist() == [0, 2, 1, 1, 1]


def test_a_choice_depends_on_the_seed_alone(small: Images):
    first = stratified(small.labels, 20, seed=1)
    assert np.array_equal(first, stratified(small.labels, 20, seed=1))
    assert not np.array_equal(first, stratified(small.labels, 20, seed=2))


@pytest.fixture
def section(params: Params) -> Preprocess:
    return params.preprocess.model_copy(update={"validation": 8, "train_limit": None, "seed": 1})


def test_held_out_images_and_the_rest_are_all_images_once(small: Images, section: Preprocess):
    rest, held_out = choose(small.labels, section)
    assert np.bincount(small.labels[held_out]).tolist() == [2, 2, 2, 2]
    assert sorted([*rest, *held_out]) == list(range(40))


@pytest.mark.parametrize("count", [35, 40, 50_000])
def test_holding_out_so_many_that_a_class_is_left_with_too_few_is_rejected(
    small: Images, section: Preprocess, count: int
):
    section = section.model_copy(update={"validation": count})
    rest, _ = choose(small.labels, section)
    expected = rf"[01] images .* expected 2 or more: change preprocess.validation, which is {count}"
    with pytest.raises(StageError, match=expected):
        check_classes(small.labels[rest], small.class_names, section)


def test_a_limit_may_be_all_images_that_are_left_but_not_more(small: Images, section: Preprocess):
    all_left = section.model_copy(update={"train_limit": 32})
    assert np.array_equal(choose(small.labels, all_left)[0], choose(small.labels, section)[0])
    with pytest.raises(StageError, match=r"preprocess.train_limit is 33; .* the 32 .* leaves"):
        choose(small.labels, section.model_copy(update={"train_limit": 33}))


def test_a_limit_that_leaves_too_few_of_a_class_is_named(small: Images, section: Preprocess):
    limited = section.model_copy(update={"train_limit": 100, "validation": 0})
    message = (
        r"1 images .* class 'd'; expected 2 or more: change preprocess.train_limit, which is 100, "
        "or leave the class out"
    )
    with pytest.raises(StageError, match=message):
        check_classes(small.labels[:7], small.class_names, limited)


def test_rows_are_chosen_across_parts(small: Images):
    positions = np.array([0, 3, 4, 11, 39])
    parts = [small.images[:4], small.images[4:11], small.images[11:]]
    assert np.array_equal(
        np.concatenate(list(take_rows(positions, parts))), small.images[positions]
    )


def test_a_validation_run_leaves_the_test_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    changes = ("preprocess.validation=300", "preprocess.train_limit=500", "features.kind=pixels")
    make_params(tmp_path, *changes)
    monkeypatch.chdir(tmp_path)
    download.main()
    for path in RAW.glob("t10k-*"):
        path.unlink()
    preprocess.main()
    output = capsys.readouterr().out
    assert "500 images to train on, 300 held out of the training files" in output
    assert output.index("images to train on") < output.index("features an image")
    images, labels = np.load(TRAIN_IMAGES), np.load(TRAIN_LABELS)
    held_out = read_npz(TEST)
    published = make_digits()[0]
    assert len(images) == len(labels) == 500
    assert np.bincount(labels).min() >= 48
    assert not set(map(bytes, images)) & set(map(bytes, held_out.images)) - duplicates(published)
    assert set(map(bytes, held_out.images)) <= set(map(bytes, published.images))


def duplicates(data: Images) -> set[bytes]:
    images, counts = np.unique(data.images, axis=0, return_counts=True)
    return set(map(bytes, images[counts > 1]))
