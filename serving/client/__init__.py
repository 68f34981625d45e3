"""Client of the Open Inference Protocol (V2), over REST or gRPC, with binary tensors.

As a program, too: python -m serving.client --help
"""

import operator
import ssl
import struct
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from urllib3.util import Retry

from serving.fashion.contract import INPUT_NAME, PIXELS

Outputs = dict[str, np.ndarray]

REST_URL, GRPC_URL = "http://localhost:8080", "localhost:8081"
DIRECT = {"http": "", "https": ""}  # a proxy that the environment names is for downloads
CONNECT_SECONDS, RESPONSE_SECONDS = 5.0, 120.0
PAUSES = 0.2, 0.4  # seconds, before each retry of connecting; a late response is not retried
REJECTIONS = "HTTP 400", "HTTP 413", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
SHOWN = 300  # characters of a response that an error quotes
MALFORMED = AttributeError, LookupError, TypeError, ValueError, struct.error
JSON_LENGTH = "Inference-Header-Content-Length"


class ResponseError(RuntimeError):
    """A server rejected a request, or its response does not fit the request."""

    is_rejection = False  # because of the request's content: another request may succeed


class Client(ABC):
    """What both protocols offer; url: of the server. Every method raises ResponseError."""

    _field: Callable[..., Any]  # of a response, by its name

    def __init__(self, url: str, triton: Any, connection: Any) -> None:
        self.url, self._triton, self._connection = url, triton, connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @abstractmethod
    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the server, or a model, is ready; an unknown model is an error."""

    @abstractmethod
    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Metadata of the server, or of a model; its `parameters` over REST alone."""

    def models(self) -> list[str]:
        """The names of the models in the server's repository, each once."""
        return sorted({model["name"] for model in self._index()})

    def reasons(self) -> dict[str, str]:
        """The reasons that the repository's index has for the states of models, by name."""
        return {m["name"]: m["reason"] for m in self._index() if m.get("reason")}

    def image_models(self) -> list[str]:
        """The names of those that declare images as their input; all, where none declares any."""
        names = self.models()
        return [name for name in names if _takes_images(self.metadata(name))] or names

    def infer(
        self,
        model: str,
        images: np.ndarray | Sequence[bytes],
        outputs: Sequence[str] = (),
        version: str = "",
        invert: bool = False,
    ) -> Outputs:
        """A model's outputs for images: arrays by output name, their first axis the images.

        images: uint8 [n, 784], or the files of pictures; outputs: names, or none for the model's
        default; invert: the files show dark on bright.
        """
        if not isinstance(images, np.ndarray):
            images = np.array(images, dtype=object)
        tensor = self._triton.InferInput(INPUT_NAME, images.shape, np_to_triton_dtype(images.dtype))
        request_id = str(uuid.uuid4())
        request = {
            "inputs": [tensor.set_data_from_numpy(images)],
            "outputs": [self._triton.InferRequestedOutput(name) for name in outputs] or None,
            "request_id": request_id,
            "parameters": {"invert": True} if invert else None,
        }
        try:
            result = self._infer(model, version, images, request)
            response, field = result.get_response(), self._field
            self._check("model", field(response, "model_name"), model)
            self._check("id", field(response, "id"), request_id)
            if version:
                self._check("version", field(response, "model_version"), version)
            names = [field(tensor, "name") for tensor in field(response, "outputs")]
            if outputs:
                self._check("outputs", names, list(outputs))
            arrays = {name: _decode(result.as_numpy(name)) for name in names}
            for name, array in arrays.items():
                self._check(f"number of rows of {name}", len(array), len(images))
        except MALFORMED as error:
            raise ResponseError(f"{self.url}: not a response of the protocol: {error!r}") from error
        return arrays

    def _check(self, what: str, actual: object, expected: object) -> None:
        if actual != expected:
            raise ResponseError(f"{self.url}: {what} is {actual!r}, expected {expected!r}")

    @abstractmethod
    def _index(self) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _infer(
        self, model: str, version: str, images: np.ndarray, request: dict[str, Any]
    ) -> Any: ...


def _takes_images(metadata: dict[str, Any]) -> bool:
    return [tensor["shape"][1:] for tensor in metadata.get("inputs", [])] == [[PIXELS]]


def _decode(array: np.ndarray) -> np.ndarray:
    if array.dtype != object:
        return array
    texts = [text.decode() if isinstance(text, bytes) else text for text in array.ravel()]
    return np.array(texts, object).reshape(array.shape)


def tls_mismatch(url: str, error: object) -> str:
    """The message where either the client or the server speaks TLS; "" otherwise."""
    scheme, _, address = url.rpartition("://")
    if "WRONG_VERSION_NUMBER" in str(error):
        return f"{url}: the server speaks no TLS; expected http://{address}"
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError):
        if scheme != "https":
            ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS)
            return f"{url}: the server speaks TLS; expected https://{address}"
    return ""


def rejection(url: str, status: str, message: object) -> ResponseError:
    """The error with a server's message, in one line."""
    error = ResponseError(f"{url}: {status}: {' '.join(str(message).split())[:SHOWN]}")
    error.is_rejection = status in REJECTIONS
    return error


class RestClient(Client):
    """Over HTTP; threads may share it. url: as http://localhost:8080; token, ca: see `connect`.

    tritonclient.http encodes and decodes the bodies, requests sends them: connections of
    tritonclient keep a hub of gevent for each thread, cannot be shared by threads, and do not
    distinguish a timeout of connecting, which may be retried, from that of a response.
    """

    _field = staticmethod(operator.getitem)  # of JSON

    def __init__(self, url: str = REST_URL, token: str = "", ca: str = "") -> None:
        # Not at the top: it imports gevent, which takes long.
        import tritonclient.http as triton  # noqa: PLC0415

        session = requests.Session()
        session.trust_env = False  # no proxy, no password of the environment
        session.verify = ca or True
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        retries = Retry(len(PAUSES), read=0, status=0, other=0, backoff_factor=PAUSES[0])
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        super().__init__(url.rstrip("/"), triton, session)

    def ready(self, model: str = "", version: str = "") -> bool:
        path = f"{_path(model, version)}/ready" if model else "/v2/health/ready"
        response = self._send("GET", path)
        if response.status_code == HTTPStatus.NOT_FOUND:
            _check_status(response)
        return response.ok

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        return _parse(self._send("GET", _path(model, version) if model else "/v2"))

    def _index(self) -> list[dict[str, Any]]:
        return _parse(self._send("POST", "/v2/repository/index", json={}))

    def _infer(self, model: str, version: str, images: np.ndarray, request: dict[str, Any]) -> Any:
        client, path = self._triton.InferenceServerClient, f"{_path(model, version)}/infer"
        body, length = client.generate_request_body(**request)
        response = self._send("POST", path, data=body, headers={JSON_LENGTH: str(length)})
        if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and images.dtype != object:
            # A server without the protocol's binary tensor extension, such as MLServer alone.
            request["inputs"][0].set_data_from_numpy(images, binary_data=False)
            response = self._send("POST", path, data=client.generate_request_body(**request)[0])
        length = response.headers.get(JSON_LENGTH)
        return _parse(
            response, lambda r: client.parse_response_body(r.content, header_length=length)
        )

    def _send(self, method: str, path: str, **body: Any) -> requests.Response:
        timeout = (CONNECT_SECONDS, RESPONSE_SECONDS)
        try:
            return self._connection.request(method, self.url + path, timeout=timeout, **body)
        except requests.exceptions.SSLError as error:
            why = "expected TLS and a certificate that is trusted, got another; name those that may"
            message = f"{self.url}: {why} have signed it: --ca"
            raise ResponseError(tls_mismatch(self.url, error) or message) from error
        except requests.exceptions.InvalidSchema as error:
            why = "expected a URL like http://localhost:8080"
            raise ResponseError(f"{self.url}: {why}") from error
        except requests.RequestException as error:
            message = f"{self.url}{path}: no response: {type(error).__name__}"
            raise ResponseError(tls_mismatch(self.url, error) or message) from error


def _path(model: str, version: str) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def _check_status(response: requests.Response) -> None:
    if response.ok:
        return
    try:
        text = response.json()["error"]
    except (requests.JSONDecodeError, KeyError, TypeError):
        text = response.text
    raise rejection(response.url, f"HTTP {response.status_code}", text)


def _parse(response: requests.Response, parse: Callable[..., Any] = requests.Response.json) -> Any:
    _check_status(response)
    try:
        return parse(response)
    except ValueError:
        text = response.content[:SHOWN].decode(errors="replace")
        raise ResponseError(f"{response.url}: expected JSON, got {text!r}") from None


class GrpcClient(Client):
    """Over gRPC; threads may share it. url: as localhost:8081; token, ca: see `connect`."""

    _field = staticmethod(getattr)  # of a protocol buffer

    def __init__(self, url: str = GRPC_URL, token: str = "", ca: str = "") -> None:
        # Not at the top: MLServer, where it is imported, registers the same protocol buffers.
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

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        if not model:
            return self._call(self._connection.get_server_metadata, as_json=True)
        metadata = self._call(self._connection.get_model_metadata, model, version, as_json=True)
        for tensor in [*metadata.get("inputs", []), *metadata.get("outputs", [])]:
            tensor["shape"] = [int(side) for side in tensor.get("shape", [])]  # text in this JSON
        return metadata

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
                unconnected = "failed to connect" in str(error)
                if unconnected and (message := tls_mismatch(self.url, error)):
                    raise ResponseError(message) from error
                if status != "UNAVAILABLE" or not pauses:
                    raise rejection(self.url, status, error.message() or "") from error
                time.sleep(pauses.pop(0))


def connect(protocol: str, url: str = "", token: str = "", ca: str = "") -> Client:
    """A client for `rest` or `grpc`.

    url: of the server, "" for the default port of this machine, https://… for TLS; token: for a
    server that requires one; ca: a file of trusted certificates, PEM, "" for the system's.
    """
    if protocol == "grpc":
        return GrpcClient(url or GRPC_URL, token, ca)
    return RestClient(url or REST_URL, token, ca)


def infer_request(
    images: np.ndarray, datatype: str = "UINT8", outputs: Sequence[str] = ()
) -> dict[str, Any]:
    """The JSON body of an inference request.

    images: [n, 784], 0 to 255; datatype: UINT8 for whole numbers, FP32 or FP64 for floats;
    outputs: names of the requested outputs, labels alone if there are none.
    """
    tensor = {"name": INPUT_NAME, "shape": list(images.shape), "datatype": datatype}
    data = images.astype(np.float64) if datatype.startswith("FP") else images
    requested = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return {"inputs": [tensor | {"data": data.ravel().tolist()}]} | requested
