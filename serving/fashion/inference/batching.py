"""Computes requests that arrive while a model computes together, next."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple

from .limits import check_waiting
from .predictor import Predictor, Results

MAX_BATCHES = 16  # that the thread gets at a time: waking it takes long
BATCHES_SECONDS = 0.005  # after which it returns the batches that it has computed
Outcome = Results | Exception


class Pending(NamedTuple):
    """A request that waits: its rows, and the future of its results."""

    rows: Any
    results: asyncio.Future[Results]


class Batcher:
    """Runs a predictor in one thread, on the requests that wait for it.

    predict: the predictor's, or one that counts its batches too; max_rows: of a batch; a request
    with more is computed alone; max_batch_delay_ms: to wait for more requests if some wait already;
    max_queue_size: requests.
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
        """The results of these rows. Raises RequestError, 503, if too many requests wait."""
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

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                batches = self._next_batches()
                rows = [[pending.rows for pending in batch] for batch in batches]
                try:
                    outcomes = await loop.run_in_executor(self._thread, self._predict_batches, rows)
                except Exception as error:  # so that none of them waits for ever
                    outcomes = [[error] * len(batch) for batch in batches]
                for batch, outcome in zip(batches, outcomes, strict=False):
                    _deliver(batch, outcome)
                for batch in reversed(batches[len(outcomes) :]):  # not computed yet
                    self._queue.extendleft(reversed(batch))
                if self._queue:  # clients that got a response may send the next request meanwhile
                    await asyncio.sleep(self._delay)
        finally:
            self._task = None

    def _next_batches(self) -> list[list[Pending]]:
        """The next batches, to be computed one after another."""
        batches = [self._next_batch()]
        while self._queue and len(batches) < MAX_BATCHES:
            batches.append(self._next_batch())
        return batches

    def _next_batch(self) -> list[Pending]:
        batch: list[Pending] = []
        count = 0
        while self._queue and (not batch or self._fits(batch[0], count)):
            pending = self._queue.popleft()
            if not pending.results.done():  # else its client has disconnected
                batch.append(pending)
                count += len(pending.rows)
        return batch

    def _fits(self, first: Pending, count: int) -> bool:
        """Whether the next request can join a batch that has so many rows."""
        rows, key = self._queue[0].rows, self._predictor.batch_key
        return count + len(rows) <= self._max_rows and key(rows) == key(first.rows)

    def _predict_batches(self, batches: list[list[Any]]) -> list[list[Outcome]]:
        """The outcomes of each batch, until BATCHES_SECONDS have passed."""
        outcomes: list[list[Outcome]] = []
        end = time.perf_counter() + BATCHES_SECONDS
        for batch in batches:
            outcomes.append(self._outcomes(batch))
            if time.perf_counter() > end:
                break
        return outcomes

    def _outcomes(self, batch: list[Any]) -> list[Outcome]:
        """The outcome of each request; if they fail together, each is computed alone."""
        try:
            return list(self._predict_batch(batch))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [self._outcomes([rows])[0] for rows in batch]

    def _predict_batch(self, batch: list[Any]) -> list[Results]:
        if not batch:
            return []
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


def _deliver(batch: list[Pending], outcomes: list[Outcome]) -> None:
    for pending, outcome in zip(batch, outcomes, strict=True):
        if pending.results.done():
            continue
        if isinstance(outcome, Exception):
            pending.results.set_exception(outcome)
        else:
            pending.results.set_result(outcome)
