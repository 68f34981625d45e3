"""The short way of requests in the form that nearly all have, over REST and over gRPC.

MLServer takes a request through FastAPI, which finds its route, solves what that depends on and
validates body and answer by their types, or through converters of messages: a millisecond, of which
reading the numbers is a tenth. Here it is read into a Question and its answer is written from the
arrays. Every other request goes MLServer's way, as it came: over REST large and compressed ones,
those with parameters, and those that are no requests, for which FastAPI finds the words; over gRPC
those with parameters or without raw contents.
"""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import orjson
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.settings import Settings
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_exporter import PrometheusMiddleware

from .tensors import DATATYPES, Output, Question, Tensor

PATH = re.compile(r"/v2/models/([^/]+)(/versions/([^/]+))?/infer")
ROUTES = "/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{model_version}/infer"
LARGE = 1 << 16  # bytes of a body, above which FastAPI's millisecond makes no difference
JSON = "application/json"
BODY, TENSOR, OUTPUT = {"id", "inputs", "outputs"}, {"name", "shape", "datatype", "data"}, {"name"}
TEXT = "BYTES", "str"  # datatype and content type


class Answer(NamedTuple):
    """What is answered. outputs: arrays by name, in the order asked; headers: by name."""

    model: str
    version: str
    id: str
    outputs: Sequence[tuple[str, np.ndarray]]
    headers: dict[str, str]


class Express:
    """An ASGI application that answers what it can and hands all else on to `app`.

    ask: asks a model, None if that answers in MLServer's way alone; raises MLServerError.
    refuse: makes the answer of a refusal out of the path, the status and a sentence.
    """

    def __init__(
        self,
        app: ASGIApp,
        ask: Callable[[Question], Awaitable[Answer | None]],
        settings: Settings,
        refuse: Callable[[str, int, str], Response],
    ) -> None:
        self._app, self._ask, self._refuse = app, ask, refuse
        self._counts = None
        if settings.metrics_endpoint:  # as MLServer's way is counted
            prefix = settings.metrics_rest_server_prefix
            self._counts = PrometheusMiddleware(app, app_name="mlserver", prefix=prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        start = time.perf_counter()
        asked = scope["type"] == "http" and scope["method"] == "POST"
        place = PATH.fullmatch(scope["path"]) if asked else None
        if not place or not _is_small(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        came = await _body(receive)
        question = read_body(came.get("body", b""), place[1], place[3])
        status: int = HTTPStatus.OK
        try:
            answer = await self._ask(question) if question else None
        except MLServerError as error:
            status = error.status_code
            await self._refuse(scope["path"], status, str(error))(scope, receive, send)
        else:
            if answer is None:
                await self._app(scope, _again(came, receive), send)
                return
            await _send(answer, send)
        if self._counts:
            labels = "POST", ROUTES[bool(place[3])], status, "mlserver"
            self._counts.request_count.labels(*labels).inc()
            self._counts.request_time.labels(*labels).observe(time.perf_counter() - start)


def _is_small(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    return (
        length.isdecimal()
        and int(length) <= LARGE
        and headers.get("content-type", "").partition(";")[0].strip() == JSON
        and "content-encoding" not in headers
    )


async def _body(receive: Receive) -> Message:
    """The whole body as one message, or the message that there is none any more."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}


def _again(first: Message, receive: Receive) -> Receive:
    """What gives a message once more, then what comes."""
    messages = [first]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


async def _send(answer: Answer, send: Send) -> None:
    body = write_body(answer)
    fields = {"content-length": str(len(body)), "content-type": JSON} | answer.headers
    headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def read_body(body: bytes, model: str, version: str | None) -> Question | None:
    """The question that a body of JSON asks, None for one of another form."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not _is_common(asked):
        return None
    wanted = [Output(output["name"]) for output in asked.get("outputs", [])]
    return Question(model, version, asked.get("id"), [Tensor(**asked["inputs"][0])], wanted)


def _is_common(asked: Any) -> bool:
    if not _has(asked, BODY, "inputs"):
        return False
    inputs, outputs = asked["inputs"], asked.get("outputs", [])
    return (
        isinstance(asked.get("id", ""), str)
        and isinstance(inputs, list)
        and len(inputs) == 1
        and _is_tensor(inputs[0])
        and isinstance(outputs, list)
        and all(_has(output, OUTPUT, *OUTPUT) for output in outputs)
        and all(isinstance(output["name"], str) for output in outputs)
    )


def _is_tensor(value: Any) -> bool:
    return (
        _has(value, TENSOR, *TENSOR)
        and isinstance(value["name"], str)
        and isinstance(value["datatype"], str)
        and isinstance(value["data"], list)
        and isinstance(value["shape"], list)
        and all(type(side) is int for side in value["shape"])
    )


def _has(value: Any, possible: set[str], *needed: str) -> bool:
    return isinstance(value, dict) and value.keys() <= possible and value.keys() >= set(needed)


def write_body(answer: Answer) -> bytes:
    """The body of JSON that holds an answer, as MLServer writes it."""
    outputs = []
    for name, values in answer.outputs:
        datatype = DATATYPES[name]
        tensor = {"name": name, "shape": values.shape, "datatype": datatype}
        if datatype == TEXT[0]:
            outputs.append(
                tensor | {"parameters": {"content_type": TEXT[1]}, "data": values.tolist()}
            )
        else:
            outputs.append(tensor | {"data": values.ravel()})
    body = {
        "model_name": answer.model,
        "model_version": answer.version,
        "id": answer.id,
        "parameters": {},
        "outputs": outputs,
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def read_message(request: pb.ModelInferRequest) -> Question | None:
    """The question that a message asks, None for one of another form."""
    if len(request.inputs) != 1 or len(request.raw_input_contents) != 1 or request.parameters:
        return None
    (given,), (raw,) = request.inputs, request.raw_input_contents
    if given.parameters or any(output.parameters for output in request.outputs):
        return None
    tensor = Tensor(given.name, given.shape, given.datatype, raw)
    who = request.model_name, request.model_version, request.id
    return Question(*who, [tensor], request.outputs)


def write_message(answer: Answer) -> pb.ModelInferResponse:
    """The message that holds an answer, as MLServer writes it."""
    message = pb.ModelInferResponse(
        model_name=answer.model, model_version=answer.version, id=answer.id
    )
    for name, values in answer.outputs:
        tensor = message.outputs.add(name=name, shape=values.shape, datatype=DATATYPES[name])
        if tensor.datatype == TEXT[0]:
            tensor.parameters["content_type"].string_param = TEXT[1]
            texts = [text.encode() for text in values.tolist()]
            raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        else:
            raw = values.tobytes()
        message.raw_output_contents.append(raw)
    return message
