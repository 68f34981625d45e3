"""The interface of a model: its tensors, and predictions from rows."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .errors import RequestError, quote
from .messages import InferRequest, OutputTensor, RequestedOutput
from .tensors import DTYPES, TensorSpec, only_input, read_tensor

Results = dict[str, Any]  # arrays, mostly
TEXT, NUMBERS = {"content_type": "str"}, {"content_type": "np"}  # for MLServer's clients


class Encoded(NamedTuple):
    """A model's part of a response. parameters: of the whole response."""

    outputs: Sequence[OutputTensor]
    parameters: Mapping[str, Any] = {}


class Signature:
    """The tensors of a model: how its requests are decoded, and its results encoded.

    outputs: the first one is for a request that names none; max_rows: of a request.
    """

    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()
    max_rows: int = 10_000

    def decode(self, request: InferRequest) -> Any:
        """The rows of a request, [rows, …] in the first input's datatype. Raises RequestError.

        NaN is passed on, infinity rejected. Override it for other requests.
        """
        return read_tensor(only_input(request.inputs), self.inputs[0], self.max_rows)

    @cached_property
    def output_names(self) -> list[str]:
        """What a request can name, the first one for a request that names none."""
        return [spec.name for spec in self.outputs]

    def check_outputs(self, request: InferRequest) -> Sequence[RequestedOutput]:
        """The outputs that a request gets. Raises RequestError for an unknown one."""
        names = self.output_names
        for output in request.outputs:
            if output.name not in names:
                raise RequestError(
                    f"expected outputs out of {', '.join(names)}, got {quote(output.name)}"
                )
        return request.outputs or [RequestedOutput(names[0], request.binary)]

    def encode(self, results: Any, outputs: Sequence[RequestedOutput]) -> Encoded:
        """The outputs of a response, from the results."""
        datatypes = {spec.name: spec.datatype for spec in self.outputs}
        tensors = []
        for output in outputs:
            values, dtype = results[output.name], DTYPES.get(datatypes[output.name])
            parameters = TEXT if dtype is None else {} if output.binary else NUMBERS
            values = values if dtype is None else values.astype(dtype, copy=False)
            datatype = datatypes[output.name]
            tensors.append(OutputTensor(output.name, datatype, values, output.binary, parameters))
        return Encoded(tensors)

    def log_fields(self, results: Any, with_inputs: bool) -> dict[str, Any]:  # noqa: ARG002
        """Fields for the request log, JSON values. with_inputs: those of the rows too."""
        return {}


class Predictor(Signature, ABC):
    """A model that is called with the rows of several requests at a time."""

    @abstractmethod
    def predict(self, rows: Any) -> Results:
        """All outputs, by name, [rows, …], and more for `observe` and `log_fields`."""

    def batch_key(self, rows: Any) -> Hashable:
        """Rows of equal keys may be computed together: of one datatype and trailing shape."""
        return rows.dtype, rows.shape[1:]

    def concatenate(self, batch: Sequence[Any]) -> Any:
        """The rows of several requests as those of one."""
        return np.concatenate(batch)

    def observe(self, results: Results) -> None:
        """Count the results of a batch in the model's metrics."""
