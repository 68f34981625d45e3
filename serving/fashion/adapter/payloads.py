"""Requests and responses in MLServer's types, for what its runtimes predict."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlserver.settings import ModelSettings
from mlserver.types import Datatype, InferenceRequest, InferenceResponse, Parameters, ResponseOutput

from ..inference.errors import RequestError
from ..inference.messages import InferRequest, OutputTensor, RequestedOutput, Tensor
from ..inference.predictor import Encoded
from ..inference.tensors import (
    BYTES,
    DTYPES,
    TensorSpec,
    as_list,
    match_inputs,
    read_elements,
    read_tensor,
)


def check_inputs(request: InferRequest, settings: ModelSettings) -> InferRequest:
    """A request with tensors as the model declares them, if it does. Raises RequestError."""
    if not settings.inputs:
        return request
    declared = [
        TensorSpec(tensor.name, Datatype(tensor.datatype).value, tuple(tensor.shape))
        for tensor in settings.inputs
    ]
    matched = match_inputs(request.inputs, declared)
    inputs = []
    for tensor, spec in zip(request.inputs, matched, strict=True):
        values = read_tensor(tensor, spec)
        inputs.append(tensor._replace(shape=values.shape, datatype=spec.datatype, data=values))
    return request._replace(inputs=inputs)


def to_payload(request: InferRequest) -> InferenceRequest:
    """A request as MLServer's runtimes take it, its numbers in lists. Raises RequestError."""
    headers = request.headers()
    parameters = request.parameters | ({"headers": headers} if headers else {})
    try:
        return InferenceRequest.model_validate(
            {
                "id": request.id,
                "parameters": parameters or None,
                "inputs": [_to_input(tensor) for tensor in request.inputs],
                "outputs": [{"name": output.name} for output in request.outputs] or None,
            }
        )
    except ValueError as error:  # of pydantic's
        raise RequestError(f"expected a request of the protocol, got another: {error}") from None


def _to_input(tensor: Tensor) -> dict[str, Any]:
    data = tensor.data
    if tensor.datatype == BYTES:
        data = read_elements(data.ravel().tolist() if isinstance(data, np.ndarray) else data)
    elif not isinstance(data, list):
        data = read_tensor(tensor).ravel().tolist()
    parameters = tensor.parameters or None
    return tensor._asdict() | {"shape": list(tensor.shape), "data": data, "parameters": parameters}


def from_payload(payload: InferenceRequest) -> InferRequest:
    """A request out of MLServer's types."""
    inputs = [
        Tensor(t.name, t.shape, Datatype(t.datatype).value, t.data.root, plain(t.parameters))
        for t in payload.inputs
    ]
    outputs = [RequestedOutput(output.name, binary=False) for output in payload.outputs or ()]
    return InferRequest(payload.id, inputs, outputs, plain(payload.parameters))


def from_outputs(
    tensors: Sequence[ResponseOutput], outputs: Sequence[RequestedOutput]
) -> list[OutputTensor]:
    """A runtime's outputs. outputs: of the request; the runtime may add others."""
    binary = {output.name: output.binary for output in outputs}
    default = all(binary.values())
    return [_from_output(tensor, binary.get(tensor.name, default)) for tensor in tensors]


def _from_output(output: ResponseOutput, binary: bool) -> OutputTensor:
    datatype, data = Datatype(output.datatype).value, output.data.root
    items = data if isinstance(data, list) else [data]
    if datatype == BYTES:
        values = np.empty(len(items), object)
        values[:] = items
    else:
        values = np.array(items, DTYPES.get(datatype, np.bool_))
    if values.size == np.prod(output.shape):  # one element may hold all bytes of an array
        values = values.reshape(output.shape)
    return OutputTensor(output.name, datatype, values, binary, plain(output.parameters))


def to_response(encoded: Encoded, name: str, version: str, identifier: str | None) -> Any:
    """A response in MLServer's types."""
    outputs = [
        ResponseOutput(
            name=output.name,
            shape=list(output.values.shape),
            datatype=output.datatype,
            parameters=Parameters(**output.parameters) if output.parameters else None,
            data=as_list(output.values),
        )
        for output in encoded.outputs
    ]
    return InferenceResponse(model_name=name, model_version=version, id=identifier, outputs=outputs)


def plain(parameters: Parameters | None) -> dict[str, Any]:
    """MLServer's parameters as a dictionary."""
    return parameters.model_dump(exclude_none=True) if parameters else {}
