"""Requests as both protocols carry them, for tests that send what no client would."""

import base64
import binascii
from io import BytesIO
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from serving.launch import Server

MODELS = ("fashion-sklearn", "fashion-xgboost")
SECONDS = 60
OK, REFUSED, UNKNOWN = 200, 400, 404
STATUS = {  # of gRPC, as HTTP has it
    grpc.StatusCode.INVALID_ARGUMENT: REFUSED,
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


class Said(NamedTuple):
    """An answer. status: of HTTP, or what stands for it; outputs: by name; error: in words."""

    status: int | grpc.StatusCode
    outputs: dict[str, Any]
    error: str


def tensor(data: Any, shape: Any = None, datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    """An input tensor; data: a list, or an array, of which the shape is taken if none is given."""
    shape = list(np.shape(data)) if shape is None else shape
    flat = data.ravel().tolist() if isinstance(data, np.ndarray) else data
    return {"name": "x", "shape": shape, "datatype": datatype, "data": flat} | more


def png(pixels: np.ndarray, kind: str = "PNG", **more: Any) -> str:
    """A picture of these pixels as a file, in base64."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return base64.b64encode(file.getvalue()).decode()


def body(*inputs: dict[str, Any], outputs: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A request with these tensors, asking for these outputs."""
    asked = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return {"inputs": list(inputs)} | asked | more


def message(request: dict[str, Any], model: str, version: str = "", raw: bool = False) -> Any:
    """A request of REST as gRPC has it; raw: with the tensors' bytes rather than their values."""
    built = pb.ModelInferRequest(model_name=model, model_version=version, id=request.get("id", ""))
    for name, value in request.get("parameters", {}).items():
        _set(built.parameters[name], value)
    for given in request["inputs"]:
        one = built.inputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
        for name, value in given.get("parameters", {}).items():
            _set(one.parameters[name], value)
        data = _flat(given["data"])
        if given["datatype"] == "BYTES":
            data = [_file(item) for item in data]
        if not raw:
            getattr(one.contents, FIELDS.get(given["datatype"], "fp64_contents")).extend(data)
        elif given["datatype"] == "BYTES":
            built.raw_input_contents.append(
                b"".join(len(item).to_bytes(4, "little") + item for item in data)
            )
        else:
            built.raw_input_contents.append(np.array(data, TYPES[given["datatype"]]).tobytes())
    for wanted in request.get("outputs", []):
        built.outputs.add(name=wanted["name"])
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


def post(server: Server, model: str, request: Any, version: str = "") -> Said:
    """Ask over REST."""
    path = f"/versions/{version}" if version else ""
    address = f"{server.rest}/v2/models/{model}{path}/infer"
    answer = requests.post(address, json=request, timeout=SECONDS)
    said = answer.json()
    return Said(
        answer.status_code,
        {output["name"]: output["data"] for output in said.get("outputs", [])},
        said.get("error", ""),
    )


def send(server: Server, request: Any) -> Said:
    """Ask over gRPC with a message."""
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, unlimited) as channel:
        try:
            answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return Said(STATUS.get(error.code(), error.code()), {}, error.details())
    outputs: dict[str, Any] = {}
    for place, output in enumerate(answer.outputs):
        if not answer.raw_output_contents:
            values = list(getattr(output.contents, FIELDS[output.datatype]))
        elif output.datatype == "BYTES":
            values = _elements(answer.raw_output_contents[place])
        else:
            raw = answer.raw_output_contents[place]
            values = np.frombuffer(raw, TYPES[output.datatype]).tolist()
        texts = output.datatype == "BYTES"
        outputs[output.name] = [value.decode() for value in values] if texts else values
    return Said(OK, outputs, "")


def _elements(raw: bytes) -> list[bytes]:
    found, start = [], 0
    while start < len(raw):
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        found.append(raw[start + 4 : end])
        start = end
    return found


def ask(server: Server, protocol: str, model: str, request: Any, version: str = "") -> Said:
    """Ask over `rest`, `grpc`, or `raw`, which is gRPC with the tensors' bytes."""
    if protocol == "rest":
        return post(server, model, request, version)
    return send(server, message(request, model, version, raw=protocol == "raw"))


def metrics(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What the server counts, by name and labels."""
    lines = server.log.read_text("utf-8").splitlines()
    (url,) = (line.split()[-1] for line in lines if "Metrics server running on" in line)
    text = requests.get(f"{url}/metrics", timeout=SECONDS).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
