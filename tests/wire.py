"""Requests as both protocols carry them, for tests that send what no client would."""

import base64
import binascii
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import grpc
import numpy as np
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import deserialize_bytes_tensor

from serving.client import Outputs
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import models_in
from serving.launch import Server

MODELS = ("fashion-sklearn", "fashion-xgboost")
SECONDS = 60
OK, REJECTED, UNKNOWN = 200, 400, 404
STATUS = {  # of gRPC, as HTTP has it
    grpc.StatusCode.INVALID_ARGUMENT: REJECTED,
    grpc.StatusCode.NOT_FOUND: UNKNOWN,
}
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
TYPES = {"UINT8": "u1", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}

each_model = pytest.mark.parametrize("model", MODELS)
each_protocol = pytest.mark.parametrize("protocol", ["rest", "grpc"])
each_way = pytest.mark.parametrize("protocol", ["rest", "grpc", "raw"])


class Response(NamedTuple):
    """A response. status: of HTTP, or what stands for it; outputs: by name; error: in words."""

    status: int | grpc.StatusCode
    outputs: dict[str, Any]
    error: str


def tensor(data: Any, shape: Any = None, datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    """An input tensor; data: a list, or an array, of which the shape is taken if none is given."""
    shape = list(np.shape(data)) if shape is None else shape
    flat = data.ravel().tolist() if isinstance(data, np.ndarray) else data
    return {"name": "x", "shape": shape, "datatype": datatype, "data": flat} | more


def png(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> str:
    """A picture of these pixels as a file, in base64. mode: of Pillow's, to convert it to."""
    file = BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def body(*inputs: dict[str, Any], outputs: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A request with these tensors, for these outputs."""
    requested = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return {"inputs": list(inputs)} | requested | more


def message(request: dict[str, Any], model: str, version: str = "", raw: bool = False) -> Any:
    """A request of REST as gRPC has it; raw: with the bytes of the tensors, not their values."""
    built = pb.ModelInferRequest(model_name=model, model_version=version, id=request.get("id", ""))
    for name, value in request.get("parameters", {}).items():
        _set(built.parameters[name], value)
    for tensor_ in request["inputs"]:
        datatype, data = tensor_["datatype"], _flat(tensor_["data"])
        input_ = built.inputs.add(name=tensor_["name"], datatype=datatype, shape=tensor_["shape"])
        for name, value in tensor_.get("parameters", {}).items():
            _set(input_.parameters[name], value)
        if datatype == "BYTES":
            data = [_file(item) for item in data]
        if not raw:
            getattr(input_.contents, FIELDS.get(datatype, "fp64_contents")).extend(data)
        elif datatype == "BYTES":
            built.raw_input_contents.append(elements(data))
        else:
            built.raw_input_contents.append(np.array(data, TYPES[datatype]).tobytes())
    for output in request.get("outputs", []):
        built.outputs.add(name=output["name"])
    return built


def _set(parameter: Any, value: Any) -> None:
    kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
    setattr(parameter, kind, value)


def _flat(data: Any) -> list[Any]:
    return [x for item in data for x in _flat(item)] if isinstance(data, list) else [data]


def _file(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()


def open_connection(server: Server) -> socket.socket:
    """A connection to the port of REST."""
    host, port = server.rest.rpartition("/")[2].split(":")
    connection = socket.create_connection((host, int(port)), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_response(file: BinaryIO) -> tuple[int, bytes]:
    """Status and content of the next response on a connection, of which this is the file."""
    status = int(file.readline().split()[1])
    lines = iter(lambda: file.readline().decode().strip().lower(), "")
    fields = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return status, file.read(int(fields["content-length"]))


def head(model: str, length: int | None, more: str = "") -> bytes:
    """The head of a request for a prediction, with a body of a length, or in chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: h\r\n{size}\r\n{more}\r\n".encode()


@contextmanager
def service(server: Server) -> Iterator[GRPCInferenceServiceStub]:
    """The methods of gRPC."""
    with grpc.insecure_channel(server.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        yield GRPCInferenceServiceStub(channel)


def infer_url(server: Server, model: str, version: str = "") -> str:
    path = f"/versions/{version}" if version else ""
    return f"{server.rest}/v2/models/{model}{path}/infer"


def post_raw(
    server: Server, model: str, content: bytes, headers: dict[str, str] | None = None
) -> requests.Response:
    """Send any bytes for a request over REST."""
    url = infer_url(server, model)
    return requests.post(url, content, headers=headers or {}, timeout=SECONDS)


def post(server: Server, model: str, request: Any, version: str = "") -> Response:
    """Send a request over REST."""
    response = requests.post(infer_url(server, model, version), json=request, timeout=SECONDS)
    content = response.json()
    return Response(
        response.status_code,
        {output["name"]: output["data"] for output in content.get("outputs", [])},
        content.get("error", ""),
    )


LENGTH = "Inference-Header-Content-Length"


def post_binary(
    server: Server, model: str, text: Any, raw: bytes = b"", **headers: str | None
) -> requests.Response:
    """Send JSON over REST, and bytes behind it, with a header of its length unless one is given."""
    content = json.dumps(text).encode()
    all_headers = {LENGTH: str(len(content))} | headers
    sent = {name: value for name, value in all_headers.items() if value is not None}
    return post_raw(server, model, content + raw, sent)


def binary(size: int, shape: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    """An input whose data follow as so many bytes."""
    parameters = {"binary_data_size": size} | more
    return {"name": "x", "shape": shape, "datatype": datatype, "parameters": parameters}


def send(server: Server, request: Any) -> Response:
    """Send a message over gRPC."""
    with service(server) as methods:
        try:
            response = methods.ModelInfer(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return Response(STATUS.get(error.code(), error.code()), {}, error.details())
    outputs: dict[str, Any] = {}
    for place, output in enumerate(response.outputs):
        if not response.raw_output_contents:
            values = list(getattr(output.contents, FIELDS[output.datatype]))
        elif output.datatype == "BYTES":
            values = deserialize_bytes_tensor(response.raw_output_contents[place])
        else:
            raw = response.raw_output_contents[place]
            values = np.frombuffer(raw, TYPES[output.datatype]).tolist()
        texts = output.datatype == "BYTES"
        outputs[output.name] = [value.decode() for value in values] if texts else values
    return Response(OK, outputs, "")


def elements(files: list[bytes]) -> bytes:
    """Elements of BYTES as raw contents have them, each after its length."""
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def infer(server: Server, protocol: str, model: str, request: Any, version: str = "") -> Response:
    """Send a request over `rest`, `grpc`, or `raw`, which is gRPC with the tensors' bytes."""
    if protocol == "rest":
        return post(server, model, request, version)
    return send(server, message(request, model, version, raw=protocol == "raw"))


def stream(channel: grpc.Channel) -> grpc.StreamStreamMultiCallable:
    """The streaming method; Triton's own stub differs in what it returns."""
    return channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )


def offline(repository: Path, model: str, images: np.ndarray) -> Outputs:
    """What the packaged files of a model make of images, without a server."""
    (path,) = (found.path for found in models_in(repository) if found.name == model)
    return load_classifier(path).classify(images)


def log_of(server: Server) -> str:
    """What it has printed."""
    return server.log.read_text("utf-8")


def metrics_url(server: Server) -> str:
    (url,) = re.findall(r"Metrics server running on (\S+)", log_of(server))
    return f"{url}/metrics"


def model_ready(server: Server) -> dict[tuple[str, str], float]:
    """Whether each model is ready by the metrics, by its name and version."""
    return {
        (dict(labels)["model"], dict(labels)["version"]): value
        for (name, labels), value in metrics(server).items()
        if name == "fashion_model_ready"
    }


def metrics(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What the server counts, by name and labels."""
    text = requests.get(metrics_url(server), timeout=SECONDS).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
