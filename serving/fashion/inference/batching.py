"""Requests that arrive while a model computes are computed together, next."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import numpy as np

from .messages import RequestError

Results = dict[str, np.ndarray]
Waiting = tuple[np.ndarray, asyncio.Future[Results]]


class Batcher:
    """Runs a model in one thread, on what waits for it.

    predict: of images, uint8 [n, 784], arrays by name, their first axis the images; max_rows: of
    images that are joined at most; a request that has more is computed alone; max_batch_delay_ms:
    to wait for more where some requests wait already; max_waiting: requests, at most.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], Results],
        max_rows: int,
        max_batch_delay_ms: float,
        max_waiting: int,
    ) -> None:
        self._predict, self._max_rows = predict, max_rows
        self._delay, self._max_waiting = max_batch_delay_ms / 1000, max_waiting
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Waiting] = deque()
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, images: np.ndarray) -> Results:
        """The results of these images alone. Raises RequestError, 503, where too many wait."""
        if len(self._waiting) >= self._max_waiting:
            raise RequestError(
                f"expected at most {self._max_waiting:,} requests that wait for the model; "
                "send it again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        results: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        self._waiting.append((images, results))
        if self._work is None:
            self._work = asyncio.create_task(self._empty())
        return await results

    @property
    def waiting(self) -> int:
        """Requests that are not being computed yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    async def _empty(self) -> None:
        try:
            while self._waiting:
                await self._compute(self._next())
                if self._waiting:  # and so have others: those just answered may ask again
                    await asyncio.sleep(self._delay)
        finally:
            self._work = None

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        rows = 0
        while self._waiting and (not batch or rows + len(self._waiting[0][0]) <= self._max_rows):
            batch.append(self._waiting.popleft())
            rows += len(batch[-1][0])
        return [(images, results) for images, results in batch if not results.done()]

    async def _compute(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        images = [images for images, _ in batch]
        joined = images[0] if len(images) == 1 else np.concatenate(images)
        loop = asyncio.get_running_loop()
        try:
            together = await loop.run_in_executor(self._thread, self._predict, joined)
        except Exception as error:
            for _, results in batch:
                if not results.done():
                    results.set_exception(error)
            return
        start = 0
        for own, results in batch:
            rows = slice(start, start + len(own))
            start += len(own)
            if not results.done():
                results.set_result({name: values[rows] for name, values in together.items()})
