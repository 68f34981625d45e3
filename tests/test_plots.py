"""What evaluate leaves for plots and the report.  Run: pytest tests/test_plots.py"""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from serving.fashion.contract import SIDE
from stages.data.processed import Images
from stages.evaluation.alerts import expected, write_expected
from stages.evaluation.plots import (
    COLUMNS,
    GAP,
    LINE,
    SCALE,
    gallery,
    surest_mistakes,
    write_gallery,
    write_predictions,
    write_recall,
    write_reliability,
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_are_pairs_of_class_names_and_how_sure_the_model_was(
    tmp_path: Path, small: Images
):
    confidence = np.full(40, 2 / 3)
    write_predictions(tmp_path / "p.csv", small, np.zeros(40, dtype=np.int64), confidence)
    table = rows(tmp_path / "p.csv")
    assert [row["actual"] for row in table[:5]] == ["a", "b", "c", "d", "a"]
    assert {(row["predicted"], row["confidence"]) for row in table} == {("a", "0.666667")}


def test_alerts_get_the_share_of_each_class_and_the_mean_confidence(tmp_path: Path):
    rules = expected("m", ["a", "b", "c"], np.array([0, 2, 2, 2]), np.array([0.5, 0.75, 1, 1]))
    write_expected(tmp_path / "e.yml", rules)
    (group,) = yaml.safe_load((tmp_path / "e.yml").read_text("utf-8"))["groups"]
    assert [(r["record"].split("_", 2)[2], r["labels"], r["expr"]) for r in group["rules"]] == [
        ("class_share", {"model": "m", "class": "a"}, "vector(0.2500)"),
        ("class_share", {"model": "m", "class": "b"}, "vector(0.0000)"),
        ("class_share", {"model": "m", "class": "c"}, "vector(0.7500)"),
        ("confidence", {"model": "m"}, "vector(0.8125)"),
    ]


def test_recall_has_a_row_for_each_class_of_each_model(tmp_path: Path):
    write_recall(tmp_path / "r.csv", {"svm": {"a": 1.0, "b": 0.5}, "trees": {"a": 0.25}})
    assert [tuple(row.values()) for row in rows(tmp_path / "r.csv")] == [
        ("svm", "a", "1.0"),
        ("svm", "b", "0.5"),
        ("trees", "a", "0.25"),
    ]


def test_reliability_has_a_row_for_each_bin_that_holds_images(tmp_path: Path):
    right, confidence = np.array([True, False, True]), np.array([0.9, 0.9, 0.5])
    write_reliability(tmp_path / "r.csv", {"svm": (right, confidence)})
    assert [tuple(row.values()) for row in rows(tmp_path / "r.csv")] == [
        ("svm", "0.5", "1.0", "1"),
        ("svm", "0.9", "0.5", "2"),
    ]


def test_mistakes_come_surest_first_and_equally_sure_ones_in_their_order():
    wrong = np.array([True, False, True, True, True])
    confidence = np.array([0.5, 0.99, 0.9, 0.5, 0.7])
    assert surest_mistakes(wrong, confidence, 9).tolist() == [2, 4, 0, 3]
    assert surest_mistakes(wrong, confidence, 2).tolist() == [2, 4]


def test_the_gallery_shows_the_surest_mistakes_in_their_order(small: Images):
    wrong, confidence = (small.labels + 1) % 4, np.linspace(0.3, 0.9, 40)
    picture = np.array(gallery(small, wrong, confidence).convert("L"))
    step = SIDE * SCALE + GAP
    for place, number in [(0, 39), (1, 38), (COLUMNS, 39 - COLUMNS)]:
        left = GAP + place % COLUMNS * step
        top = GAP + place // COLUMNS * (step + 3 * LINE)
        found = picture[top : top + SIDE * SCALE : SCALE, left : left + SIDE * SCALE : SCALE]
        assert (found.ravel() == small.images[number]).all()


@pytest.mark.parametrize("shift", [0, 1])
def test_the_gallery_is_a_picture_with_words_with_and_without_mistakes(
    tmp_path: Path, small: Images, shift: int
):
    write_gallery(tmp_path / "g.png", small, (small.labels + shift) % 4, np.full(40, 0.9))
    with Image.open(tmp_path / "g.png") as picture:
        last_line = np.array(picture.convert("L"))[-GAP - LINE : -GAP // 2]
    assert (last_line < 128).any()


def test_the_same_answers_make_the_same_bytes(tmp_path: Path, small: Images):
    for name in ("a.png", "b.png"):
        write_gallery(tmp_path / name, small, (small.labels + 1) % 4, np.linspace(0, 1, 40))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
