"""One page shows the last evaluation.  Run: pytest tests/test_report.py"""

import contextlib
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from lxml import html
from scratch import ROOT, make_project, read_csv, run

from report import __main__ as report
from report.__main__ import PUBLISHED, TEMPLATE, content
from report.pages import render
from report.predictions import common_mistakes
from report.provenance import changed_stages, commit
from stages.console import StageError
from stages.evaluation.plots import METRICS, read_metrics
from stages.params import Params

Metrics = dict[str, dict[str, float]]  # by model
PUBLISHED_NAMES = [published.name for published in PUBLISHED]


class Page:
    """A page's elements, its text, and its table cells by row."""

    def __init__(self, content: str):
        document = html.document_fromstring(content)
        self.elements = [(str(e.tag), dict(e.attrib)) for e in document.iter("*")]
        self.text = " ".join(document.text_content().split())
        self.rows = [[cell.text_content() for cell in row] for row in document.iter("tr")]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def project(module_project: Path) -> Path:
    return module_project


@pytest.fixture(scope="module")
def metrics(project: Path) -> Metrics:
    return read_metrics(project / METRICS)


@pytest.fixture(scope="module")
def found(project: Path) -> dict[str, Any]:
    with contextlib.chdir(project):
        return content()


@pytest.fixture(scope="module")
def page(project: Path, found: dict[str, Any]) -> Page:
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(project):
        patch.setattr(report, "content", lambda: found)
        report.main()
    return Page((project / "report.html").read_text("utf-8"))


def test_the_page_needs_no_other_file_and_runs_nothing(page: Page, project: Path):
    for tag, attributes in page.elements:
        for name in {"src", "href", "srcset", "data", "action", "xlink:href"} & set(attributes):
            linked = tag == "a" and attributes[name].startswith(("#", "https://"))
            assert linked or attributes[name].startswith("data:image/png;base64,"), attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    text = (project / "report.html").read_text("utf-8")
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", text))
    assert "@import" not in text


def test_each_plot_of_dvc_is_drawn_with_its_title(page: Page, metrics: Metrics):
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["plots"]
    entries = [next(iter(plot.values())) for plot in plots if isinstance(plot, dict)]
    titles = {entry["title"] for entry in entries if "title" in entry}
    titles |= {f"metrics/predictions/{name}.csv" for name in metrics}
    drawn = page.all("svg")
    assert {svg["aria-label"] for svg in drawn} == titles
    assert len(titles) == len(drawn) == 3 + len(metrics)
    assert all(svg["role"] == "img" for svg in drawn)
    assert "workspace" not in page.text


def test_the_numbers_are_those_of_the_metrics(page: Page, metrics: Metrics):
    for name in ("accuracy", "calibration_error", "log_loss", "macro_f1"):
        assert [name, *(f"{model[name]:.4f}" for model in metrics.values())] in page.rows
    for model in metrics.values():
        assert f"{100 * model['accuracy']:.2f} %" in page.text


def test_the_model_card_has_data_classes_and_the_weakest_of_them(
    page: Page, project: Path, metrics: Metrics
):
    labels = np.load(project / "data/processed/train_labels.npy")
    assert f"{len(labels):,} images trained, 300 others evaluated. Classes: 0, 1, 2," in page.text
    rows = read_csv(project / "metrics/plots/recall.csv")
    for name in metrics:
        recall = {row["class"]: float(row["recall"]) for row in rows if row["model"] == name}
        label = min(recall, key=lambda label: recall[label])
        assert f"{name} recognises {100 * recall[label]:.1f} % of {label}," in page.text


def test_it_names_the_commit_the_data_the_models_and_the_parameters(
    page: Page, project: Path, params: Params
):
    head = run(project, "git", "rev-parse", "HEAD").strip()
    assert f"Git commit: {head}." in page.text
    lock = yaml.safe_load((project / "dvc.lock").read_text("utf-8"))["stages"]
    for out in lock["download"]["outs"]:
        assert [out["path"], f"{out['size']:,}", out["md5"]] in page.rows
    for settings in project.glob("serving/models/*/v1/model-settings.json"):
        extra = json.loads(settings.read_text("utf-8"))["parameters"]["extra"]
        for file, digest in extra["sha256"].items():
            assert [file, digest] in page.rows
        for library, version in extra["libraries"].items():
            assert f"{library} {version}" in page.text
    assert ["xgboost.scores.landmarks", str(params.xgboost.scores.landmarks)] in page.rows
    assert ["download.dataset", "digits"] in page.rows


def test_pictures_tables_and_wide_things_have_names_that_are_read_aloud(page: Page):
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("img")
    assert all(image["alt"] for image in page.all("img"))
    assert all(cell["scope"] in {"row", "col"} for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    regions = [d for d in page.all("div") if d.get("class") == "wide"]
    names = [region["aria-label"] for region in regions]
    assert len(set(names)) == len(names) >= len(page.all("table")) + len(page.all("svg"))
    assert all(region["tabindex"] == "0" and region["role"] == "region" for region in regions)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_a_changed_parameter_makes_its_stage_out_of_date_and_git_unclean(
    project: Path, found: dict[str, Any], page: Page, tmp_path: Path
):
    assert "Out of date" not in page.text
    changed = Path(shutil.copytree(project, tmp_path / "project"))
    params = changed / "params.yaml"
    params.write_text(params.read_text("utf-8").replace("C: 5", "C: 6"), "utf-8")
    with contextlib.chdir(changed):
        found = found | {"changed_stages": changed_stages(), "commit": commit()}
    text = Page(render(TEMPLATE, found)).text
    assert "Out of date: of train_sklearn, the code," in text
    assert ", with uncommitted changes." in text


@pytest.mark.parametrize(
    ("changes", "text", "others"),
    [
        ({}, "These figures say nothing about Fashion-MNIST.", PUBLISHED_NAMES),
        (
            {"download.dataset": "own"},
            "Custom images: the last evaluation",
            [*PUBLISHED_NAMES, "Fashion-MNIST", "handwritten digits"],
        ),
        (
            {"download.dataset": "fashion-mnist", "preprocess.validation": 300},
            "Measured on 300 images that were held out of the training files",
            PUBLISHED_NAMES,
        ),
        ({"preprocess.train_limit": 6000}, "Trained on 6,000 images only", PUBLISHED_NAMES),
    ],
)
def test_it_says_what_the_figures_are_of_and_compares_them_with_nothing_else(
    found: dict[str, Any], changes: dict[str, Any], text: str, others: list[str]
):
    page = Page(render(TEMPLATE, found | {"params": found["params"] | changes}))
    assert text in page.text
    assert not [name for name in others if name in page.text]


def test_published_results_stand_next_to_test_images_of_fashion_mnist(found: dict[str, Any]):
    params = found["params"] | {"download.dataset": "fashion-mnist"}
    page = Page(render(TEMPLATE, found | {"params": params}))
    for published in PUBLISHED:
        assert [published.name, f"{published.accuracy:.3f}", published.source] in page.rows


def test_models_without_mistakes_are_reported(found: dict[str, Any]):
    none: dict[str, list[Any]] = {name: [] for name in found["metrics"]}
    page = Page(render(TEMPLATE, found | {"mistakes": none, "common": none}))
    assert page.text.count("None on these images.") == 2
    assert not page.all("img")


def test_common_mistakes_are_those_counted_by_hand():
    found = pd.DataFrame({"actual": list("aabbc"), "predicted": list("bbbaa")})
    assert common_mistakes(found, 2) == [("a", "b", 2), ("b", "a", 1)]


def test_where_a_file_is_missing_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(make_project(tmp_path / "project"))
    with pytest.raises(StageError, match=r"^data/processed/test.npz: not found; make it with: "):
        report.main()
    shutil.rmtree("metrics/models")
    with pytest.raises(StageError, match=r"^metrics/models: no metrics found; make them with: dvc"):
        report.main()
