"""Write the manifests of KServe and of Seldon Core 2, out of params.yaml and settings.json.

KServe's are described in its API reference (serving.kserve.io), Seldon's in the custom resource
definitions of Seldon Core 2 (mlops.seldon.io); deploy/README.md says what each of these is for.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.image import check_packaged, reference
from stages.atomic import replacing
from stages.errors import run
from stages.package import MODELS
from stages.params import Params, load_params

SETTINGS = Path("serving/settings.json")
FOLDER = Path("deploy")
HEADER = "# Made by `make manifests` out of params.yaml and serving/settings.json: change those.\n"
SERVICE = "fashion"  # of both models, and what the runtime and the server of them are called
FORMAT = "fashion-mnist"
USER = 65532  # the image's
HTTP, GRPC, METRICS = 8080, 9000, 8082  # where KServe expects the first two
CPU_PERCENT = 70  # of the cores asked for, above which another replica of both models starts
MODEL_MEMORY = "128Mi"  # what one more model takes in a server, measured: 85 to 98 MB
SCRAPE = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": str(METRICS),
    "prometheus.io/path": "/metrics",
}
TEMPORARY = [{"name": "tmp", "emptyDir": {}}]  # all that a server writes to
Manifest = dict[str, Any]


def manifests(params: Params, settings: Mapping[str, Any]) -> dict[str, list[Manifest]]:
    """All manifests, by file below deploy/.

    settings: what serving/settings.json says, for servers that are started elsewhere.
    """
    files = {
        "kserve/runtime.yaml": [serving_runtime(params, settings)],
        "kserve/fashion.yaml": [both_models(params)],
        "seldon/server.yaml": [seldon_server(params, settings)],
        "seldon/experiments.yaml": experiments(params),
    }
    for name in MODELS:
        files[f"kserve/{name}.yaml"] = [one_model(name, params)]
        files[f"seldon/{name}.yaml"] = [seldon_model(name, v, params) for v in versions(params)]
    return files


def versions(params: Params) -> list[str]:
    """All that are packaged, the newest last."""
    return [*params.package.previous, params.package.version]


def serving_runtime(params: Params, settings: Mapping[str, Any]) -> Manifest:
    """How KServe runs the image on a folder that it has fetched."""
    ports = {"MLSERVER_HTTP_PORT": str(HTTP), "MLSERVER_GRPC_PORT": str(GRPC)}
    container = _container(params, ports | _env(settings))
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        # server-type: has KServe say to MLServer what it says to its own runtime of it.
        "metadata": {"name": SERVICE, "annotations": {"serving.kserve.io/server-type": "mlserver"}},
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": str(METRICS),
                "prometheus.kserve.io/path": "/metrics",
            },
            "supportedModelFormats": [{"name": FORMAT, "version": "1"}],
            "protocolVersions": ["v2", "grpc-v2"],
            "containers": [
                {"name": "kserve-container"}
                | container
                | {
                    "args": ["mlserver", "start", "/mnt/models"],
                    "livenessProbe": _http_probe("/v2/health/live") | {"initialDelaySeconds": 30},
                }
            ],
            "volumes": TEMPORARY,
        },
    }


def one_model(name: str, params: Params) -> Manifest:
    """A model as a service of its own, scaled by its requests; a new version begins as a canary."""
    newest = versions(params)[-1]
    canary = {"canaryTrafficPercent": params.deploy.canary_percent}
    return _inference_service(
        name,
        {
            "serving.kserve.io/deploymentMode": "Knative",
            "serving.kserve.io/enable-prometheus-scraping": "true",
            "serving.kserve.io/enable-metric-aggregation": "true",
        },
        _scaled(params, "rps", params.deploy.requests_per_second)
        | (canary if params.package.previous else {}),
        {
            "storageUri": f"{params.deploy.storage}/models/{name}/{newest}",
            "readinessProbe": _http_probe(f"/v2/models/{name}/ready"),
        },
    )


def both_models(params: Params) -> Manifest:
    """The whole repository as one service, REST and gRPC, scaled by its use of processors."""
    command = ["python", "-m", "serving.health", "/mnt/models"]
    health = {"exec": {"command": command}, "periodSeconds": 10, "timeoutSeconds": 5}
    return _inference_service(
        SERVICE,
        {"serving.kserve.io/deploymentMode": "Standard"},
        _scaled(params, "cpu", CPU_PERCENT) | {"annotations": SCRAPE},
        {
            "storageUri": params.deploy.storage,
            "readinessProbe": health,
            "ports": [
                {"name": "http1", "containerPort": HTTP, "protocol": "TCP"},
                {"name": "h2c", "containerPort": GRPC, "protocol": "TCP"},
            ],
        },
    )


def seldon_server(params: Params, settings: Mapping[str, Any]) -> Manifest:
    """A server for Seldon's agent to load models into; nobody else reaches it, so it may."""
    allowed = {"model_repository_implementation_args": {"allow_load": True}}
    container = _container(params, _env({**settings, **allowed}))
    return {
        "apiVersion": "mlops.seldon.io/v1alpha1",
        "kind": "Server",
        "metadata": {"name": SERVICE},
        "spec": {
            "serverConfig": "mlserver",
            "capabilities": [FORMAT],
            **_between(params),
            "podSpec": {
                "containers": [
                    {"name": "mlserver"}
                    | container
                    | {"args": ["mlserver", "start", "/mnt/agent/models"]}
                ],
                "volumes": TEMPORARY,
            },
        },
    }


def seldon_model(name: str, version: str, params: Params) -> Manifest:
    """A version of a model, as Seldon knows them: each by a name of its own."""
    return {
        "apiVersion": "mlops.seldon.io/v1alpha1",
        "kind": "Model",
        "metadata": {"name": f"{name}-{version}"},
        "spec": {
            "storageUri": f"{params.deploy.storage}/models/{name}/{version}",
            "requirements": [FORMAT],
            "memory": MODEL_MEMORY,
            **_between(params),
        },
    }


def experiments(params: Params) -> list[Manifest]:
    """The two models beside each other and, once there is a version before, each model's canary."""
    *earlier, newest = versions(params)
    first, second = (f"{name}-{newest}" for name in MODELS)
    found = [_experiment(SERVICE, first, second, 50)]
    for name in MODELS if earlier else ():
        current, new = f"{name}-{earlier[-1]}", f"{name}-{newest}"
        found.append(_experiment(f"{name}-canary", current, new, params.deploy.canary_percent))
    return found


def _experiment(name: str, current: str, other: str, percent: int) -> Manifest:
    return {
        "apiVersion": "mlops.seldon.io/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "default": current,
            "candidates": [
                {"name": current, "weight": 100 - percent},
                {"name": other, "weight": percent},
            ],
        },
    }


def _inference_service(
    name: str, annotations: Manifest, predictor: Manifest, model: Manifest
) -> Manifest:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "predictor": predictor
            | {
                "model": {
                    "modelFormat": {"name": FORMAT, "version": "1"},
                    "runtime": SERVICE,
                    "protocolVersion": "v2",
                    **model,
                }
            }
        },
    }


def _container(params: Params, variables: Mapping[str, object]) -> Manifest:
    """What every container of the image has. Without a limit of cores, libraries need telling."""
    threads = {"OMP_NUM_THREADS": math.ceil(params.deploy.cpu)}
    requested, limit = params.deploy.memory
    return {
        "image": reference(params),
        "env": [{"name": name, "value": str(v)} for name, v in {**variables, **threads}.items()],
        "resources": {
            "requests": {"cpu": f"{params.deploy.cpu:g}", "memory": requested},
            "limits": {"memory": limit},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _env(settings: Mapping[str, Any]) -> dict[str, str]:
    """What settings.json says, as variables, for a server that starts on another folder."""
    return {
        f"MLSERVER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }


def _scaled(params: Params, metric: str, target: int) -> Manifest:
    return _between(params) | {"scaleMetric": metric, "scaleTarget": target}


def _between(params: Params) -> Manifest:
    fewest, most = params.deploy.replicas
    return {"minReplicas": fewest, "maxReplicas": most}


def _http_probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": HTTP}, "periodSeconds": 10, "timeoutSeconds": 5}


def text(documents: list[Manifest]) -> str:
    """As YAML, with a line that says where it comes from."""
    return HEADER + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes what is there twice twice, where PyYAML would refer to it."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def write(folder: Path, files: Mapping[str, list[Manifest]]) -> None:
    """Write all manifests below a folder, each file whole or not at all."""
    for name, documents in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with replacing(folder / name) as part:
            part.write_text(text(documents), encoding="utf-8")


def main() -> None:
    params = load_params()
    check_packaged(params)
    files = manifests(params, json.loads(SETTINGS.read_text(encoding="utf-8")))
    write(FOLDER, files)
    print(f"{FOLDER}: {', '.join(files)}, of {', '.join(versions(params))}")


if __name__ == "__main__":
    run(main)
