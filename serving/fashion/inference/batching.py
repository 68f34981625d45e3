"""Requests that arrive while a model computes are computed together, next."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import NamedTuple

import numpy as np

from .errors import RequestError
from .predictor import Results


class Pending(NamedTuple):
    """A request that waits: its rows, and where its results go."""

    rows: np.ndarray
    results: asyncio.Future[Results]


class Batcher:
    """Runs a model in one thread, on what waits for it.

    predict: of rows, arrays by name, their first axis the rows; max_rows: joined at most; a request
    that has more is computed alone; max_batch_delay_ms: to wait for more where some requests wait
    already; max_queue_size: requests.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], Results],
        max_rows: int,
        max_batch_delay_ms: float,
        max_queue_size: int,
    ) -> None:
        self._predict, self._max_rows = predict, max_rows
        self._delay, self._max_queue_size = max_batch_delay_ms / 1000, max_queue_size
        self._thread = ThreadPoolExecutor(1)
        self._queue: deque[Pending] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, rows: np.ndarray) -> Results:
        """The results of these rows alone. Raises RequestError, 503, where too many wait."""
        if len(self._queue) >= self._max_queue_size:
            raise RequestError(
                f"expected at most {self._max_queue_size:,} requests that wait for the model; "
                "send it again later",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        results: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        self._queue.append(Pending(rows, results))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await results

    @property
    def queue_size(self) -> int:
        """Requests that are not being computed yet."""
        return len(self._queue)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._compute(self._next_batch())
                if self._queue:  # and so have others: those just answered may ask again
                    await asyncio.sleep(self._delay)
        finally:
            self._task = None

    def _next_batch(self) -> list[Pending]:
        batch: list[Pending] = []
        count = 0
        while self._queue and (not batch or self._fits(batch[0], count)):
            batch.append(self._queue.popleft())
            count += len(batch[-1].rows)
        return [pending for pending in batch if not pending.results.done()]

    def _fits(self, first: Pending, count: int) -> bool:
        """Whether the next request can join a batch that has so many rows."""
        rows, others = self._queue[0].rows, first.rows
        alike = (rows.dtype, rows.shape[1:]) == (others.dtype, others.shape[1:])
        return alike and count + len(rows) <= self._max_rows

    async def _compute(self, batch: list[Pending]) -> None:
        if not batch:
            return
        try:
            rows = [pending.rows for pending in batch]
            joined = rows[0] if len(rows) == 1 else np.concatenate(rows)
            loop = asyncio.get_running_loop()
            batch_results = await loop.run_in_executor(self._thread, self._predict, joined)
            start = 0
            for pending in batch:
                part = slice(start, start + len(pending.rows))
                start += len(pending.rows)
                results = {name: values[part] for name, values in batch_results.items()}
                if not pending.results.done():
                    pending.results.set_result(results)
        except Exception as error:
            for pending in batch:
                if not pending.results.done():
                    pending.results.set_exception(error)
