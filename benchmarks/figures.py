"""What a load on a server was, and what came of it, as serving.json has it."""

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.servers import Way


class Load(NamedTuple):
    """What is asked of a server. factor: of the rate that saturates the blog's way; 0: closed."""

    kind: str
    way: Way
    connections: int
    rows: int
    factor: float


class Figures(NamedTuple):
    """Of one load, or medians of some. Latencies in ms; cpu_ms: of the server, a request."""

    per_second: float
    p50: float
    p95: float
    p99: float
    cpu_ms: float
    wrong: int


Loads = dict[Load, list[Figures]]


def median(of: Iterable[Figures]) -> Figures:
    """The median of each figure; of what was wrong, all."""
    runs = list(of)
    middle = Figures(*map(statistics.median, zip(*runs, strict=True)))
    return middle._replace(wrong=sum(run.wrong for run in runs))


def figures(result: dict[str, Any]) -> dict[Load, Figures]:
    """The medians of what `measure_all` has measured."""
    return {
        Load(load["kind"], Way(**load["way"]), load["connections"], load["rows"], load["factor"]):
        median(Figures(**run) for run in load["runs"])
        for load in result["loads"]
    }  # fmt: skip
