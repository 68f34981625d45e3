"""Splits keep shares, and test images apart.  Run: pytest tests/test_preprocess.py"""

from collections import Counter
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
from stages.params import Preprocess
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


def section(validation: int, train_limit: int | None = None) -> Preprocess:
    """As params.yaml has it, but not validated: small numbers will do."""
    return Preprocess.model_construct(validation=validation, train_limit=train_limit, seed=1)


def test_held_out_images_and_the_rest_are_all_images_once(small: Images):
    rest, held_out = choose(small.labels, section(validation=8))
    assert np.bincount(small.labels[held_out]).tolist() == [2, 2, 2, 2]
    assert sorted([*rest, *held_out]) == list(range(40))


@pytest.mark.parametrize("count", [35, 50_000])
def test_holding_out_so_many_that_a_class_is_left_with_too_few_is_rejected(
    small: Images, count: int
):
    params = section(validation=count)
    rest, _ = choose(small.labels, params)
    expected = rf"[01] images .* expected 2 or more: change preprocess.validation, which is {count}"
    with pytest.raises(StageError, match=expected):
        check_classes(small.labels[rest], small.class_names, params)


def test_a_limit_may_be_all_images_that_are_left_but_not_more(small: Images):
    all_left = choose(small.labels, section(validation=8, train_limit=32))[0]
    assert np.array_equal(all_left, choose(small.labels, section(validation=8))[0])
    with pytest.raises(StageError, match=r"preprocess.train_limit is 33; .* the 32 .* leaves"):
        choose(small.labels, section(validation=8, train_limit=33))


def test_a_limit_that_leaves_too_few_of_a_class_is_named(small: Images):
    message = (
        r"1 images .* class 'd'; expected 2 or more: change preprocess.train_limit, which is 100, "
        "or leave the class out"
    )
    with pytest.raises(StageError, match=message):
        check_classes(small.labels[:7], small.class_names, section(0, train_limit=100))


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
    images, labels, held_out = np.load(TRAIN_IMAGES), np.load(TRAIN_LABELS), read_npz(TEST)
    assert len(images) == len(labels) == 500
    assert np.bincount(labels).min() >= 48
    published = Counter(map(bytes, make_digits()[0].images))
    assert Counter(map(bytes, [*images, *held_out.images])) <= published
