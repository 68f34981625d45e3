"""The one road of a request: validated, computed together with what else waits, returned."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import numpy as np

from .batching import Batcher
from .contract import PIXELS
from .limits import Limits
from .protocol.messages import PICTURES, InferRequest, InferResponse
from .protocol.validation import read_images, validate_outputs

Result = TypeVar("Result")
SMALL = 16 * PIXELS  # values, read in less time than another thread takes to begin
LARGE = ThreadPoolExecutor(
    1
)  # reads one large request at a time, each takes several times its size
PICTURE_READER = ThreadPoolExecutor(2)  # a picture of 16 megapixels may take a second


class ServedModel(NamedTuple):
    """A loaded model. max_rows: images a request; batcher: computes all outputs, by name."""

    name: str
    version: str
    max_rows: int
    limits: Limits
    batcher: Batcher


async def infer(request: InferRequest, model: ServedModel) -> InferResponse:
    """What a model makes of the images of a request. Raises RequestError."""
    validate_outputs(request)
    images = await in_thread(_reader(request), read_images, request, model.max_rows)
    results = await model.batcher(images)
    outputs = [(output, results[output.name]) for output in request.outputs]
    identifier = str(uuid4()) if request.id is None else request.id
    return InferResponse(model.name, model.version, identifier, outputs)


async def in_thread(
    pool: ThreadPoolExecutor | None, read: Callable[..., Result], *given: Any
) -> Result:
    """The result of a function, which a thread of a pool runs, or this one at once if None."""
    if pool is None:
        return read(*given)
    return await asyncio.get_running_loop().run_in_executor(pool, read, *given)


def _reader(request: InferRequest) -> ThreadPoolExecutor | None:
    if any(tensor.datatype == PICTURES for tensor in request.inputs):
        return PICTURE_READER
    return LARGE if any(_values(tensor.data) > SMALL for tensor in request.inputs) else None


def _values(data: Any) -> int:
    if isinstance(data, list) and data and isinstance(data[0], list):
        return SMALL + 1  # lists in lists: not counted here
    return (
        data.size if isinstance(data, np.ndarray) else len(data) if hasattr(data, "__len__") else 1
    )
