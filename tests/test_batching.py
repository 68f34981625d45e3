"""Requests computed together do not hurt each other.  Run: pytest tests/test_batching.py"""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serving.fashion.inference.batching import Batcher
from serving.fashion.inference.errors import RequestError
from serving.fashion.inference.predictor import Predictor, Results


class Doubling(Predictor):
    """Doubles rows; rejects 13. batches: the sizes of what it computes."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def predict(self, rows: np.ndarray) -> Results:
        self.started.set()
        self.go_on.wait(60)
        self.batches.append(len(rows))
        if (rows == 13).any():
            raise ValueError("13")
        return {"double": rows * 2}


class WithoutMemory(Doubling):
    """Cannot join what waits."""

    def concatenate(self, batch: Sequence[Any]) -> Any:  # noqa: ARG002
        raise MemoryError


def results_of(
    predictor: Doubling, batches: Sequence[np.ndarray], max_rows: int = 100, waiting: int = 100
) -> list[Any]:
    """What becomes of requests that arrive while a first one is computed."""

    async def infer() -> list[Any]:
        batcher = Batcher(predictor, predictor.predict, max_rows, 0, waiting)
        predictor.go_on.clear()
        first = asyncio.create_task(batcher(np.zeros((1, 1))))
        await asyncio.to_thread(predictor.started.wait, 60)
        others = [asyncio.create_task(batcher(rows)) for rows in batches]
        await asyncio.sleep(0)
        predictor.go_on.set()
        found = await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 60)
        await first
        return found

    return asyncio.run(infer())


def test_what_waits_is_computed_together_and_each_gets_its_rows():
    predictor = Doubling()
    found = results_of(predictor, [np.array([[n], [n + 0.5]]) for n in (1, 2, 3)])
    assert [part["double"].ravel().tolist() for part in found] == [[2, 3], [4, 5], [6, 7]]
    assert predictor.batches == [1, 6]


@pytest.mark.parametrize("kind", [Doubling, WithoutMemory])
def test_where_a_batch_fails_each_is_computed_alone(kind: type[Doubling]):
    values: list[int] = [1, 13, 3] if kind is Doubling else [1, 2, 3]
    found = results_of(kind(), [np.array([[n]]) for n in values])
    for value, part in zip(values, found, strict=True):
        if value == 13:
            assert isinstance(part, ValueError)
        else:
            assert part["double"].tolist() == [[2 * value]]


def test_rows_of_another_width_or_datatype_are_not_joined():
    predictor = Doubling()
    shapes: list[tuple[int, int]] = [(1, 1), (1, 2), (1, 1), (1, 1)]
    rows = [np.ones(shape, t) for shape, t in zip(shapes, "ddfd", strict=True)]
    found = results_of(predictor, rows)
    assert [part["double"].shape for part in found] == shapes
    assert predictor.batches == [1] * 5


def test_so_many_rows_are_joined_and_so_many_requests_wait():
    predictor = Doubling()
    found = results_of(predictor, [np.ones((2, 1))] * 6, max_rows=4, waiting=5)
    assert sum(isinstance(part, RequestError) for part in found) == 1
    assert predictor.batches == [1, 4, 4, 2]


def test_where_no_thread_can_be_started_no_request_waits_for_ever(monkeypatch: pytest.MonkeyPatch):
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def infer() -> Any:
        predictor = Doubling()
        batcher = Batcher(predictor, predictor.predict, 100, 0, 100)
        monkeypatch.setattr(threading.Thread, "start", start)
        return await asyncio.wait_for(batcher(np.zeros((1, 1))), 60)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        asyncio.run(infer())
