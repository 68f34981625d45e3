"""The client over gRPC."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from serving.client.base import PAUSES, RESPONSE_SECONDS, Client, rejection

GRPC_URL = "localhost:8081"


class GrpcClient(Client):
    """Over gRPC; threads may share it. url: as localhost:8081; token, ca: see `connect`."""

    _field = staticmethod(getattr)  # of a protocol buffer

    def __init__(self, url: str = GRPC_URL, token: str = "", ca: str = "") -> None:
        # Not at the top: where MLServer is imported, it has these protocol buffers itself.
        import tritonclient.grpc as triton  # noqa: PLC0415

        direct = [("grpc.enable_http_proxy", 0)]
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._headers = {"authorization": f"Bearer {token}"} if token else None
        connection = triton.InferenceServerClient(
            url.removeprefix("https://").removeprefix("http://"),
            ssl=url.startswith("https://"),
            root_certificates=ca or None,
            channel_args=direct + limits,
        )
        super().__init__(url, triton, connection)

    def ready(self, model: str = "", version: str = "") -> bool:
        if not model:
            return self._call(self._connection.is_server_ready)
        return self._call(self._connection.is_model_ready, model, version)

    def _metadata(self, model: str, version: str) -> dict[str, Any]:
        if not model:
            return self._call(self._connection.get_server_metadata, as_json=True)
        return self._call(self._connection.get_model_metadata, model, version, as_json=True)

    def _index(self) -> list[dict[str, Any]]:
        index = self._call(self._connection.get_model_repository_index, as_json=True)
        return index.get("models", [])

    def _infer(self, model: str, version: str, _: np.ndarray, request: dict[str, Any]) -> Any:
        return self._call(self._connection.infer, model, model_version=version, **request)

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        options |= {"client_timeout": RESPONSE_SECONDS, "headers": self._headers}
        pauses = list(PAUSES)
        while True:
            try:
                return method(*args, **options)
            except InferenceServerException as error:
                status = (error.status() or "").removeprefix("StatusCode.")
                if status != "UNAVAILABLE" or not pauses:
                    raise rejection(self.url, status, error.message() or "") from error
                time.sleep(pauses.pop(0))
