"""What the server takes on at once, so that nobody can take it down by sending."""

from http import HTTPStatus
from typing import NamedTuple

from .errors import RequestError

MB = 2**20
SMALL_BODY = 64 * 1024  # bytes, which a connection holds anyway: not counted, never kept out


class Limits(NamedTuple):
    """params.yaml: package.limits, which travels with each packaged model.

    body_mb: MiB of a request's body; bodies_mb: MiB of all bodies in flight; request_seconds: for a
    request to arrive whole; waiting: requests that wait for a model.
    """

    body_mb: int
    bodies_mb: int
    request_seconds: float
    waiting: int

    def check_body(self, size: int) -> None:
        """Raise RequestError, 413, for a body of more bytes."""
        if size > self.body_mb * MB:
            raise RequestError(
                f"expected a body of at most {self.body_mb} MiB, got {size / MB:,.1f}; "
                "send fewer rows a request",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )


class InFlightBytes:
    """Counts the bytes of all bodies that are being read, computed and encoded."""

    bytes = 0


IN_FLIGHT = InFlightBytes()  # of the process, over REST and gRPC


class Admission:
    """One body's share of the bytes in flight, until the end of a `with` block."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self._counted = limits, 0

    def __enter__(self) -> "Admission":
        return self

    def __exit__(self, *_: object) -> None:
        IN_FLIGHT.bytes -= self._counted

    def count(self, size: int) -> None:
        """Count the body as of at least this size.

        Raises RequestError, 413 for too large a body, 503 where too many are in flight.
        """
        self.limits.check_body(size)
        if size <= max(SMALL_BODY, self._counted):
            return
        more = size - self._counted
        if IN_FLIGHT.bytes + more > self.limits.bodies_mb * MB:
            raise RequestError(
                f"expected at most {self.limits.bodies_mb} MiB of requests at once; "
                "send it again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        IN_FLIGHT.bytes += more
        self._counted = size


def check_waiting(count: int, most: int) -> None:
    """Raise RequestError, 503, where so many requests wait for a model already."""
    if count >= most:
        raise RequestError(
            f"expected at most {most:,} requests that wait for the model; send it again later",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )
