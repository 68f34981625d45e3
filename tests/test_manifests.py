"""The manifests of KServe and Seldon Core 2.  Run: pytest tests/test_manifests.py"""

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from scratch import ROOT, make_project, run

from deploy.manifests import FOLDER, SETTINGS, manifests, text
from stages.package import MODELS
from stages.params import Params, load_params

SCHEMA = ROOT.parent / "shared/specs/kserve_inferenceservice_v1beta1.schema.json"
CONFIG = json.loads((ROOT / SETTINGS).read_text("utf-8"))
NOW = load_params(ROOT / "params.yaml")


@pytest.fixture
def released() -> Params:
    """As after the release of v2."""
    package = NOW.package.model_copy(update={"version": "v2", "previous": {"v1": "3f2c1ab"}})
    return NOW.model_copy(update={"package": package})


@pytest.fixture(scope="module")
def schema() -> jsonschema_rs.Validator:
    """KServe's of an InferenceService, closed: without it, what is misspelled would pass."""
    if not SCHEMA.exists():
        pytest.skip(f"{SCHEMA}: KServe's schema is not at hand")
    return jsonschema_rs.validator_for(closed(json.loads(SCHEMA.read_text("utf-8"))))


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(inner.get("properties"), dict) and inner.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner


def services(params: Params) -> dict[str, dict[str, Any]]:
    found = [d for documents in manifests(params, CONFIG).values() for d in documents]
    return {d["metadata"]["name"]: d for d in found if d["kind"] == "InferenceService"}


def test_the_committed_ones_are_what_the_params_say():
    expected = {name: text(documents) for name, documents in manifests(NOW, CONFIG).items()}
    folders = [ROOT / FOLDER / "kserve", ROOT / FOLDER / "seldon"]
    committed = {
        f"{folder.name}/{path.name}": path.read_text("utf-8")
        for folder in folders
        for path in folder.iterdir()
    }
    assert committed == expected, "make manifests"


def check(schema: jsonschema_rs.Validator, service: dict[str, Any]) -> list[str]:
    described = {k: v for k, v in service.items() if k != "metadata"}  # Kubernetes' own
    return [error.message for error in schema.iter_errors(described)]


def test_kserve_takes_each_service(schema: jsonschema_rs.Validator, released: Params):
    for params in (NOW, released):
        found = services(params)
        assert set(found) == {*MODELS, "fashion"}
        for name, service in found.items():
            assert check(schema, service) == [], name


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("scaleMetric", "requests", '"requests" is not one of "cpu", "memory"'),
        ("canaryTrafficPercent", "ten", '"ten" is not of type "integer"'),
        ("maxReplica", 4, "maxReplica"),
    ],
)
def test_kserve_refuses_a_broken_one(
    schema: jsonschema_rs.Validator, key: str, value: object, words: str
):
    broken = copy.deepcopy(services(NOW)["fashion-sklearn"])
    broken["spec"]["predictor"][key] = value
    (said,) = check(schema, broken)
    assert words in said


def test_a_first_version_takes_all_requests_and_a_later_one_begins_as_a_canary(released: Params):
    for name in MODELS:
        first = services(NOW)[name]["spec"]["predictor"]
        later = services(released)[name]["spec"]["predictor"]
        assert "canaryTrafficPercent" not in first
        assert later["canaryTrafficPercent"] == NOW.deploy.canary_percent
        assert first["model"]["storageUri"] == f"{NOW.deploy.storage}/models/{name}/v1"
        assert later["model"]["storageUri"] == f"{NOW.deploy.storage}/models/{name}/v2"
    seldon = manifests(released, CONFIG)["seldon/experiments.yaml"]
    (canary,) = [e["spec"] for e in seldon if e["metadata"]["name"] == "fashion-sklearn-canary"]
    assert canary == {
        "default": "fashion-sklearn-v1",
        "candidates": [
            {"name": "fashion-sklearn-v1", "weight": 100 - NOW.deploy.canary_percent},
            {"name": "fashion-sklearn-v2", "weight": NOW.deploy.canary_percent},
        ],
    }


def test_experiments_name_models_that_there_are(released: Params):
    for params in (NOW, released):
        found = [d for documents in manifests(params, CONFIG).values() for d in documents]
        models = {d["metadata"]["name"] for d in found if d["kind"] == "Model"}
        experiments = [d["spec"] for d in found if d["kind"] == "Experiment"]
        assert experiments
        for experiment in experiments:
            candidates = {candidate["name"] for candidate in experiment["candidates"]}
            assert {experiment["default"]} <= candidates <= models
            assert sum(candidate["weight"] for candidate in experiment["candidates"]) == 100


def test_every_service_names_a_runtime_and_a_format_that_there_are():
    (runtime,) = manifests(NOW, CONFIG)["kserve/runtime.yaml"]
    formats = [f["name"] for f in runtime["spec"]["supportedModelFormats"]]
    for service in services(NOW).values():
        model = service["spec"]["predictor"]["model"]
        assert model["runtime"] == runtime["metadata"]["name"]
        assert model["modelFormat"]["name"] in formats
        assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_a_version_that_is_not_packaged_is_told_in_one_line(own_repository: Path, tmp_path: Path):
    project = make_project(tmp_path / "checkout", version="v3")
    command = (sys.executable, "-m", "deploy.manifests")
    said = run(project, *command, expect=1)
    assert said.endswith("serving: no model packaged; package them with: dvc repro\n")
    shutil.copytree(own_repository / "models", project / "serving/models")
    said = run(project, *command, expect=1)
    assert said == (
        "error: params.yaml: package names v3, but packaged is v1; package it with: dvc repro\n"
    )
    assert run(project, "git", "status", "--short") == ""
