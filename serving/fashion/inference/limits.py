"""What the server takes on at once, so that nobody can take it down by sending."""

from http import HTTPStatus
from typing import NamedTuple

from .messages import RequestError

MB = 2**20
SMALL_BODY = 64 * 1024  # bytes, which a connection holds anyway: not counted, never kept out


class Limits(NamedTuple):
    """params.yaml: package.limits, which travels with each packaged model.

    body_mb: MiB of a request's body; bodies_mb: MiB of all bodies in hand; request_seconds: for a
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
                "send fewer images a request",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )


class BodiesInHand:
    """Counts the bytes of all bodies that are being read, computed and answered."""

    def __init__(self) -> None:
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Those that are counted now."""
        return self._bytes

    def count(self, counted: int, size: int, limits: Limits) -> int:
        """Count a body as of this size; returns what is counted of it, which was `counted` before.

        Raises RequestError, 413 for too large a body, 503 where too many are in hand.
        """
        limits.check_body(size)
        if size <= SMALL_BODY:
            return counted
        if self._bytes + size - counted > limits.bodies_mb * MB:
            raise RequestError(
                f"expected at most {limits.bodies_mb} MiB of requests at once; send it again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        self._bytes += size - counted
        return size

    def release(self, counted: int) -> None:
        """No longer count this much."""
        self._bytes -= counted


IN_HAND = BodiesInHand()  # of the process, over REST and gRPC
