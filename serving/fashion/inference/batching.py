"""Requests that arrive while a model computes are computed together, next."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple

from .limits import check_waiting
from .predictor import Predictor, Results


class Pending(NamedTuple):
    """A request that waits: its rows, and where its results go."""

    rows: Any
    results: asyncio.Future[Results]


class Batcher:
    """Runs a predictor in one thread, on what waits for it.

    predict: the predictor's, or what counts its batches too; max_rows: joined at most; a request
    that has more is computed alone; max_batch_delay_ms: to wait for more where some requests wait
    already; max_queue_size: requests.
    """

    def __init__(
        self,
        predictor: Predictor,
        predict: Callable[[Any], Results],
        max_rows: int,
        max_batch_delay_ms: float,
        max_queue_size: int,
    ) -> None:
        self._predictor, self._predict, self._max_rows = predictor, predict, max_rows
        self._delay, self._max_queue_size = max_batch_delay_ms / 1000, max_queue_size
        self._thread = ThreadPoolExecutor(1)
        self._queue: deque[Pending] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, rows: Any) -> Results:
        """The results of these rows alone. Raises RequestError, 503, where too many wait."""
        check_waiting(len(self._queue), self._max_queue_size)
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
        rows, key = self._queue[0].rows, self._predictor.batch_key
        return count + len(rows) <= self._max_rows and key(rows) == key(first.rows)

    async def _compute(self, batch: list[Pending]) -> None:
        if not batch:
            return
        try:
            parts = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._predict_batch, [pending.rows for pending in batch]
            )
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].results.done():
                    batch[0].results.set_exception(error)
                return
            for pending in batch:  # so that the one at fault is the one that fails
                await self._compute([pending])
            return
        for pending, results in zip(batch, parts, strict=True):
            if not pending.results.done():
                pending.results.set_result(results)

    def _predict_batch(self, batch: list[Any]) -> list[Results]:
        """The results of each."""
        if len(batch) == 1:
            return [self._predict(batch[0])]
        results = self._predict(self._predictor.concatenate(batch))
        ends = list(accumulate(map(len, batch)))
        if any(len(values) != ends[-1] for values in results.values()):
            raise ValueError(f"expected {ends[-1]} results of as many rows")
        starts = [0, *ends]
        return [
            {name: values[start:end] for name, values in results.items()}
            for start, end in zip(starts, ends, strict=False)
        ]
