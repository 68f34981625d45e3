"""Client of the Open Inference Protocol (V2), over REST or gRPC, with binary tensors.

As a program, too: python -m serving.client --help
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.client.base import Client, Outputs, ResponseError
from serving.client.grpc import GRPC_URL, GrpcClient
from serving.client.rest import DIRECT, REST_URL, RestClient
from serving.fashion.contract import INPUT_NAME

__all__ = [
    "DIRECT",
    "GRPC_URL",
    "REST_URL",
    "Client",
    "GrpcClient",
    "Outputs",
    "ResponseError",
    "RestClient",
    "connect",
    "infer_request",
]


def connect(protocol: str, url: str = "", token: str = "", ca: str = "") -> Client:
    """A client for `rest` or `grpc`.

    url: of the server, "" for this machine's usual one, https://… for one that speaks TLS; token:
    for a server that asks for one; ca: a file of certificates, PEM, that may have signed the
    server's, "" for those that the system trusts.
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
