"""Params are typed and closed; each mistake is one line.  Run: pytest tests/test_params.py"""

import datetime
from pathlib import Path

import pytest
import yaml
from scratch import ROOT

from stages.closed_yaml import Section
from stages.errors import StageError
from stages.params import Params, load_params


def load_with(folder: Path, changes: dict[str, object]) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[key] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return load_params(path)


def test_the_committed_file_is_valid():
    assert load_params(ROOT / "params.yaml").package.version == "v1"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("svm.c", 10, "svm.c is 10, but no parameter; expected C"),
        ("svm.C", "ten", 'svm.C is "ten"; expected a number above 0'),
        ("svm.C", -1, "svm.C is -1; expected a number above 0"),
        ("svm.C", float("nan"), "svm.C is NaN; expected a number above 0"),
        ("svm.C", True, "svm.C is true; expected a number above 0"),
        ("svm.gamma", "wide", 'svm.gamma is "wide"; expected scale, auto or a number above 0'),
        ("svm.gamma", 0, "svm.gamma is 0; expected scale, auto or a number above 0"),
        (
            "svm.kernel",
            "gauss",
            'svm.kernel is "gauss"; expected one of linear, poly, rbf, sigmoid',
        ),
        ("svm.approximation", 5, "expected null or a whole number from 10 to 20000"),
        ("svm.device", "gpu", 'svm.device is "gpu"; expected one of cpu, cuda'),
        ("xgboost.max_depht", 3, "max_depht is 3, but no parameter; expected max_depth"),
        (
            "xgboost.max_depth",
            3.5,
            "xgboost.max_depth is 3.5; expected a whole number from 1 to 30",
        ),
        ("xgboost.subsample", 0, "xgboost.subsample is 0; expected a number above 0, at most 1"),
        (
            "download.dataset",
            "mnist",
            'dataset is "mnist"; expected one of fashion-mnist, digits, own',
        ),
        ("download.sources", [], "download.sources is []; expected a list of base URLs or folders"),
        ("download.sources", [3], "download.sources is 3; expected a list of base URLs or folders"),
        ("preprocess.train_limit", 5, "train_limit is 5; expected null or a whole number from 100"),
        ("preprocess.validation", None, "preprocess.validation is null; expected 0"),
        ("package.version", datetime.date(2026, 1, 2), 'package.version is "2026-01-02"; expected'),
        ("svm.3", 4, "svm.3 is 4, but no parameter; expected one of C, approximation, coef0"),
        ("deploy.image", "fashion:v1", 'deploy.image is "fashion:v1"; expected an image'),
        ("deploy.storage", "models", 'deploy.storage is "models"; expected a URL that KServe'),
        ("deploy.canary_percent", 101, "deploy.canary_percent is 101; expected a whole number"),
        ("deploy.replicas", [4, 1], "deploy.replicas is [4, 1]; expected the fewest and the most"),
        ("deploy.replicas", 3, "deploy.replicas is 3; expected the fewest and the most"),
        ("deploy.cpu", 0, "deploy.cpu is 0; expected a number above 0"),
        ("deploy.memory", ["1G", "2Gi"], 'deploy.memory is "1G"; expected requested and at most'),
        ("package.version", "1", 'package.version is "1"; expected v1, v2, v3'),
        ("package.previous", {"one": "3f2c1ab"}, 'package.previous is "one"; expected earlier'),
        ("package.previous", {"v2": 3217}, "package.previous is 3217; expected earlier versions"),
        ("package.previous", {"v1": "3f2c1ab"}, 'package.previous is {"v1": "3f2c1ab"}; expected'),
        (
            "package.serving.sklearn.max_batch_delay_ms",
            -1,
            "serving.sklearn.max_batch_delay_ms is -1; expected a number from 0",
        ),
        ("package.serving.xgboost", 2, "package.serving.xgboost is 2; expected a section of keys"),
        ("package.serving.sklearn.max_batch", 2, "but no parameter; expected max_batch_delay_ms"),
        (
            "package.limits.waiting",
            0,
            "limits.waiting is 0; expected a whole number from 1",
        ),
        ("evaluate.min_accuracy", 80, "evaluate.min_accuracy is 80; expected a number from 0 to 1"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed(
    tmp_path: Path, key: str, value: object, message: str
):
    with pytest.raises(StageError) as error:
        load_with(tmp_path, {key: value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_several_mistakes_are_a_line_each(tmp_path: Path):
    with pytest.raises(StageError) as error:
        load_with(tmp_path, {"svm.C": 0, "svm.degree": 0})
    assert str(error.value).count("\n") == 1


def test_a_whole_number_serves_as_a_number(tmp_path: Path):
    assert load_with(tmp_path, {"svm.C": 3}).svm.C == 3.0


def test_an_exponent_without_a_point_is_a_number_as_it_is_for_dvc(tmp_path: Path):
    text = (ROOT / "params.yaml").read_text("utf-8").replace("tol: 0.001", "tol: 1e-4")
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    assert load_params(tmp_path / "params.yaml").svm.tol == 1e-4


def test_a_missing_key_or_section_is_named(tmp_path: Path):
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text("utf-8")
    path.write_text(text.replace("  version: v1 ", "  # version: v1 "), "utf-8")
    with pytest.raises(StageError, match=r"package\.version is missing; expected v1"):
        load_params(path)
    path.write_text(text.replace("evaluate:", "evaluation:"), "utf-8")
    with pytest.raises(StageError, match=r"evaluation is .*, but no parameter; expected evaluate"):
        load_params(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is null"),
        ("a: [1", "not YAML"),
        ("3", "the file is 3"),
        ("1: 2", "1 is 1, but no parameter"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    with pytest.raises(StageError, match=message):
        load_params(tmp_path / "params.yaml")


def test_no_file_says_where_to_run_from(tmp_path: Path):
    with pytest.raises(StageError, match=r"not found in .*; run from the project's root"):
        load_params(tmp_path / "params.yaml")


def test_every_parameter_says_what_is_allowed():
    sections: list[type[Section]] = [Params]
    for section in sections:
        for key, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                sections.append(field.annotation)
            else:
                assert field.description, key
    assert len(sections) > len(Params.model_fields)
