"""README and docs/ agree with the repository.  Run: pytest tests/test_readme.py"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from scratch import ROOT

from benchmarks import figures, soak, training
from serving.fashion.contract import CLASS_NAMES, FEATURES_FILE, SAMPLES_FILE, TRAINING_FILE
from serving.fashion.packaged import MODEL_SETTINGS
from stages import package
from stages.params import Params, load_params

PAGES = {str(p.relative_to(ROOT)): p.read_text("utf-8") for p in sorted(ROOT.glob("docs/*.md"))}
PAGES["README.md"] = README = (ROOT / "README.md").read_text("utf-8")
SERVING = PAGES["docs/serving.md"]
DEPLOY = (ROOT / "deploy/README.md").read_text("utf-8")
METRICS = json.loads((ROOT / "metrics/evaluation.json").read_text("utf-8"))
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
PARAMS = load_params(ROOT / "params.yaml")
PACKAGED = {MODEL_SETTINGS, FEATURES_FILE, TRAINING_FILE, SAMPLES_FILE, package.EXAMPLE} | {
    source.file.name for source in package.MODELS.values()
}
each_page = pytest.mark.parametrize("page", PAGES)


def commands(text: str) -> list[str]:
    """The commands of the console blocks, continued lines joined, comments cut."""
    blocks = "\n".join(re.findall(r"(?s)```console\n(.*?)```", text)).replace("\\\n", " ")
    return [" ".join(shlex.split(c, comments=True)) for c in re.findall(r"(?m)^\$ (.*)$", blocks)]


def quoted(text: str) -> list[str]:
    """What stands in backticks outside of blocks."""
    return re.findall(r"`([^`]+)`", re.sub(r"(?s)```.*?```", "", text))


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def benchmark(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"benchmarks/{name}.json").read_text("utf-8"))


@each_page
def test_each_relative_link_leads_somewhere(page: str):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


@each_page
def test_each_path_exists_or_is_made(page: str):
    for path in quoted(PAGES[page]):
        is_path = re.fullmatch(
            r"(?!\.\./)[\w.-]+/[\w./-]*|[\w-]+\.(py|md|json|ya?ml|toml|txt|lock)", path
        )
        if is_path and path not in PACKAGED and not (ROOT / path).exists():
            made = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
            assert made.returncode == 0, path


@pytest.mark.parametrize("text", [*PAGES.values(), DEPLOY], ids=[*PAGES, "deploy/README.md"])
def test_each_make_verb_exists(text: str):
    verbs = set(re.findall(r"(?m)^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text("utf-8")))
    assert (
        set(re.findall(r"\bmake ([a-z-]+)", " ; ".join([*commands(text), *quoted(text)]))) <= verbs
    )


@pytest.mark.parametrize("page", [p for p in PAGES if "troubleshooting" not in p])  # of mistakes
def test_each_parameter_exists(page: str):
    named = re.findall(r"-S '?([a-z_]+\.\w+)=", PAGES[page])
    named += re.findall(r"`([a-z_]+\.\w+)[=:`]", PAGES[page])
    for section, key in (name.split(".") for name in named):
        if section in Params.model_fields:
            assert key in type(getattr(PARAMS, section)).model_fields, f"{section}.{key}"


@pytest.mark.parametrize("model", METRICS)
def test_the_results_are_those_of_the_committed_metrics(model: str):
    (row,) = re.findall(rf"(?m)^\| `{model}`[^|]*\|((?: [0-9.]+ \|){{4}})", README)
    names = ("accuracy", "macro_f1", "log_loss", "calibration_error")
    assert row.split("|")[:-1] == [f" {METRICS[model][name]:.4f} " for name in names]
    assert METRICS[model]["rows"] == 10_000
    assert METRICS[model]["labels_different"] == 0
    assert set(METRICS[model]["recall"]) == set(CLASS_NAMES["fashion-mnist"])


def test_the_results_are_of_the_defaults_on_all_test_images():
    assert (PARAMS.preprocess.validation, PARAMS.preprocess.train_limit) == (0, None)
    assert PARAMS.download.dataset == "fashion-mnist"


def test_the_speeds_are_those_of_the_last_benchmarks():
    trained, served = benchmark("training"), benchmark("serving")
    assert training.table(trained["medians"]) in README
    assert figures.table(figures.ratios(served)) in README
    assert trained["hardware"] in README
    for curve in trained["growth"].values():
        exponent = training.exponent(curve["images"], curve["seconds"])
        assert f"{exponent:.2f}" in PAGES["docs/models.md"]
    found = figures.figures(served)
    for kind, name in (("xgboost", "trees"), ("sklearn", "SVM")):
        ours, blog = (
            found[figures.Load(kind, way, 64, 1, 0.0)].per_second
            for way in (figures.OUR_REST, figures.BLOG_REST)
        )
        assert f"64 connections, {name} | {ours:,.0f} | {blog:,.0f} |" in SERVING
    for when, row in (("before the first", "before the first"), ("after the last", "after all")):
        ours, blog = (served["memory_mb"][f"{w}: {when} request"][0] for w in ("fashion", "blog"))
        assert re.search(rf"memory {row}.* \| {ours:.0f} \| {blog:.0f} \|", SERVING)


def test_the_soak_is_the_last_one_and_went_well():
    result = benchmark("soak")
    assert soak.summary(result) in " ".join(SERVING.split())
    assert result["minutes"] >= 10
    assert result["wrong"] == 0
    assert result["memory_mb"]["last"] <= 1.1 * result["memory_mb"]["settled"]


def test_what_drift_measures_is_what_was_measured():
    found, page = benchmark("drift"), PAGES["docs/operating.md"]
    alarms, windows = found["unchanged"]["alarms"], found["unchanged"]["windows"]
    assert f"{alarms} of {windows:,} windows of 500 untouched images" in " ".join(page.split())
    assert alarms <= windows / 100
    for name, images in found["images_until"].items():
        assert f"| {name} | {images:,} |" in page


def test_the_cost_of_training_grows_with_a_power_that_is_found():
    images = [1000, 2000, 4000]
    assert training.exponent(images, [3 * n**1.5 for n in images]) == pytest.approx(1.5)


@pytest.mark.parametrize("name", ["scikit-learn", "scikit-learn-intelex", "xgboost"])
def test_the_versions_are_those_of_the_lock(name: str):
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    (version,) = re.findall(rf"(?m)^{name}==(\S+)", lock)
    assert re.search(rf"(?i){name}\s{re.escape(version)}", README)


def test_the_repository_shown_is_the_one_that_package_makes(tmp_path: Path):
    (block,) = re.findall(r"(?s)```\n(serving/ .*?)```", README)
    tree, settings = zip(*((line[:38], line[38:]) for line in block.splitlines()), strict=True)
    files = re.findall(r"[\w.-]+\.\w+(?= *$)", "\n".join(tree), re.M)
    assert set(files) == PACKAGED | {"settings.json"}
    facts = {"engine": "", "parameters": {}, "libraries": {}}
    (tmp_path / TRAINING_FILE).write_text(json.dumps(facts), "utf-8")
    name, names = "fashion-sklearn", CLASS_NAMES["fashion-mnist"]
    made = package.model_settings(name, package.MODELS[name], tmp_path, PARAMS.package, names)
    shown = json.loads(re.sub("(, )?…", "", "".join(settings)))
    assert list(shown) == list(made)
    for key in ("name", "implementation", "versions", "inputs"):
        assert shown[key] == made[key]
    assert shown["outputs"] == made["outputs"][:1]
    assert shown["parameters"]["uri"] == made["parameters"]["uri"]
    assert shown["parameters"]["extra"].keys() <= made["parameters"]["extra"].keys()


def test_the_example_response_is_whole_json_and_an_ankle_boot():
    response = json.loads(re.findall(r"(?m)^(\{.*\})$", README)[0])
    assert response["model_version"] == PARAMS.package.version
    (label,) = response["outputs"][0]["data"]
    assert CLASS_NAMES["fashion-mnist"][label] == "Ankle boot"


def test_each_stage_stands_in_the_table_with_what_it_writes():
    for name, stage in PIPELINE["stages"].items():
        (row,) = re.findall(rf"(?m)^\| `{name}` \|.*$", README)
        for out in stage.get("outs", []) + stage.get("metrics", []):
            path = next(iter(out)) if isinstance(out, dict) else out
            assert any(f"{path}/".startswith(place) for place in quoted(row)), path


@pytest.mark.parametrize("data_set", ["idx", "mnist", "kmnist", "emnist/gzip"])
def test_the_commands_for_other_data_sets_set_what_they_should(data_set: str, tmp_path: Path):
    page = PAGES["docs/own-data.md"].replace("\\\n", " ")
    found = re.findall(r"(?m)^(?:\$ )?(dvc exp run .*)$", page)
    (command,) = [c for c in found if f'/{data_set}"]' in c]
    overrides = [word for word in shlex.split(command)[3:] if word != "-S"]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(str(tmp_path / "params.yaml"), overrides)
    params = load_params(tmp_path / "params.yaml")
    own = params.download.own
    assert params.download.dataset == "own"
    is_emnist = data_set.startswith("emnist")
    assert len(own.class_names) == (26 if is_emnist else 10)
    assert (own.first_label, own.transposed) == (int(is_emnist), is_emnist)


def test_each_file_of_the_layout_exists():
    (layout,) = re.findall(r"(?s)## Where things are\n\n```\n(.*?)```", README)
    parents: dict[int, Path] = {0: ROOT}
    for line in layout.splitlines():
        depth = len(line) - len(line.lstrip())
        names = [n.replace(".lock", "requirements.lock", n == ".lock") for n in line[:34].split()]
        for name in names:
            assert name == "models/" or (parents[depth] / name).exists(), name
        parents[depth + 2] = parents[depth] / names[-1]


def test_the_limits_are_those_of_the_params():
    limits = PARAMS.package.limits.model_dump()
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d+) ", SERVING)
    assert {name: int(value) for name, value in rows} == limits


def test_each_row_of_what_happens_names_a_file_of_tests():
    (section,) = re.findall(r"(?s)## What happens when …\n(.*?)\n## ", SERVING)
    rows = re.findall(r"(?m)^\| (?!…).*$", section)
    assert len(rows) > 15
    assert all(re.search(r"`tests/test_\w+\.py` \|$", row) for row in rows)


def test_each_file_of_deploying_exists():
    named = re.findall(r"`((?:kserve|seldon)/[a-z-]+\.yaml)`", DEPLOY)
    assert len(named) > 5
    for path in named:
        assert (ROOT / "deploy" / path).exists(), path
