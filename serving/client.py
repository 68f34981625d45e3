"""Ask a server of the Open Inference Protocol (V2), over REST or gRPC.

As a program, too: python -m serving.client --help
"""

import base64
import runpy
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype
from urllib3.util import Retry

from serving.fashion.contract import INPUT_NAME

Answers = dict[str, np.ndarray]

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 120.0
ATTEMPTS, PAUSE_SECONDS = 3, 0.2  # to connect; an answer that is late is not asked for again
DIRECT = {"http": "", "https": ""}  # a proxy that the environment names is for downloads
SHOWN = 300  # characters of a refusal that an error quotes
REST_URL, GRPC_URL = "http://localhost:8080", "localhost:8081"


class AnswerError(RuntimeError):
    """A server refused a request, or answered something else than was asked."""


def infer_request(
    images: np.ndarray, datatype: str = "UINT8", outputs: Sequence[str] = ()
) -> dict[str, Any]:
    """The JSON body that asks about images.

    images: [n, 784], 0 to 255; datatype: UINT8 for whole numbers, FP32 or FP64 for floats;
    outputs: names of what is asked for, labels alone if there are none.
    """
    tensor = images.astype(np.float64) if datatype.startswith("FP") else images
    body: dict[str, Any] = {
        "inputs": [
            {
                "name": INPUT_NAME,
                "shape": list(images.shape),
                "datatype": datatype,
                "data": tensor.ravel().tolist(),
            }
        ]
    }
    return body | ({"outputs": [{"name": name} for name in outputs]} if outputs else {})


class Client(ABC):
    """What both protocols can ask; url: of the server. Every method raises AnswerError."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the server, or a model, is ready to answer."""

    @abstractmethod
    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """What the server tells of itself, or of a model; its `parameters` over REST alone."""

    @abstractmethod
    def models(self) -> list[str]:
        """The names of the models that the server knows of, each once."""

    def infer(
        self,
        model: str,
        images: np.ndarray | Sequence[bytes],
        outputs: Sequence[str] = (),
        version: str = "",
        invert: bool = False,
    ) -> Answers:
        """What a model answers about images: arrays by output, their first axis the images.

        images: uint8 [n, 784], or PNG or JPEG files; outputs: names, or none for what the model
        gives by itself; invert: the files show dark on bright.
        """
        if not isinstance(images, np.ndarray):
            images = np.array(images, dtype=object)
        parameters = {"invert": True} if invert else {}
        answers = self._infer(model, version, images, outputs, parameters)
        if outputs and list(answers) != list(outputs):
            came = f"answered {', '.join(answers) or 'nothing'}, expected {', '.join(outputs)}"
            raise AnswerError(f"{self.url}: {model}: {came}")
        for name, values in answers.items():
            if len(values) != len(images):
                came = f"answered {len(values):,} rows of {name}, expected {len(images):,}"
                raise AnswerError(f"{self.url}: {model}: {came}")
        return answers

    @abstractmethod
    def _infer(
        self,
        model: str,
        version: str,
        images: np.ndarray,
        outputs: Sequence[str],
        parameters: dict[str, Any],
    ) -> Answers: ...

    def _check(self, facts: dict[str, tuple[Any, Any]]) -> None:
        for what, (came, expected) in facts.items():
            if came != expected:
                raise AnswerError(f"{self.url}: answered {what} {came!r}, expected {expected!r}")


class RestClient(Client):
    """Asks over HTTP. url: as http://localhost:8080."""

    def __init__(self, url: str = REST_URL) -> None:
        super().__init__(url.rstrip("/"))
        self._session = requests.Session()
        self._session.trust_env = False
        retries = Retry(ATTEMPTS - 1, read=0, status=0, other=0, backoff_factor=PAUSE_SECONDS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retries))

    def ready(self, model: str = "", version: str = "") -> bool:
        """As Client has it."""
        path = f"{_path(model, version)}/ready" if model else "/v2/health/ready"
        response = self._ask("GET", path)
        if response.status_code == HTTPStatus.NOT_FOUND:
            self._refused(response)
        return response.ok

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """As Client has it."""
        return self._json("GET", _path(model, version) if model else "/v2")

    def models(self) -> list[str]:
        """As Client has it."""
        return sorted({m["name"] for m in self._json("POST", "/v2/repository/index", json={})})

    def _infer(
        self,
        model: str,
        version: str,
        images: np.ndarray,
        outputs: Sequence[str],
        parameters: dict[str, Any],
    ) -> Answers:
        if images.dtype == object:  # JSON has text only, so files go in base64
            texts = [base64.b64encode(file).decode("ascii") for file in images]
            tensor = {"name": INPUT_NAME, "shape": [len(texts)], "datatype": "BYTES", "data": texts}
            body: dict[str, Any] = {"inputs": [tensor]}
            if outputs:
                body["outputs"] = [{"name": name} for name in outputs]
        else:
            body = infer_request(images, outputs=outputs)
        body |= {"id": str(uuid.uuid4())} | ({"parameters": parameters} if parameters else {})
        said = self._json("POST", f"{_path(model, version)}/infer", json=body)
        try:
            self._check({"model": (said["model_name"], model), "id": (said["id"], body["id"])})
            if version:
                self._check({"version": (said["model_version"], version)})
            return {
                tensor["name"]: np.array(
                    tensor["data"], triton_to_np_dtype(tensor["datatype"])
                ).reshape(tensor["shape"])
                for tensor in said["outputs"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerError(f"{self.url}: not an answer of the protocol: {error!r}") from error

    def _json(self, method: str, path: str, **body: Any) -> Any:
        response = self._ask(method, path, **body)
        if not response.ok:
            self._refused(response)
        try:
            return response.json()
        except requests.JSONDecodeError:
            said = f"expected JSON, got {response.text[:SHOWN]!r}"
            raise AnswerError(f"{self.url}{path}: {said}") from None

    def _refused(self, response: requests.Response) -> NoReturn:
        try:
            said = response.json()["error"]
        except (requests.JSONDecodeError, KeyError, TypeError):
            said = response.text
        text = " ".join(str(said).split())[:SHOWN]
        raise AnswerError(f"{response.url}: HTTP {response.status_code}: {text}")

    def _ask(self, method: str, path: str, **body: Any) -> requests.Response:
        timeout = (CONNECT_SECONDS, ANSWER_SECONDS)
        try:
            return self._session.request(
                method, self.url + path, timeout=timeout, proxies=DIRECT, **body
            )
        except requests.RequestException as error:
            raise AnswerError(f"{self.url}{path}: no answer: {type(error).__name__}") from error


def _path(model: str, version: str) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


class GrpcClient(Client):
    """Asks over gRPC, with raw tensors. url: as localhost:8081."""

    def __init__(self, url: str = GRPC_URL) -> None:
        # Not at the top: where MLServer is imported, it has these protocol buffers itself.
        import tritonclient.grpc as triton  # noqa: PLC0415

        super().__init__(url)
        self._triton = triton
        direct = [("grpc.enable_http_proxy", 0)]
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._client = triton.InferenceServerClient(url, channel_args=direct + limits)

    def ready(self, model: str = "", version: str = "") -> bool:
        """As Client has it."""
        if not model:
            return bool(self._ask(self._client.is_server_ready))
        return bool(self._ask(self._client.is_model_ready, model, version))

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """As Client has it."""
        if not model:
            return self._ask(self._client.get_server_metadata, as_json=True)
        told = self._ask(self._client.get_model_metadata, model, version, as_json=True)
        for tensor in [*told.get("inputs", []), *told.get("outputs", [])]:
            tensor["shape"] = [int(side) for side in tensor.get("shape", [])]  # were text
        return told

    def models(self) -> list[str]:
        """As Client has it."""
        index = self._ask(self._client.get_model_repository_index, as_json=True)
        return sorted({model["name"] for model in index.get("models", [])})

    def _infer(
        self,
        model: str,
        version: str,
        images: np.ndarray,
        outputs: Sequence[str],
        parameters: dict[str, Any],
    ) -> Answers:
        tensor = self._triton.InferInput(INPUT_NAME, images.shape, np_to_triton_dtype(images.dtype))
        tensor.set_data_from_numpy(images)
        wanted = [self._triton.InferRequestedOutput(name) for name in outputs]
        answer = self._ask(
            self._client.infer,
            model,
            [tensor],
            version,
            wanted or None,
            request_id=(asked := str(uuid.uuid4())),
            parameters=parameters or None,
        )
        said = answer.get_response()
        self._check({"model": (said.model_name, model), "id": (said.id, asked)})
        if version:
            self._check({"version": (said.model_version, version)})
        values = {output.name: answer.as_numpy(output.name) for output in said.outputs}
        return {
            name: np.array([text.decode() for text in array.ravel()], object)
            if array.dtype == object
            else array
            for name, array in values.items()
        }

    def _ask(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        for pause in [*(PAUSE_SECONDS * 2**n for n in range(ATTEMPTS - 1)), None]:
            try:
                return method(*args, client_timeout=ANSWER_SECONDS, **options)
            except InferenceServerException as error:
                status = (error.status() or "").removeprefix("StatusCode.")
                if status != "UNAVAILABLE" or pause is None:
                    said = " ".join((error.message() or "").split())[:SHOWN]
                    raise AnswerError(f"{self.url}: {status}: {said}") from error
                time.sleep(pause)
        raise AssertionError("the last attempt neither returned nor raised")


def connect(protocol: str, url: str = "") -> Client:
    """A client for `rest` or `grpc`; url: of the server, if it is not this machine's usual one."""
    if protocol == "grpc":
        return GrpcClient(url or GRPC_URL)
    return RestClient(url or REST_URL)


if __name__ == "__main__":
    runpy.run_module("serving.command", run_name="__main__")
