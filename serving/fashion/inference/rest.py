"""REST bodies: JSON, with the binary tensor extension, to requests and from responses.

Source of the extension: Open Inference Protocol, "Binary data extension": the JSON comes first, its
length in a header; the raw tensors follow, an input's length in its parameter `binary_data_size`.
"""

import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
import orjson
import simdjson

from .errors import RequestError, quote
from .messages import InferRequest, InferResponse, OutputTensor, RequestedOutput, Tensor, read_flag
from .tensors import BYTES, as_list, raw_bytes

JSON, BINARY = "application/json", "application/octet-stream"
JSON_LENGTH = "inference-header-content-length"
SIZE, AS_BINARY, ALL_AS_BINARY = "binary_data_size", "binary_data", "binary_data_output"
LINE_END = b"\r\n"  # after JSON, for terminals
INTEGERS = {"INT64": ("i", "i8"), "UINT64": ("u", "u8")}  # float64 would round them
NESTED = re.compile(rb"\[")
INFLATE_ANY = 47  # of zlib: gzip or zlib, whichever its header names


def accepts_gzip(fields: str) -> bool:
    """Whether an Accept-Encoding field takes gzip. Source: RFC 9110, 12.5.3."""
    weights = {}
    for item in fields.lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def inflate(body: bytes | bytearray, encoding: str, max_bytes: int) -> bytes:
    """A body without its Content-Encoding. Raises RequestError, 413 beyond max_bytes."""
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        raise RequestError(
            f"expected Content-Encoding gzip, deflate or none, got {quote(encoding)}",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )
    stream = zlib.decompressobj(INFLATE_ANY)
    try:
        plain = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"expected a body in {encoding}, got an error: {error}") from None
    if len(plain) > max_bytes:
        raise RequestError(
            f"expected a body of at most {max_bytes:,} bytes, got more within {encoding}",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        )
    if not stream.eof:
        raise RequestError(f"expected a body in {encoding}, got one that is cut off")
    return plain


NO_DATA, NONE = msgspec.Raw(), (msgspec.Raw(), msgspec.Raw(b"null"))


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = NO_DATA
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input] = []
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


DECODER = msgspec.json.Decoder(_Request)


def read_request(
    body: bytes | bytearray, json_length: str | None, headers: Callable[[], dict[str, str]]
) -> InferRequest:
    """The request in a body. json_length: the header. Raises RequestError."""
    text, raw = _split(body, json_length)
    if not text:
        raise RequestError("expected a body in JSON, got none")
    if text[: len(BOM_UTF8)] == BOM_UTF8:
        raise RequestError("expected a body in JSON, got a byte order mark before it")
    content = _decode(DECODER.decode, text)
    parameters = content.parameters or {}
    binary = read_flag(parameters, ALL_AS_BINARY)
    inputs = []
    for index, tensor in enumerate(content.inputs):
        tensor_parameters = tensor.parameters or {}
        if SIZE in tensor_parameters:
            data, raw = _split_binary(raw, tensor_parameters[SIZE], tensor.data, index)
        elif tensor.data in NONE:
            raise RequestError(f"expected inputs[{index}].data, got none")
        else:
            data = _values(tensor.data, tensor.datatype)
        inputs.append(Tensor(tensor.name, tensor.shape, tensor.datatype, data, tensor_parameters))
    if raw:
        raise RequestError(
            f"expected as many bytes after the JSON as {SIZE} adds up to, got {len(raw):,} more"
        )
    outputs = [
        RequestedOutput(output.name, read_flag(output.parameters or {}, AS_BINARY, binary))
        for output in content.outputs or ()
    ]
    return InferRequest(content.id, inputs, outputs, parameters, binary, headers)


def _decode(decode: Callable[[Any], Any], text: Any) -> Any:
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise RequestError(f"expected a request of the protocol, got another: {error}") from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RequestError(f"expected a body in JSON, got an error: {error}") from None


def _split(
    body: bytes | bytearray, json_length: str | None
) -> tuple[memoryview, memoryview | None]:
    whole = memoryview(body)
    if json_length is None:
        return whole, None
    length = int(json_length) if json_length.isascii() and json_length.isdecimal() else 0
    if not 1 <= length <= len(body):
        raise RequestError(
            f"expected Inference-Header-Content-Length from 1 to {len(body):,}, the length of "
            f"the body, got {quote(json_length)}"
        )
    return whole[:length], whole[length:]


def _split_binary(
    raw: memoryview | None, size: Any, data: msgspec.Raw, index: int
) -> tuple[memoryview, memoryview]:
    """The first bytes of those after the JSON, and the rest."""
    if type(size) is not int or size < 0:
        raise RequestError(f"expected parameter {SIZE} as a number of bytes, got {quote(size)}")
    if raw is None:
        raise RequestError(
            f"expected the header Inference-Header-Content-Length with {SIZE}, got none"
        )
    if data not in NONE:
        raise RequestError(f"expected inputs[{index}].data or its parameter {SIZE}, got both")
    if size > len(raw):
        raise RequestError(f"expected {size:,} bytes of {SIZE} after the JSON, got {len(raw):,}")
    return raw[:size], raw[size:]


def _values(data: msgspec.Raw, datatype: str) -> Any:
    """An array [k] if the JSON is one list of numbers, else Python objects."""
    if datatype != BYTES and not NESTED.search(data, 1):
        kind, dtype = INTEGERS.get(datatype, ("d", "f8"))
        try:
            array: Any = simdjson.Parser().parse(memoryview(data))
            return np.frombuffer(array.as_buffer(of_type=kind), dtype)
        except (ValueError, TypeError, RuntimeError, AttributeError):  # not only numbers
            pass
    return _decode(msgspec.json.decode, data)


def write_response(response: InferResponse) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON if raw tensors follow."""
    raw = [raw_bytes(output.values) if output.binary else None for output in response.outputs]
    content = {
        "model_name": response.model,
        **({"model_version": response.version} if response.version else {}),
        "id": response.id,
        "parameters": response.parameters,
        "outputs": list(map(_written, response.outputs, raw)),
    }
    text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    binary = [data for data in raw if data is not None]
    return (b"".join([text, *binary]), len(text)) if binary else (text + LINE_END, None)


def _written(output: OutputTensor, raw: bytes | None) -> dict[str, Any]:
    name, datatype, values, _, parameters = output
    tensor: dict[str, Any] = {"name": name, "shape": values.shape, "datatype": datatype}
    if raw is not None:
        return tensor | {"parameters": {SIZE: len(raw)}}
    if parameters:
        tensor["parameters"] = parameters
    tensor["data"] = _as_text(output) if values.dtype.kind in "UO" else values.ravel()
    return tensor


def _as_text(output: OutputTensor) -> list[str]:
    try:
        return [text.decode() for text in as_list(output.values)]
    except UnicodeDecodeError:
        raise RequestError(
            f"expected parameter {AS_BINARY} for output {output.name}, which is not text"
        ) from None
