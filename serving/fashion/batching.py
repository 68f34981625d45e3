"""Requests that arrive while a model computes are computed together, next.

MLServer's own batching joins requests before anything has checked them, one with another's shape,
name and parameters, and waits for company even where nobody comes.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Answers = dict[str, np.ndarray]
Waiting = tuple[np.ndarray, asyncio.Future[Answers]]


class Batcher:
    """Runs a model in one thread, on what waits for it.

    answer: of images, uint8 [n, 784], arrays by name, their first axis the images; max_rows: of
    images that are joined at most; a request that has more is computed alone; wait_ms: for more
    company, where some requests wait already.
    """

    def __init__(
        self, answer: Callable[[np.ndarray], Answers], max_rows: int, wait_ms: float = 0.0
    ) -> None:
        self._answer, self._max_rows, self._wait = answer, max_rows, wait_ms / 1000
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Waiting] = deque()
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, images: np.ndarray) -> Answers:
        """The answers of these images alone."""
        answers: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append((images, answers))
        if self._work is None:
            self._work = asyncio.create_task(self._empty())
        return await answers

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    async def _empty(self) -> None:
        try:
            while self._waiting:
                await self._compute(self._next())
                if self._waiting:  # and so have others: those just answered may ask again
                    await asyncio.sleep(self._wait)
        finally:
            self._work = None

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        rows = 0
        while self._waiting and (not batch or rows + len(self._waiting[0][0]) <= self._max_rows):
            batch.append(self._waiting.popleft())
            rows += len(batch[-1][0])
        return [(images, answers) for images, answers in batch if not answers.done()]

    async def _compute(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        images = [images for images, _ in batch]
        joined = images[0] if len(images) == 1 else np.concatenate(images)
        loop = asyncio.get_running_loop()
        try:
            together = await loop.run_in_executor(self._thread, self._answer, joined)
        except Exception as error:
            for _, answers in batch:
                if not answers.done():
                    answers.set_exception(error)
            return
        start = 0
        for own, answers in batch:
            part = slice(start, start + len(own))
            start += len(own)
            if not answers.done():
                answers.set_result({name: values[part] for name, values in together.items()})
