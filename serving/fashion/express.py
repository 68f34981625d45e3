"""The short way of requests in the form that nearly all have, over REST and over gRPC.

MLServer takes a request through FastAPI, which finds its route, solves what that depends on and
validates body and answer by their types, or through converters of messages: a millisecond, and for
many images three to five times as long as it takes to read their numbers from the text straight
into an array. Here a request is read into a Question and its answer is written from the arrays.
Every other one goes MLServer's way, as it came: over REST compressed ones, those with parameters,
with lists in lists, with anything but numbers, and those that are no requests, for which FastAPI
finds the words; over gRPC those with parameters or without raw contents.
"""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import orjson
import simdjson
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.settings import Settings
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_exporter import PrometheusMiddleware

from .tensors import DATATYPES, NUMBERS, Output, Question, Tensor

PATH = re.compile(r"/v2/models/([^/]+)(/versions/([^/]+))?/infer")
ROUTES = "/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{model_version}/infer"
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
        if not place or not _is_json(Headers(scope=scope)):
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


def _is_json(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip()
    return kind == JSON and "content-encoding" not in headers


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
    """The question that a body of JSON asks, its data float64 [k]; None for one of another form."""
    if body[:1] != b"{":  # a mark of the byte order, too, which simdjson would pass over
        return None
    try:
        asked: Any = simdjson.Parser().parse(body)
        if not _is_common(asked, body.count(b"[")):
            return None
        given = asked["inputs"][0]
        data = np.frombuffer(given["data"].as_buffer(of_type="d"))
    except (ValueError, RuntimeError, TypeError):  # no JSON, not in 64 bits, other than numbers
        return None
    tensor = Tensor(given["name"], given["shape"].as_list(), given["datatype"], data)
    wanted = [Output(output["name"]) for output in asked.get("outputs", [])]
    return Question(model, version, asked.get("id"), [tensor], wanted)


def _is_common(asked: Any, lists: int) -> bool:
    """Whether the fields are those above, of their types, and the data no lists in a list."""
    if not _has(asked, BODY, "inputs"):
        return False
    inputs, outputs = asked["inputs"], asked.get("outputs", ())
    return (
        lists == (4 if "outputs" in asked else 3)
        and isinstance(asked.get("id", ""), str)
        and isinstance(inputs, simdjson.Array)
        and len(inputs) == 1
        and _is_tensor(inputs[0])
        and isinstance(outputs, simdjson.Array | tuple)
        and all(map(_is_output, outputs))
    )


def _is_tensor(value: Any) -> bool:
    return (
        _has(value, TENSOR, *TENSOR)
        and isinstance(value["name"], str)
        and value["datatype"] in NUMBERS
        and isinstance(value["data"], simdjson.Array)
        and isinstance(value["shape"], simdjson.Array)
        and all(type(side) is int for side in value["shape"])
    )


def _is_output(value: Any) -> bool:
    return _has(value, OUTPUT, *OUTPUT) and isinstance(value["name"], str)


def _has(value: Any, possible: set[str], *needed: str) -> bool:
    """Whether it is an object with these fields, each once."""
    if not isinstance(value, simdjson.Object):
        return False
    fields = list(value.keys())
    names = set(fields)
    return len(names) == len(fields) and names <= possible and names.issuperset(needed)


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
