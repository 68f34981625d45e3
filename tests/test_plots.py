"""What evaluate leaves for plots and the report.  Run: pytest tests/test_plots.py"""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scratch import files_in, read_csv

from serving.fashion.contract import LABELS, PROBABILITIES, SIDE
from stages.data.processed import Images
from stages.evaluation import plots
from stages.evaluation.alerts import EXPECTED, expected
from stages.evaluation.metrics import Predictions, recorded
from stages.evaluation.plots import (
    COLUMNS,
    GAP,
    LINE,
    METRICS,
    PLOTS,
    PREDICTIONS,
    SCALE,
    gallery,
    surest_mistakes,
    write_results,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are written: the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sure(labels: np.ndarray, *confidence: float) -> Predictions:
    """Predictions of four classes, each with its confidence, or all with the only one."""
    rest = np.broadcast_to((1 - np.array(confidence)) / 3, len(labels))
    probabilities = np.repeat(rest[:, None], 4, axis=1)
    probabilities[np.arange(len(labels)), labels] = confidence
    return recorded({LABELS: labels, PROBABILITIES: probabilities})


def test_predictions_are_pairs_of_class_names_and_how_sure_the_model_was(small: Images):
    write_results(small, {"m": sure(np.zeros(40, dtype=np.int64), 2 / 3)})
    table = read_csv(PREDICTIONS / "m.csv")
    assert [row["actual"] for row in table[:5]] == ["a", "b", "c", "d", "a"]
    assert {(row["predicted"], row["confidence"]) for row in table} == {("a", "0.666667")}


def test_alerts_get_the_share_of_each_class_and_the_mean_confidence():
    text = expected(["a", "b", "c", "d"], {"m": sure(np.array([0, 2, 2, 2]), 0.5, 0.75, 1, 1)})
    (group,) = yaml.safe_load(text)["groups"]
    assert [(r["record"].split("_", 2)[2], r["labels"], r["expr"]) for r in group["rules"]] == [
        ("class_share", {"model": "m", "class": "a"}, "vector(0.2500)"),
        ("class_share", {"model": "m", "class": "b"}, "vector(0.0000)"),
        ("class_share", {"model": "m", "class": "c"}, "vector(0.7500)"),
        ("class_share", {"model": "m", "class": "d"}, "vector(0.0000)"),
        ("confidence", {"model": "m"}, "vector(0.8125)"),
    ]


def test_recall_and_reliability_have_rows_of_each_model(small: Images):
    half = np.where(np.arange(40) < 20, small.labels, 0)
    write_results(small, {"svm": sure(small.labels, 0.9), "trees": sure(half, 0.5)})
    assert [tuple(row.values()) for row in read_csv(PLOTS / "recall.csv")] == [
        *[("svm", name, "1.0") for name in "abcd"],
        ("trees", "a", "1.0"),
        *[("trees", name, "0.5") for name in "bcd"],
    ]
    assert [tuple(row.values()) for row in read_csv(PLOTS / "reliability.csv")] == [
        ("svm", "0.9", "1.0", "40"),
        ("trees", "0.5", "0.625", "40"),
    ]


@pytest.mark.parametrize("models", [["one"], ["one", "two", "three"]])
def test_any_number_of_models_is_recorded_and_nothing_of_one_that_is_gone(
    small: Images, folder: Path, models: list[str]
):
    found = sure(small.labels, 0.9)
    write_results(small, {"earlier": found, "one": found})
    write_results(small, dict.fromkeys(models, found))
    by_model = (METRICS / "{}.json", PREDICTIONS / "{}.csv", PLOTS / "mistakes/{}.png")
    named = {str(path).format(model) for path in by_model for model in models}
    common = {str(PLOTS / "recall.csv"), str(PLOTS / "reliability.csv"), str(EXPECTED)}
    assert set(files_in(folder)) == named | common
    for path in common:
        assert "earlier" not in (folder / path).read_text("utf-8")


def test_a_recording_that_is_interrupted_leaves_what_was_recorded_before(
    small: Images, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_results(small, {"m": sure(small.labels, 0.9)})
    before = files_in(folder)
    monkeypatch.setattr(plots, "expected", interrupt)  # which comes last
    with pytest.raises(KeyboardInterrupt):
        write_results(small, {"m": sure(small.labels, 0.8)})
    assert files_in(folder) == before


def test_other_rounding_of_the_servers_sums_gives_the_same_bytes(small: Images, folder: Path):
    """By what it computed together: here, at the bins' borders, and where mistakes are as sure."""
    random = np.random.default_rng(1)
    wrong = (small.labels + random.integers(0, 2, 40)) % 4
    exact = sure(wrong, *random.choice([0.4, 0.6, 0.8], 40)).probabilities
    written = []
    for noise in (0, 1e-13, -1e-13):
        moved = exact + noise * random.random(exact.shape)
        write_results(small, {"m": recorded({LABELS: wrong, PROBABILITIES: moved})})
        written.append(files_in(folder))
    assert written[0] == written[1] == written[2]
    assert json.loads(written[0][str(METRICS / "m.json")])["images"] == 40


def test_mistakes_come_surest_first_and_equally_sure_ones_in_their_order():
    wrong = np.array([True, False, True, True, True])
    confidence = np.array([0.5, 0.99, 0.9, 0.5, 0.7])
    assert surest_mistakes(wrong, confidence, 9).tolist() == [2, 4, 0, 3]
    assert surest_mistakes(wrong, confidence, 2).tolist() == [2, 4]


def test_the_gallery_shows_the_surest_mistakes_in_their_order(small: Images):
    wrong, confidence = (small.labels + 1) % 4, np.linspace(0.3, 0.9, 40)
    picture = np.array(gallery(small, sure(wrong, *confidence)).convert("L"))
    step = SIDE * SCALE + GAP
    for place, number in [(0, 39), (1, 38), (COLUMNS, 39 - COLUMNS)]:
        left = GAP + place % COLUMNS * step
        top = GAP + place // COLUMNS * (step + 3 * LINE)
        found = picture[top : top + SIDE * SCALE : SCALE, left : left + SIDE * SCALE : SCALE]
        assert (found.ravel() == small.images[number]).all()
