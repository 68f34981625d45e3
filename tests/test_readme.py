"""Commands and figures of README and docs/ are right.  Run: pytest tests/test_readme.py"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scratch import ROOT, make_params

from benchmarks import serving, soak
from report.pictures import MODELS as MODELS_KEY
from report.pictures import models_of_lock
from stages.evaluation.plots import METRICS, read_metrics
from stages.params import Params, load_params

PAGES = {str(p.relative_to(ROOT)): p.read_text("utf-8") for p in sorted(ROOT.glob("docs/*.md"))}
PAGES["README.md"] = README = (ROOT / "README.md").read_text("utf-8")
for name in ("benchmarks/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
    PAGES[name] = (ROOT / name).read_text("utf-8")
PAGES["deploy/README.md"] = (ROOT / "deploy/README.md").read_text("utf-8")
MODELS = read_metrics(ROOT / METRICS)
each_page = pytest.mark.parametrize("page", PAGES)


def benchmark(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"benchmarks/{name}.json").read_text("utf-8"))


@each_page
def test_each_make_verb_exists(page: str):
    verbs = set(re.findall(r"(?m)^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text("utf-8")))
    assert set(re.findall(r"(?m)(?:^\$ |`)make ([a-z-]+)", PAGES[page])) <= verbs


@pytest.mark.parametrize("page", [p for p in PAGES if "troubleshooting" not in p])  # of mistakes
def test_each_parameter_exists(page: str):
    for name in re.findall(r"-S '?([a-z_]+(?:\.\w+)+)=", PAGES[page]):
        section: Any = Params
        for key in name.split(".") if not name.startswith("logistic.") else ():  # the reader's own
            assert key in section.model_fields, name
            section = section.model_fields[key].annotation


def models_of_the_results() -> dict[str, str]:
    """The hashes of both models that README's results are of, by folder."""
    return dict(re.findall(r"`(models/\w+)`\s+`([0-9a-f]{8})`", README))


def models_of_the_lock() -> dict[str, str]:
    lines = models_of_lock(ROOT / "dvc.lock").splitlines()
    found = dict(line.split(" ") for line in lines)
    return {path: md5[:8] for path, md5 in found.items() if path in models_of_the_results()}


of_the_lock = pytest.mark.skipif(
    models_of_the_lock() != models_of_the_results(),
    reason="README's results are of other models than dvc.lock's, whose hashes it names",
)


@of_the_lock
def test_the_results_are_those_of_the_committed_metrics():
    for model in ("fashion-sklearn", "fashion-xgboost"):
        found = MODELS[model]
        (row,) = re.findall(rf"(?m)^\| `{model}`[^|]*\|((?: [0-9.]+ \|){{4}})", README)
        names = ("accuracy", "macro_f1", "log_loss", "calibration_error")
        assert row.split("|")[:-1] == [f" {found[name]:.4f} " for name in names]


@of_the_lock
@pytest.mark.parametrize("name", ["demo.png", "plots.png"])
def test_the_pictures_are_of_the_models_of_the_lock(name: str):
    with Image.open(ROOT / "docs" / name) as picture:
        shown = dict(line.split() for line in picture.info[MODELS_KEY].splitlines())
        assert {path: md5[:8] for path, md5 in shown.items()} == models_of_the_results()


def test_start_memory_and_capacity_are_those_of_the_last_benchmark():
    measured = benchmark("serving")
    assert serving.starts(measured) in PAGES["docs/serving.md"]
    assert serving.capacity(serving.runs_of(measured)) in PAGES["deploy/README.md"]


def test_the_soak_is_the_last_one_and_went_well():
    result = benchmark("soak")
    assert soak.summary(result) in " ".join(PAGES["docs/serving.md"].split())
    assert result["minutes"] >= 10
    assert result["wrong"] == 0
    assert result["memory_mb"]["last"] <= 1.1 * result["memory_mb"]["settled"]


@pytest.mark.parametrize("data_set", ["idx", "mnist", "kmnist", "emnist/gzip"])
def test_the_commands_for_other_data_sets_set_what_they_should(data_set: str, tmp_path: Path):
    page = PAGES["docs/own-data.md"].replace("\\\n", " ")
    found = re.findall(r"(?m)^(?:\$ )?(dvc exp run .*)$", page)
    (command,) = [c for c in found if f'/{data_set}"]' in c]
    make_params(tmp_path, *(word for word in shlex.split(command)[3:] if word != "-S"))
    download = load_params(tmp_path / "params.yaml").download
    assert download.dataset == "own"
    is_emnist = data_set.startswith("emnist")
    assert len(download.own.class_names) == (26 if is_emnist else 10)
    assert (download.own.first_label, download.own.transposed) == (int(is_emnist), is_emnist)
