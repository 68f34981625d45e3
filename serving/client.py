"""Ask a server of the Open Inference Protocol (V2) for labels and probabilities."""

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import requests

from serving.fashion.contract import INPUT_NAME, LABELS, PROBABILITIES

TIMEOUT_SECONDS = (5.0, 120.0)  # to connect, between two bytes of the answer
DIRECT = {"http": "", "https": ""}  # a proxy that the environment names is for downloads
SHOWN = 300  # characters of a refusal that an error quotes


class AnswerError(RuntimeError):
    """A server refused a request, or answered something else than was asked."""


class Answer(NamedTuple):
    """What a model says of n images. labels: int64 [n]; probabilities: float64 [n, classes]."""

    labels: np.ndarray
    probabilities: np.ndarray


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


def infer(url: str, model: str, version: str, images: np.ndarray) -> Answer:
    """Ask a model about images over REST.

    url: the server's, as http://127.0.0.1:8080; images: uint8 [n, 784].
    Raises AnswerError for a refusal, for an answer of another model, version, request, shape or
    type, and for a connection that fails or stays silent.
    """
    request = infer_request(images, outputs=[LABELS, PROBABILITIES]) | {"id": str(uuid.uuid4())}
    address = f"{url}/v2/models/{model}/versions/{version}/infer"
    try:
        response = requests.post(address, json=request, timeout=TIMEOUT_SECONDS, proxies=DIRECT)
        answer = response.json() if response.ok else {}
    except requests.RequestException as error:
        raise AnswerError(f"{address}: no answer: {type(error).__name__}") from error
    if not response.ok:
        said = " ".join(response.text.split())[:SHOWN]
        raise AnswerError(f"{address}: HTTP {response.status_code}: {said}")
    try:
        labels, probabilities = answer["outputs"]
        facts = {
            "model": (answer["model_name"], model),
            "version": (answer["model_version"], version),
            "id": (answer["id"], request["id"]),
            "outputs": (f"{labels['name']}, {probabilities['name']}", f"{LABELS}, {PROBABILITIES}"),
            "datatypes": (f"{labels['datatype']}, {probabilities['datatype']}", "INT64, FP64"),
            "number of labels": (len(labels["data"]), len(images)),
            "number of rows": (labels["shape"][0], len(images)),
            "number of probabilities": (
                len(probabilities["data"]),
                len(images) * probabilities["shape"][1],
            ),
        }
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise AnswerError(f"{address}: not an answer of the protocol: {error!r}") from error
    for what, (came, expected) in facts.items():
        if came != expected:
            raise AnswerError(f"{address}: answered {what} {came!r}, expected {expected!r}")
    return Answer(
        np.array(labels["data"], dtype=np.int64),
        np.array(probabilities["data"], dtype=np.float64).reshape(len(images), -1),
    )
