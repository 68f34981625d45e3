"""The README says what is so.  Run: pytest tests/test_readme.py"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from scratch import ROOT

from benchmarks import serving, soak
from benchmarks.training import exponent, table
from serving.fashion.contract import CLASS_NAMES
from stages.data.own_images import COMPONENTS
from stages.params import Params, load_params

README = (ROOT / "README.md").read_text("utf-8")
DEPLOY = (ROOT / "deploy/README.md").read_text("utf-8")
METRICS = json.loads((ROOT / "metrics/evaluation.json").read_text("utf-8"))
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))


def commands(text: str = README) -> list[str]:
    """The commands of the console blocks, continued lines joined, comments cut."""
    blocks = "\n".join(re.findall(r"(?s)```console\n(.*?)```", text)).replace("\\\n", " ")
    return [" ".join(shlex.split(c, comments=True)) for c in re.findall(r"(?m)^\$ (.*)$", blocks)]


@pytest.mark.parametrize("model", METRICS)
def test_the_results_are_those_of_the_committed_metrics(model: str):
    (row,) = re.findall(rf"(?m)^\| `{model}`[^|]*\|((?: [0-9.]+ \|){{4}})", README)
    shown = ("accuracy", "macro_f1", "log_loss", "calibration_error")
    assert row.split("|")[:-1] == [f" {METRICS[model][name]:.4f} " for name in shown]


def test_the_benchmark_table_is_that_of_the_last_results():
    result = json.loads((ROOT / "benchmarks/training.json").read_text("utf-8"))
    assert table(result["medians"]) in README
    assert result["hardware"] in README
    for name, curve in result["growth"].items():
        assert curve["exponent"] == pytest.approx(exponent(curve["images"], curve["seconds"])), name
        assert f"{curve['exponent']:.2f}" in README


def test_the_serving_table_is_that_of_the_last_results():
    result = json.loads((ROOT / "benchmarks/serving.json").read_text("utf-8"))
    assert serving.table(serving.ratios(result)) in README
    assert result["hardware"] in README


def test_the_soak_is_the_last_one_and_went_well():
    result = json.loads((ROOT / "benchmarks/soak.json").read_text("utf-8"))
    assert soak.summary(result) in " ".join(README.split())
    assert result["minutes"] >= 10
    assert result["wrong"] == 0
    assert result["memory_mb"]["last"] <= 1.1 * result["memory_mb"]["settled"]


def test_the_cost_of_training_grows_with_a_power_that_is_found():
    images = [1000, 2000, 4000]
    assert exponent(images, [3 * n**1.5 for n in images]) == pytest.approx(1.5)


def test_the_results_are_of_the_defaults_on_all_test_images():
    assert PARAMS["preprocess"]["validation"] == 0
    assert PARAMS["preprocess"]["train_limit"] is None
    assert PARAMS["download"]["dataset"] == "fashion-mnist"
    for model in METRICS.values():
        assert model["rows"] == 10_000
        assert model["labels_different"] == 0
        assert set(model["recall"]) == set(CLASS_NAMES["fashion-mnist"])


@pytest.mark.parametrize("name", ["scikit-learn", "scikit-learn-intelex", "xgboost"])
def test_the_versions_are_those_of_the_lock(name: str):
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    (version,) = re.findall(rf"(?m)^{name}==(\S+)", lock)
    assert re.search(rf"(?i){name} {re.escape(version)}", README)


def test_the_example_answer_is_whole_json_and_an_ankle_boot():
    answer = json.loads(re.findall(r"(?m)^(\{.*\})$", README)[0])
    assert answer["model_version"] == PARAMS["package"]["version"]
    (label,) = answer["outputs"][0]["data"]
    assert CLASS_NAMES["fashion-mnist"][label] == "Ankle boot"


@pytest.mark.parametrize("text", [README, DEPLOY], ids=["README.md", "deploy/README.md"])
def test_each_make_verb_that_is_named_exists(text: str):
    verbs = set(re.findall(r"(?m)^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text("utf-8")))
    prose = re.sub(r"(?s)```.*?```", "", text)
    typed = " ; ".join([*commands(text), *re.findall(r"`([^`]+)`", prose)])
    named = set(re.findall(r"\bmake ([a-z-]+)", typed))
    assert len(named) >= 6
    assert named <= verbs


def test_each_stage_stands_in_the_table_with_what_it_writes():
    for name, stage in PIPELINE["stages"].items():
        (row,) = re.findall(rf"(?m)^\| `{name}` \|.*$", README)
        for out in stage.get("outs", []) + stage.get("metrics", []):
            path = next(iter(out)) if isinstance(out, dict) else out
            written = re.findall(r"`([^`]+)`", row)
            assert any(f"{path}/".startswith(place) for place in written), path


def test_each_parameter_that_is_named_exists():
    right = README[: README.index("## When something is wrong")]
    named = set(re.findall(r"-S '?([a-z_]+\.\w+)=", right))
    named |= {n for n in re.findall(r"`([a-z_]+\.\w+)[=:`]", right) if n.split(".")[0] in PARAMS}
    assert len(named) >= 5
    for name in named:
        section, key = name.split(".")
        assert key in Params.model_fields[section].annotation.model_fields, name  # type: ignore[union-attr]


@pytest.mark.parametrize("data_set", ["idx", "mnist", "kmnist", "emnist/gzip"])
def test_the_commands_for_other_data_sets_set_what_they_should(data_set: str, tmp_path: Path):
    (section,) = re.findall(r"(?s)## Your own images\n(.*?)\n## ", README)
    blocks = re.findall(r"(?m)^(?:\$ )?(dvc exp run .*)$", section.replace("\\\n", " "))
    (command,) = [c for c in blocks if f'/{data_set}"]' in c]
    overrides = [word for word in shlex.split(command)[3:] if word != "-S"]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(str(tmp_path / "params.yaml"), overrides)
    params = load_params(tmp_path / "params.yaml")
    own = params.download.own
    assert params.download.dataset == "own"
    assert params.xgboost.columns == len(own.class_names) + COMPONENTS
    is_emnist = data_set.startswith("emnist")
    assert len(own.class_names) == (26 if is_emnist else 10)
    assert (own.first_label, own.transposed) == (int(is_emnist), is_emnist)


def test_each_file_of_the_layout_exists():
    (layout,) = re.findall(r"(?s)## Where things are\n\n```\n(.*?)```", README)
    made = {"models/"}
    for line in layout.splitlines():
        for name in line[:34].split():
            path = name.replace(".lock", "requirements.lock") if name == ".lock" else name
            places = (ROOT / path, ROOT / "serving" / path)
            assert name in made or any(place.exists() for place in places), name


def test_each_row_of_what_happens_is_a_test():
    (section,) = re.findall(r"(?s)### What happens when …\n(.*?)\n### ", README)
    named = re.findall(r"(?m)^test_\w+$", section)
    rows = re.findall(r"(?m)^\| (?!…)", section)
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) == len(rows) > 9
    for name in named:
        assert f"def {name}(" in tests, name


def test_each_file_of_deploying_exists():
    named = re.findall(r"`((?:kserve|seldon)/[a-z-]+\.yaml)`", DEPLOY)
    assert len(named) > 5
    for path in named:
        assert (ROOT / "deploy" / path).exists(), path
