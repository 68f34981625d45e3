"""An inference request from its arrival to its end, for those who count or log it."""

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType

from .infer import ServedModel
from .messages import InferResponse

CLIENT_GONE = 499  # of nginx: the client has hung up before its response


@dataclass(slots=True, eq=False)
class Exchange:
    """One request, as the context of the work on it; its end calls the observers.

    protocol: rest or grpc; model, version, id: as the client gives them, "" until they are read;
    served: the model, once it is found; response: the one that is sent, if any; time: of the
    head's arrival, in seconds since 1970; seconds: from the whole request, or from its head where
    it is refused before, to the end; status: of HTTP; error: the sentence of a refusal.
    """

    protocol: str
    observers: Sequence["Observer"] = ()
    model: str = ""
    version: str = ""
    id: str = ""
    error: str = ""
    status: int = HTTPStatus.OK
    served: ServedModel | None = None
    response: InferResponse | None = None
    time: float = field(default_factory=clock.time)
    seconds: float = 0.0
    _start: float = field(default_factory=clock.perf_counter)

    def __enter__(self) -> "Exchange":
        return self

    def arrived(self) -> None:
        """The request is there, whole: a slow client's time is its own."""
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
            observe(self)


Observer = Callable[[Exchange], None]  # called at the end of a request
