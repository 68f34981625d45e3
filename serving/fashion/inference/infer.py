"""An inference request from its validation to its response, computed with others that wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import numpy as np

from ..contract import PIXELS
from ..model.pixels import read_images
from .batching import Batcher
from .limits import Limits
from .messages import PICTURES, InferRequest, InferResponse

Result = TypeVar("Result")
SMALL = 16 * PIXELS  # values, read in less time than another thread takes to begin
# Reads one large request at a time, since each takes several times its own size.
LARGE = ThreadPoolExecutor(1)
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
    if pool := _pool_for(request):
        images = await in_thread(pool, read_images, request, model.max_rows)
    else:
        images = read_images(request, model.max_rows)
    results = await model.batcher(images)
    outputs = [(output, results[output.name]) for output in request.outputs]
    identifier = str(uuid4()) if request.id is None else request.id
    return InferResponse(model.name, model.version, identifier, outputs, results)


async def in_thread(
    pool: ThreadPoolExecutor, read: Callable[..., Result], *arguments: Any
) -> Result:
    """The result of a function that a thread of a pool runs."""
    return await asyncio.get_running_loop().run_in_executor(pool, read, *arguments)


def _pool_for(request: InferRequest) -> ThreadPoolExecutor | None:
    if any(tensor.datatype == PICTURES for tensor in request.inputs):
        return PICTURE_READER
    return LARGE if any(_values(tensor.data) > SMALL for tensor in request.inputs) else None


def _values(data: Any) -> float:
    if isinstance(data, np.ndarray):
        return data.size
    is_nested = isinstance(data, list) and data and isinstance(data[0], list)
    return np.inf if is_nested or not hasattr(data, "__len__") else len(data)
