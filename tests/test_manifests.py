"""The manifests of KServe and Seldon Core 2, rendered by kustomize.

Run: pytest tests/test_manifests.py
"""

import json
import math
import re
import shutil
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
Manifest = dict[str, Any]

KUBECTL, KUSTOMIZE = ["kubectl", "kustomize"], ["kustomize", "build"]
RENDER = KUBECTL if shutil.which("kubectl") else KUSTOMIZE
if not shutil.which(RENDER[0]):
    pytest.skip(
        "neither kubectl nor kustomize is installed: kubectl is one file, https://kubernetes.io/docs/tasks/tools",
        allow_module_level=True,
    )


def rendered(system: str, folder: Path, *changes: tuple[str, str]) -> dict[str, Manifest]:
    """What `kubectl apply -k deploy/SYSTEM` applies, by kind and name.

    changes: of kustomization.yaml, each a pattern of what it has, and what a user puts there.
    """
    target = Path(shutil.copytree(ROOT / "deploy" / system, folder / system))
    text = (target / "kustomization.yaml").read_text("utf-8")
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text)
        assert count == 1, pattern
    (target / "kustomization.yaml").write_text(text, "utf-8")
    output = run(target, *RENDER, ".")
    assert not re.search("STORAGE|VERSION", output)
    return {f"{d['kind']} {d['metadata']['name']}": d for d in yaml.safe_load_all(output)}


def uses(resource: str, is_used: bool = True) -> tuple[str, str]:
    """The change that applies a resource, or not."""
    return rf"(# )?- {resource}\.yaml", f"{'' if is_used else '# '}- {resource}.yaml"


EACH = [uses(model) for model in MODELS]
NOT_EACH = [uses(model, False) for model in MODELS]


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """Each model as a service, and both in one."""
    return rendered("kserve", tmp_path_factory.mktemp("kserve"), *EACH, uses("fashion"))


@pytest.fixture(scope="module")
def seldon(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return rendered("seldon", tmp_path_factory.mktemp("seldon"), uses("canary", False))


def container_of(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]
    (container,) = spec.get("podSpec", spec)["containers"]
    return container


def variables(container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_each_way_of_serving_applies_what_it_needs_and_nothing_else(
    seldon: dict[str, Manifest], tmp_path: Path
):
    each = rendered("kserve", tmp_path / "each", *EACH, uses("fashion", False))
    assert set(each) == {"ServingRuntime fashion", *(f"InferenceService {m}" for m in MODELS)}
    together = rendered("kserve", tmp_path / "together", *NOT_EACH, uses("fashion"))
    assert set(together) == {"ServingRuntime fashion", "InferenceService fashion"}
    assert set(seldon) == {"Server fashion", "Experiment fashion", *(f"Model {m}" for m in MODELS)}


RELEASE = (
    (r"newTag: \S+", "newTag: v2"),
    (r"storage=\S+", "storage=gs://bucket/a/b"),
    (r"maxReplicas, value: \d+", "maxReplicas, value: 40"),
)


def test_a_release_on_kserve_changes_one_file(tmp_path: Path):
    found = rendered(
        "kserve",
        tmp_path,
        *EACH,
        uses("fashion"),
        *RELEASE,
        (r"newName: \S+", "newName: registry.example.com:5000/team/fashion"),
        (r"version=\S+", "version=v2"),
        (r"canaryTrafficPercent, value: \d+", "canaryTrafficPercent, value: 10"),
    )
    image = container_of(found["ServingRuntime fashion"])["image"]
    assert image == "registry.example.com:5000/team/fashion:v2"
    for model in MODELS:
        predictor = found[f"InferenceService {model}"]["spec"]["predictor"]
        assert predictor["model"]["storageUri"] == f"gs://bucket/a/b/models/{model}/v2"
        assert (predictor["canaryTrafficPercent"], predictor["maxReplicas"]) == (10, 40)
    both = found["InferenceService fashion"]["spec"]["predictor"]
    assert (both["model"]["storageUri"], both["maxReplicas"]) == ("gs://bucket/a/b", 40)
    assert "canaryTrafficPercent" not in both


def test_a_canary_on_seldon_shares_the_requests_for_the_model(tmp_path: Path):
    found = rendered(
        "seldon",
        tmp_path,
        uses("canary"),
        *RELEASE,
        (r"version=\S+", "version=v1"),
        (r"canaryVersion=\S+", "canaryVersion=v2"),
        (r"0/weight, value: \d+", "0/weight, value: 80"),
        (r"1/weight, value: \d+", "1/weight, value: 20"),
    )
    for model in MODELS:
        candidates = [{"name": model, "weight": 80}, {"name": f"{model}-canary", "weight": 20}]
        expected = {"default": model, "candidates": candidates}
        assert found[f"Experiment {model}-canary"]["spec"] == expected
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


def test_the_servers_have_the_settings_of_the_repository_and_write_to_tmp_alone(
    kserve: dict[str, Manifest], seldon: dict[str, Manifest]
):
    servers = ((kserve["ServingRuntime fashion"], False), (seldon["Server fashion"], True))
    for manifest, allowed in servers:  # Seldon's agent loads models by request
        container = container_of(manifest)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
        found = variables(container)
        threads = found.pop("OMP_NUM_THREADS")
        assert int(threads) == math.ceil(float(container["resources"]["requests"]["cpu"]))
        settings = SETTINGS | {"model_repository_implementation_args": {"allow_load": allowed}}
        assert {k: v for k, v in found.items() if not k.endswith("_PORT")} == {
            f"MLSERVER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in settings.items()
        }


def test_ports_and_the_user_are_those_of_the_image(kserve: dict[str, Manifest]):
    runtime = kserve["ServingRuntime fashion"]
    container = container_of(runtime)
    ((rest, metrics),) = re.findall(r"EXPOSE (\d+) \d+ (\d+)\n", DOCKERFILE)
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


def test_every_service_names_a_runtime_and_a_format_that_there_are(
    kserve: dict[str, Manifest], seldon: dict[str, Manifest]
):
    spec = kserve["ServingRuntime fashion"]["spec"]
    for name in ("fashion", *MODELS):
        model = kserve[f"InferenceService {name}"]["spec"]["predictor"]["model"]
        assert model["runtime"] == "fashion"
        assert model["modelFormat"] in spec["supportedModelFormats"]
        assert model["protocolVersion"] in spec["protocolVersions"]
    for model in MODELS:
        required = seldon[f"Model {model}"]["spec"]["requirements"]
        assert required == seldon["Server fashion"]["spec"]["capabilities"]


def closed(schema: Any) -> Any:
    """A schema that allows no other keys than it names, so that no misspelled one passes."""
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


def test_each_service_fits_the_schema_of_kserve(kserve: dict[str, Manifest]):
    schema = jsonschema_rs.validator_for(closed(json.loads(SCHEMA.read_text("utf-8"))))
    for name in ("fashion", *MODELS):
        manifest = kserve[f"InferenceService {name}"]
        described = {k: v for k, v in manifest.items() if k != "metadata"}  # Kubernetes' own
        assert [error.message for error in schema.iter_errors(described)] == [], name
