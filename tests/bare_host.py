"""The applications of serving/fashion/inference/ on a host of their own, without MLServer.

Run: python tests/bare_host.py REPOSITORY, with MLServer's variables for its ports.
"""

import asyncio
import json
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import prometheus_client
import uvicorn
from tritonclient.grpc import service_pb2 as pb

from serving.fashion.inference.batching import Batcher
from serving.fashion.inference.errors import RequestError
from serving.fashion.inference.grpc_server import GrpcServers, GrpcService
from serving.fashion.inference.handler import Handler, ServedModel
from serving.fashion.inference.http_protocol import GracefulServer, HttpProtocol
from serving.fashion.inference.limits import Limits
from serving.fashion.inference.metrics import ModelMetrics, add_request
from serving.fashion.inference.rest_app import RestApp
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.predictor import FashionPredictor
from serving.fashion.packaged import MODEL_SETTINGS, Model, models_in

HOST = "127.0.0.1"


class FolderModels:
    """The packaged models of a folder, all of them loaded: see inference.handler.Models."""

    def __init__(self, repository: Path) -> None:
        self._settings: dict[str, dict[str, Any]] = {}
        self._served: dict[str, ServedModel] = {}
        for model in models_in(repository):
            self._load(model)

    def _load(self, model: Model) -> None:
        settings = json.loads((model.path.parent / MODEL_SETTINGS).read_text("utf-8"))
        extra = settings["parameters"]["extra"]
        classifier, names = load_classifier(model.path), extra["class_names"]
        predictor = FashionPredictor(
            classifier, names, extra["max_rows"], model.name, model.version
        )
        limits = Limits(**extra["limits"])
        metrics = ModelMetrics(model.name, model.version)
        batcher = Batcher(
            predictor, metrics.counted(predictor), predictor.max_rows, 0, limits.waiting
        )
        metrics.register(lambda: True, batcher)
        self._settings[model.name] = settings
        self._served[model.name] = ServedModel(
            model.name, model.version, predictor, limits, batcher
        )

    async def are_ready(self) -> bool:
        return True

    async def server_metadata(self) -> dict[str, Any]:
        return {"name": "bare", "version": "1", "extensions": ["binary_tensor_data"]}

    async def index(self, only_ready: bool) -> list[dict[str, Any]]:  # noqa: ARG002
        return [
            {"name": m.name, "version": m.version, "state": "READY", "reason": ""}
            for m in self._served.values()
        ]

    async def find(self, name: str, version: str) -> ServedModel:
        model = self._served.get(name)
        if model is None or version not in ("", model.version):
            named = f"{name} with version {version}" if version else name
            raise RequestError(f"Model {named} not found", HTTPStatus.NOT_FOUND)
        return model

    async def is_ready(self, name: str, version: str) -> bool:
        return bool(await self.find(name, version))

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        await self.find(name, version)
        settings = self._settings[name]
        extra = settings["parameters"]["extra"].items()
        parameters = {k: v if isinstance(v, str | int) else json.dumps(v) for k, v in extra}
        keys = ("name", "versions", "platform", "inputs", "outputs")
        return {key: settings[key] for key in keys} | {"parameters": parameters}

    async def load(self, name: str) -> None:  # noqa: ARG002
        raise RequestError("expected no request to load models", HTTPStatus.FORBIDDEN)

    async def unload(self, name: str) -> None:  # noqa: ARG002
        raise RequestError("expected no request to unload models", HTTPStatus.FORBIDDEN)


async def serve(repository: Path, rest: int, grpc: int) -> None:
    handler = Handler(FolderModels(repository), [add_request])
    options = [("grpc.max_receive_message_length", 64 * 2**20)]
    servers = GrpcServers(GrpcService(handler, pb), f"{HOST}:{grpc}", options=options)
    await servers.start()
    config = uvicorn.Config(
        RestApp(handler), HOST, rest, http=HttpProtocol, ws="none", access_log=False
    )
    await GracefulServer(config).serve()


if __name__ == "__main__":
    assert "mlserver" not in sys.modules
    rest, grpc, metrics = (
        int(os.environ[f"MLSERVER_{name}_PORT"]) for name in ("HTTP", "GRPC", "METRICS")
    )
    prometheus_client.start_http_server(metrics, HOST)
    print(f"Metrics server running on http://{HOST}:{metrics}", flush=True)
    asyncio.run(serve(Path(sys.argv[1]), rest, grpc))
