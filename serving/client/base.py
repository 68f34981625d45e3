"""What both protocols offer."""

import struct
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from tritonclient.utils import np_to_triton_dtype

from serving.fashion.contract import INPUT_NAME, PIXELS

Outputs = dict[str, np.ndarray]

RESPONSE_SECONDS = 120.0
PAUSES = 0.2, 0.4  # seconds, before each retry of connecting; a late response is not retried
REJECTIONS = "HTTP 400", "HTTP 413", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
SHOWN = 300  # characters of a response that an error quotes
MALFORMED = AttributeError, LookupError, TypeError, ValueError, struct.error


class ResponseError(RuntimeError):
    """A server rejected a request, or its response does not fit the request."""

    is_rejection = False  # of what the request holds, which another request may do without


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
        """Whether the server, or a model, is ready; one that the server lacks is an error."""

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Metadata of the server, or of a model; its `parameters` over REST alone."""
        metadata = self._metadata(model, version)
        for tensor in [*metadata.get("inputs", []), *metadata.get("outputs", [])]:
            tensor["shape"] = [int(side) for side in tensor.get("shape", [])]  # text over gRPC
        return metadata

    def models(self) -> list[str]:
        """The names of the models in the server's repository, each once."""
        return sorted({model["name"] for model in self._index()})

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
            raise ResponseError(f"{self.url}: not an answer of the protocol: {error!r}") from error
        return arrays

    def _check(self, what: str, actual: object, expected: object) -> None:
        if actual != expected:
            raise ResponseError(f"{self.url}: {what} is {actual!r}, expected {expected!r}")

    @abstractmethod
    def _metadata(self, model: str, version: str) -> dict[str, Any]: ...

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


def rejection(url: str, status: str, message: object) -> ResponseError:
    """The error for a server's own message, in one line."""
    error = ResponseError(f"{url}: {status}: {' '.join(str(message).split())[:SHOWN]}")
    error.is_rejection = status in REJECTIONS
    return error
