"""Handles every inference request, over REST and gRPC.

handle: find the model, admit the request, decode it, predict, encode the response. A request's
context ends in one place, where it is counted and logged.
"""

import asyncio
import time as clock
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from . import logger
from .errors import RequestError, one_line, quote
from .limits import SMALL_BODY, Admission, Limits, WaitingLimit
from .messages import InferRequest, InferResponse
from .predictor import Results, Signature
from .tensors import BYTES

Result = TypeVar("Result")
LONGEST_ID = 1000  # characters
SECONDS_PER_LINE = 60  # of rejections before a request is read
MOST_INPUTS = 10_000  # of a request: the columns of a table
MOST_AXES = 32  # of a tensor, as in NumPy
CLIENT_GONE = 499  # of nginx: the client has disconnected before its response
# Large tensors are decoded and encoded off the event loop, one at a time, since each takes several
# times its size; elements of BYTES may be picture files, which take long: two at a time.
LARGE, FILES = ThreadPoolExecutor(1), ThreadPoolExecutor(2)
READS = WaitingLimit(1000)  # of requests with files to decode


class ServedModel(NamedTuple):
    """A loaded model. version: "" for none; infer: from the rows of `decode` to results."""

    name: str
    version: str
    signature: Signature
    limits: Limits
    infer: Callable[[Any], Awaitable[Results]]


class Models(Protocol):
    """The models of a server.

    version: "" for the highest one. Each method except the first three raises RequestError, 404 for
    an unknown model.
    """

    async def are_ready(self) -> bool:
        """Whether each of them is ready."""

    async def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""

    async def index(self, only_ready: bool) -> list[dict[str, Any]]:
        """Name, version, state and reason of each model of the repository."""

    async def find(self, name: str, version: str) -> ServedModel:
        """A model that is ready."""

    async def is_ready(self, name: str, version: str) -> bool:
        """Whether a model is ready."""

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        """Name, versions, platform, inputs, outputs and parameters of a model."""

    async def load(self, name: str) -> None:
        """Load a model, or reload it."""

    async def unload(self, name: str) -> None:
        """Unload all versions of a model."""


class Transport(Protocol):
    """One request of a protocol."""

    protocol: str  # rest or grpc

    def address(self) -> tuple[str, str]:
        """Name and version of the model, "" for the highest version. Raises RequestError."""

    async def receive(self, admission: Admission) -> Any:
        """All of the request's bytes, counted. Raises RequestError."""

    def parse(self, payload: Any) -> InferRequest:
        """The request in the received bytes. Raises RequestError."""

    def write(self, response: InferResponse) -> Any:
        """A response, in the protocol's form."""


@dataclass(slots=True, eq=False)
class RequestContext:
    """One request, from its arrival to its end, which calls the observers.

    protocol: rest or grpc; model, version, id: as the client sends them, "" until they are read;
    served: the model, once it is found; results: its predictions; time: of the head's arrival, in
    seconds since 1970; seconds: from the whole request, or from its head if it is rejected before,
    to the end; status: of HTTP; error: the message of a rejection; is_logged: in the request log.
    """

    protocol: str
    observers: Sequence["Observer"] = ()
    model: str = ""
    version: str = ""
    id: str = ""
    error: str = ""
    status: int = HTTPStatus.OK
    served: ServedModel | None = None
    results: Results | None = None
    is_logged: bool = True
    time: float = field(default_factory=clock.time)
    seconds: float = 0.0
    _start: float = field(default_factory=clock.perf_counter)

    def __enter__(self) -> "RequestContext":
        return self

    def arrived(self) -> None:
        """The whole request has arrived: a slow client's time does not count."""
        self._start = clock.perf_counter()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self.seconds = clock.perf_counter() - self._start
        if error is not None:
            unknown = HTTPStatus.INTERNAL_SERVER_ERROR
            gone = not isinstance(error, Exception)
            self.status = CLIENT_GONE if gone else int(getattr(error, "status", unknown))
            self.error = str(error)
        for observe in self.observers:
            try:
                observe(self)
            except Exception:  # in a predictor's metrics, for example: no request fails for it
                logger.exception("%s: counting or logging a request failed", self.model)


Observer = Callable[[RequestContext], None]  # called at the end of a request


class Handler:
    """Handles every inference request. observers: called with each at its end."""

    _rejected, _next_line = 0, 0.0  # of the process, over REST and gRPC

    def __init__(self, models: Models, observers: Sequence[Observer] = ()) -> None:
        self.models, self.observers = models, observers

    async def handle(self, transport: Transport) -> Any:
        """The response, as the transport writes it. Raises RequestError, 500 if a model fails."""
        with RequestContext(transport.protocol, self.observers) as context:
            context.model, context.version = transport.address()
            model = context.served = await self.models.find(context.model, context.version)
            with Admission(model.limits) as admission:
                try:
                    return await _respond(transport, context, model, admission)
                except RequestError:
                    raise
                except Exception as error:
                    logger.exception("%s failed", model.name)
                    message = one_line(f"{model.name} failed: {type(error).__name__}: {error}")
                    raise RequestError(message, HTTPStatus.INTERNAL_SERVER_ERROR) from None

    def reject(self, protocol: str, error: RequestError) -> None:
        """Count a request without a token, which is rejected before it is read.

        Logs the first one of a minute, and how many there were since the last line.
        """
        Handler._rejected += 1
        now = clock.monotonic()
        is_logged = now >= Handler._next_line
        if is_logged:
            status, count = error.status, Handler._rejected
            logger.warning("rejected with %d: %s (requests: %d)", status, error, count)
            Handler._rejected, Handler._next_line = 0, now + SECONDS_PER_LINE
        with suppress(RequestError), RequestContext(protocol, self.observers, is_logged=is_logged):
            raise error


async def _respond(
    transport: Transport, context: RequestContext, model: ServedModel, admission: Admission
) -> Any:
    """Receive, decode, predict and encode a request."""
    payload = await transport.receive(admission)
    context.arrived()
    signature = model.signature
    large = LARGE if admission.counted else None
    request = await run_in(large, transport.parse, payload)
    del payload  # to free its memory
    check_sizes(request)
    context.id = request.id or ""
    if request.id is None:
        request = request._replace(id=str(uuid4()))
    outputs = signature.check_outputs(request)
    if any(tensor.datatype == BYTES for tensor in request.inputs):
        with READS:
            rows = await run_in(FILES, signature.decode, request)
    else:
        rows = await run_in(large, signature.decode, request)
    context.id, context.version = str(request.id), model.version
    del request  # to free its memory
    context.results = results = await model.infer(rows)
    encoded = await run_in(large, signature.encode, results, outputs)
    size = sum(output.values.nbytes for output in encoded.outputs)
    response = InferResponse(model.name, model.version, context.id, *encoded)
    return await run_in(LARGE if size > SMALL_BODY else None, transport.write, response)


def check_sizes(request: InferRequest) -> None:
    """Raise RequestError for sizes that would determine how much is computed or sent back."""
    if (length := len(request.id or "")) > LONGEST_ID:
        raise RequestError(f"expected an id of at most {LONGEST_ID:,} characters, got {length:,}")
    if len(request.inputs) > MOST_INPUTS:
        raise RequestError(f"expected at most {MOST_INPUTS:,} inputs, got {len(request.inputs):,}")
    for tensor in request.inputs:
        if (axes := len(tensor.shape)) > MOST_AXES:
            raise RequestError(f"expected a shape of at most {MOST_AXES} axes, got {axes:,}")
    names = [output.name for output in request.outputs]
    for name, count in Counter(names).items() if len(names) > 1 else ():
        if count > 1:
            raise RequestError(f"expected each output once, got {quote(name)} {count:,} times")


async def run_in(
    pool: ThreadPoolExecutor | None, function: Callable[..., Result], *arguments: Any
) -> Result:
    """The result of a function, run in a thread of a pool, or here if that is None."""
    if pool is None:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
