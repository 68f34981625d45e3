"""gRPC messages: ModelInferRequest to requests, responses to ModelInferResponse.

The caller, which has the protocol buffers, passes the messages; here their fields are read and
set. Tensors are raw, or lists in a field for each datatype; a response's are as its request's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .errors import RequestError, quote
from .messages import InferRequest, InferResponse, RequestedOutput, Tensor
from .tensors import as_list, raw_bytes

# The protocol's field of InferTensorContents for each datatype; FP16 is raw alone.
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **{kind: f"{kind.lower()}_contents" for kind in ("UINT64", "INT64", "FP32", "FP64", "BYTES")},
}

PARAMETERS = {bool: "bool_param", int: "int64_param"}  # others are sent as text


def read_request(message: Any, headers: Callable[[], dict[str, str]]) -> InferRequest:
    """The request that a ModelInferRequest holds. Raises RequestError."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            f"expected as many raw contents as inputs, {len(message.inputs)}, got {len(raw)}"
        )
    tensors = [
        Tensor(
            tensor.name,
            tensor.shape,
            tensor.datatype,
            raw[index] if raw else _read_contents(tensor),
            _parameters(tensor.parameters),
        )
        for index, tensor in enumerate(message.inputs)
    ]
    binary = bool(raw)
    outputs = [RequestedOutput(output.name, binary) for output in message.outputs]
    parameters = _parameters(message.parameters)
    return InferRequest(message.id or None, tensors, outputs, parameters, binary, headers)


def _read_contents(tensor: Any) -> list[Any]:
    """The values of the field that has some. Raises RequestError if two have."""
    filled = tensor.contents.ListFields()
    field = FIELDS.get(tensor.datatype, "raw_input_contents")
    if len(filled) > 1 or (not filled and 0 not in tensor.shape):
        names = " and ".join(descriptor.name for descriptor, _ in filled)
        expected = f"values of {quote(tensor.datatype)} in {field}"
        raise RequestError(f"expected {expected}, got {names or 'none'}")
    return list(filled[0][1]) if filled else []


def _parameters(fields: Any) -> dict[str, Any]:
    if not fields:
        return {}
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in fields.items()}
    return {name: getattr(fields[name], kind) for name, kind in chosen.items() if kind}


def write_response(response: InferResponse, message: Any) -> Any:
    """Fill a ModelInferResponse, and return it."""
    message.model_name, message.model_version = response.model, response.version
    message.id = response.id
    _write_parameters(response.parameters, message.parameters)
    for output in response.outputs:
        values = output.values
        tensor = message.outputs.add(name=output.name, shape=values.shape, datatype=output.datatype)
        _write_parameters(output.parameters, tensor.parameters)
        if not output.binary and output.datatype not in FIELDS:
            raise RequestError(f"expected raw contents for outputs of {output.datatype}, got lists")
        if output.binary:
            message.raw_output_contents.append(raw_bytes(values))
        else:
            getattr(tensor.contents, FIELDS[output.datatype]).extend(as_list(values))
    return message


def _write_parameters(parameters: Mapping[str, Any], fields: Any) -> None:
    for name, value in parameters.items():
        kind = PARAMETERS.get(type(value), "string_param")
        setattr(fields[name], kind, value if kind != "string_param" else str(value))


def write_metadata(metadata: dict[str, Any], message: Any) -> Any:
    """Fill a ModelMetadataResponse, and return it."""
    message.name, message.platform = metadata["name"], metadata.get("platform", "")
    message.versions.extend(metadata.get("versions", []))
    for kind in ("inputs", "outputs"):
        for tensor in metadata.get(kind, []):
            getattr(message, kind).add(
                name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
            )
    if "parameters" in message.DESCRIPTOR.fields_by_name:  # not in Triton's
        _write_parameters(metadata.get("parameters", {}), message.parameters)
    return message
