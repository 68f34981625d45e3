"""Limits on bytes in flight and on waiting requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import ClassVar

import msgspec

from .errors import RequestError

MB = 2**20
SMALL_BODY = 64 * 1024  # bytes, which a connection buffers anyway: neither counted nor rejected


class Limits(msgspec.Struct, frozen=True):
    """params.yaml: package.limits, packaged with each model.

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


class Admission:
    """One body's share of the bytes in flight, in a `with` block. counted: bytes, 0 if small."""

    in_flight: ClassVar[int] = 0  # bytes of all bodies that are read, computed and encoded
    _arriving: ClassVar[list["Admission"]] = []  # in pieces, in the order they began
    _eviction: asyncio.Timeout
    _is_evicted = False

    def __init__(self, limits: Limits) -> None:
        self.limits, self.counted = limits, 0

    def __enter__(self) -> "Admission":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def count(self, size: int) -> None:
        """Count the bytes of the body that have arrived.

        If too many bytes are in flight, the body that began last is rejected: RequestError, 503,
        here if it is this one. Raises RequestError, 413, for too large a body.
        """
        self.limits.check_body(size)
        more = size - self.counted
        if size <= max(SMALL_BODY, self.counted):
            return
        while self._is_evicted or Admission.in_flight + more > self.limits.bodies_mb * MB:
            if self not in self._arriving or self._arriving[-1] is self:
                raise self._busy()
            self._arriving[-1]._evict()
        Admission.in_flight += more
        self.counted = size

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """While a body arrives in pieces, it may be evicted. Raises RequestError, 503."""
        self._eviction = asyncio.timeout(None)
        self._arriving.append(self)
        try:
            async with self._eviction:
                yield
        except TimeoutError:
            raise self._busy() from None
        finally:
            if self in self._arriving:
                self._arriving.remove(self)

    def _evict(self) -> None:
        self._release()
        self._is_evicted = True
        self._arriving.remove(self)
        self._eviction.reschedule(0)  # at once

    def _release(self) -> None:
        Admission.in_flight -= self.counted
        self.counted = 0

    def _busy(self) -> RequestError:
        return RequestError(
            f"expected at most {self.limits.bodies_mb} MiB of requests at once; "
            "send it again later",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


def check_waiting(count: int, limit: int) -> None:
    """Raise RequestError, 503, if so many requests wait for a model already."""
    if count >= limit:
        raise RequestError(
            f"expected at most {limit:,} requests that wait for the model; send it again later",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class WaitingLimit:
    """Counts waiting requests, each for the time of a `with` block. Raises RequestError, 503."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count = limit, 0

    def __enter__(self) -> None:
        check_waiting(self._count, self._limit)
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
