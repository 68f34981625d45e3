"""The manifests of KServe and Seldon Core 2, rendered by kustomize.

Run: pytest tests/test_manifests.py
"""

import json
import math
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from scratch import ROOT, run
from wire import MODELS

SCHEMA = ROOT / "tests/specs/kserve_inferenceservice_v1beta1.schema.json"
SETTINGS = json.loads((ROOT / "serving/settings.json").read_text("utf-8"))
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text("utf-8")
DEFAULT_PORTS = (
    "from mlserver.settings import Settings; settings = Settings(); "
    "print(settings.http_port, settings.grpc_port, settings.metrics_port)"
)
EACH = ["runtime.yaml", *(f"{model}.yaml" for model in MODELS)]
SELDON = ["server.yaml", "models.yaml", "experiment.yaml"]
VALUES = {
    "image": "newName: ",
    "tag": "newTag: ",
    "storage": "- storage=",
    "version": "- version=",
    "canary": "canaryTrafficPercent, value: ",
    "canary_version": "- canaryVersion=",
    "weight": "candidates/0/weight, value: ",
    "canary_weight": "candidates/1/weight, value: ",
    "most": "maxReplicas, value: ",
}
Manifest = dict[str, Any]

KUBECTL, KUSTOMIZE = ["kubectl", "kustomize"], ["kustomize", "build"]
RENDER = KUBECTL if shutil.which("kubectl") else KUSTOMIZE
if not shutil.which(RENDER[0]):
    pytest.skip(
        "neither kubectl nor kustomize is installed: kubectl is one file, https://kubernetes.io/docs/tasks/tools",
        allow_module_level=True,
    )


def rendered(
    system: str, folder: Path, resources: Iterable[str] = (), **values: object
) -> dict[str, Manifest]:
    """What `kubectl apply -k deploy/SYSTEM` applies, by kind and name.

    resources: those of kustomization.yaml that are not commented out, if not as they are; values:
    of its settings, by their names in VALUES.
    """
    target = Path(shutil.copytree(ROOT / "deploy" / system, folder / system))
    file = target / "kustomization.yaml"
    text = file.read_text("utf-8")
    if resources:
        text = re.sub(r"(?m)^  (?:# )?- ([a-z-]+\.yaml)", r"  # - \1", text)
    for name in resources:
        text = text.replace(f"  # - {name}", f"  - {name}")
    for name, value in values.items():
        text, count = re.subn(rf"({VALUES[name]})[^\s}}]+", rf"\g<1>{value}", text)
        assert count == 1, name
    file.write_text(text, "utf-8")
    output = run(target, *RENDER, ".")
    assert not re.search("STORAGE|VERSION", output)
    return {f"{d['kind']} {d['metadata']['name']}": d for d in yaml.safe_load_all(output)}


@pytest.fixture
def kserve(tmp_path: Path) -> dict[str, Manifest]:
    """Each model as a service, and both in one."""
    return rendered("kserve", tmp_path, [*EACH, "fashion.yaml"])


@pytest.fixture
def seldon(tmp_path: Path) -> dict[str, Manifest]:
    return rendered("seldon", tmp_path)


def container_of(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    (container,) = spec.get("podSpec", spec)["containers"]
    return container


def variables(container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_each_way_of_serving_applies_what_it_needs_and_nothing_else(tmp_path: Path):
    services = {f"InferenceService {model}" for model in MODELS}
    runtime = {"ServingRuntime fashion"}
    assert set(rendered("kserve", tmp_path / "each", EACH)) == runtime | services
    together = rendered("kserve", tmp_path / "together", ["runtime.yaml", "fashion.yaml"])
    assert set(together) == runtime | {"InferenceService fashion"}
    assert set(rendered("seldon", tmp_path, SELDON)) == {
        "Server fashion",
        "Experiment fashion",
        *(f"Model {model}" for model in MODELS),
    }


def test_a_release_on_kserve_changes_one_file(tmp_path: Path):
    found = rendered(
        "kserve",
        tmp_path,
        [*EACH, "fashion.yaml"],
        image="registry.example.com:5000/team/fashion",
        tag="v2",
        storage="gs://bucket/a/b",
        version="v2",
        canary=10,
        most=40,
    )
    image = container_of(found["ServingRuntime fashion"])["image"]
    assert image == "registry.example.com:5000/team/fashion:v2"
    for model in MODELS:
        predictor = found[f"InferenceService {model}"]["spec"]["predictor"]
        assert predictor["model"]["storageUri"] == f"gs://bucket/a/b/models/{model}/v2"
        assert predictor["canaryTrafficPercent"] == 10
        assert predictor["maxReplicas"] == 40
    both = found["InferenceService fashion"]["spec"]["predictor"]
    assert both["model"]["storageUri"] == "gs://bucket/a/b"
    assert both["maxReplicas"] == 40
    assert "canaryTrafficPercent" not in both


def test_a_canary_on_seldon_shares_the_requests_for_the_model(tmp_path: Path):
    found = rendered(
        "seldon",
        tmp_path,
        [*SELDON, "canary.yaml"],
        storage="gs://bucket/a/b",
        version="v1",
        canary_version="v2",
        weight=80,
        canary_weight=20,
        most=40,
    )
    for model in MODELS:
        assert found[f"Experiment {model}-canary"]["spec"] == {
            "default": model,
            "candidates": [
                {"name": model, "weight": 80},
                {"name": f"{model}-canary", "weight": 20},
            ],
        }
        for name, version in ((model, "v1"), (f"{model}-canary", "v2")):
            spec = found[f"Model {name}"]["spec"]
            assert spec["storageUri"] == f"gs://bucket/a/b/models/{model}/{version}"
            assert spec["maxReplicas"] == 40
    experiments = [m["spec"] for name, m in found.items() if name.startswith("Experiment")]
    defaults = [experiment["default"] for experiment in experiments if "default" in experiment]
    assert len(defaults) == len(set(defaults))  # Seldon rejects two experiments on one model
    for experiment in experiments:
        for candidate in experiment["candidates"]:
            assert f"Model {candidate['name']}" in found


def test_the_servers_have_the_settings_of_the_repository_but_that_seldon_may_load(
    kserve: dict[str, Manifest], seldon: dict[str, Manifest]
):
    for manifest, allowed in (
        (kserve["ServingRuntime fashion"], False),
        (seldon["Server fashion"], True),
    ):
        container = container_of(manifest)
        found = variables(container)
        threads = found.pop("OMP_NUM_THREADS")
        assert int(threads) == math.ceil(float(container["resources"]["requests"]["cpu"]))
        settings = SETTINGS | {"model_repository_implementation_args": {"allow_load": allowed}}
        assert {k: v for k, v in found.items() if not k.endswith("_PORT")} == {
            f"MLSERVER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in settings.items()
        }


def test_ports_and_the_user_are_those_of_mlserver_and_the_image(kserve: dict[str, Manifest]):
    runtime = kserve["ServingRuntime fashion"]
    container = container_of(runtime)
    rest, grpc, metrics = run(ROOT, sys.executable, "-c", DEFAULT_PORTS).split()
    assert f"EXPOSE {rest} {grpc} {metrics}\n" in DOCKERFILE
    ports = variables(container)
    http, h2c = int(ports["MLSERVER_HTTP_PORT"]), int(ports["MLSERVER_GRPC_PORT"])
    assert str(http) == rest
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == metrics
    assert container["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": http}
    both = kserve["InferenceService fashion"]["spec"]["predictor"]
    assert both["annotations"]["prometheus.io/port"] == metrics
    assert [port["containerPort"] for port in both["model"]["ports"]] == [http, h2c]
    ready = {"fashion": "/v2/health/ready"} | {m: f"/v2/models/{m}/ready" for m in MODELS}
    for name, path in ready.items():
        model = kserve[f"InferenceService {name}"]["spec"]["predictor"]["model"]
        assert model["readinessProbe"]["httpGet"] == {"path": path, "port": http}
    assert f"USER {container['securityContext']['runAsUser']}:" in DOCKERFILE


def test_nothing_can_be_written_to_but_tmp(
    kserve: dict[str, Manifest], seldon: dict[str, Manifest]
):
    for manifest in (kserve["ServingRuntime fashion"], seldon["Server fashion"]):
        container = container_of(manifest)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def test_every_service_names_a_runtime_and_a_format_that_there_are(
    kserve: dict[str, Manifest], seldon: dict[str, Manifest]
):
    spec = kserve["ServingRuntime fashion"]["spec"]
    services = [m for name, m in kserve.items() if name.startswith("InferenceService")]
    assert len(services) == len(MODELS) + 1
    for service in services:
        model = service["spec"]["predictor"]["model"]
        assert model["runtime"] == "fashion"
        assert model["modelFormat"] in spec["supportedModelFormats"]
        assert model["protocolVersion"] in spec["protocolVersions"]
    for model in MODELS:
        required = seldon[f"Model {model}"]["spec"]["requirements"]
        assert required == seldon["Server fashion"]["spec"]["capabilities"]


@pytest.fixture(scope="module")
def schema() -> jsonschema_rs.Validator:
    """KServe's of an InferenceService, closed: without it, what is misspelled would pass."""
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


def test_each_service_fits_the_schema_of_kserve(
    schema: jsonschema_rs.Validator, kserve: dict[str, Manifest]
):
    for name, manifest in kserve.items():
        if name.startswith("InferenceService"):
            described = {k: v for k, v in manifest.items() if k != "metadata"}  # Kubernetes' own
            assert [error.message for error in schema.iter_errors(described)] == [], name
