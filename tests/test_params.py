"""Params are typed and closed; each mistake is one line.  Run: pytest tests/test_params.py"""

import datetime
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scratch import PARAMS, ROOT

import stages
from stages.console import StageError
from stages.data.strict_yaml import read_yaml
from stages.params import Params, load_params

TEXT = PARAMS.read_text("utf-8")


def load_with(folder: Path, changes: dict[str, object]) -> Params:
    values = read_yaml(PARAMS)
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[key] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return load_params(path)


def test_the_projects_params_are_valid():
    load_params(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("svm.c", 10, "svm.c is 10, but no parameter; expected C"),
        ("svm.3", 4, "svm.3 is 4, but no parameter; expected one of C, approximation, coef0"),
        ("svm.C", -1, "svm.C is -1; expected a number greater than 0"),
        ("svm.C", float("nan"), "svm.C is NaN; expected a finite number"),
        ("svm.kernel", "gauss", "is \"gauss\"; expected 'linear', 'poly', 'rbf' or 'sigmoid'"),
        ("svm.gamma", "wide", "svm.gamma is \"wide\"; expected 'scale' or 'auto' or a valid"),
        ("download.own.class_names", ["a", "a"], 'is ["a", "a"]; expected each name once'),
        ("package.version", datetime.date(2026, 1, 2), 'package.version is "2026-01-02"; expected'),
        ("package.previous", {"v1": "3f2c1ab"}, "expected earlier versions than package.version"),
        ("scores", {"folds": 4}, "but no parameter; it is xgboost.scores now"),
        ("package.serving.sklearn", {}, "but no parameter; it is package.serving now"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed(
    tmp_path: Path, key: str, value: object, message: str
):
    with pytest.raises(StageError) as error:
        load_with(tmp_path, {key: value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def added_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a stage that has a section."""
    described = (
        "from stages.data.strict_yaml import Section\n"
        "class RandomForest(Section):\n    n_estimators: int\n"
    )
    (tmp_path / "train_forest.py").write_text(described, "utf-8")
    stage = {"cmd": "x", "params": ["random_forest.n_estimators", "threads"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train_forest": stage}}), "utf-8")
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("stages.train_forest", None)


def test_the_section_of_an_added_stage_is_checked_with_all_others(added_stage: Path):
    params = load_with(added_stage, {"random_forest": {"n_estimators": 5}})
    form = vars(sys.modules["stages.train_forest"])["RandomForest"]
    assert params.section(form) == form(n_estimators=5)
    with pytest.raises(StageError, match=r"random_forest\.n_estimators is \"5\"; expected a valid"):
        load_with(added_stage, {"random_forest": {"n_estimators": "5"}})


def test_a_section_that_its_stage_does_not_describe_is_named(added_stage: Path):
    (added_stage / "train_forest.py").write_text("", "utf-8")
    with pytest.raises(StageError, match=r"expected class RandomForest\(Section\) there"):
        load_with(added_stage, {"random_forest": {}})


def test_several_mistakes_are_a_line_each(tmp_path: Path):
    with pytest.raises(StageError) as error:
        load_with(tmp_path, {"svm.C": 0, "svm.degree": 0})
    assert str(error.value).count("\n") == 1


def test_an_exponent_without_a_point_is_a_number_as_it_is_for_dvc(tmp_path: Path):
    (tmp_path / "params.yaml").write_text(TEXT.replace("tol: 0.001", "tol: 1e-4"), "utf-8")
    assert load_params(tmp_path / "params.yaml").svm.tol == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is null"),
        ("a: [1", "not YAML"),
        ("1: 2", "1 is 2; keys should be strings"),
        (TEXT.replace("  version: v1", ""), r"package\.version is missing; expected a value"),
        (TEXT.replace("evaluate:", "evaluation:"), "evaluation is .*; expected evaluate"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_an_error(tmp_path: Path, text: str, message: str):
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    with pytest.raises(StageError, match=message):
        load_params(tmp_path / "params.yaml")


def test_no_file_says_where_to_run_from(tmp_path: Path):
    with pytest.raises(StageError, match=r"not found in .*; run from the project's root"):
        load_params(tmp_path / "params.yaml")
