"""What serving.json has: loads on servers, their figures, and how these compare."""

import statistics
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks import results

KINDS = {"sklearn": "SVM", "xgboost": "trees"}
BASELINES = {"workers-0": "MLServer, `parallel_workers: 0`", "default": "MLServer, default"}
CELLS = ((1, 1), (8, 1), (64, 1), (1, 1024))  # connections, images a request


class Way(NamedTuple):
    """whose: fashion, or one of BASELINES; protocol: rest, in JSON of FP64, or grpc, in UINT8."""

    whose: str
    protocol: str


OURS = OUR_REST, OUR_GRPC = Way("fashion", "rest"), Way("fashion", "grpc")
WAYS = {OUR_REST: "this project, REST", OUR_GRPC: "this project, gRPC"} | {
    Way(whose, "rest"): name for whose, name in BASELINES.items()
}


class Load(NamedTuple):
    """What is sent to a server."""

    kind: str
    way: Way
    connections: int
    rows: int


class Figures(NamedTuple):
    """Of one load, or medians of some. Latencies in ms; cpu_ms: of the server, a request."""

    per_second: float
    p50: float
    p99: float
    cpu_ms: float
    wrong: int


Runs = dict[Load, list[Figures]]  # a repeat after the other


def median(runs: Iterable[Figures]) -> Figures:
    """The median of each figure; of what was wrong, all."""
    found = list(runs)
    middle = Figures(*map(statistics.median, zip(*found, strict=True)))
    return middle._replace(wrong=sum(run.wrong for run in found))


def runs_of(result: dict[str, Any]) -> Runs:
    """The loads of serving.json."""
    return {
        Load(x["kind"], Way(**x["way"]), x["connections"], x["rows"]): [
            Figures(**run) for run in x["runs"]
        ]
        for x in result["loads"]
    }


def ratio(runs: Runs, load: Load, baseline: str) -> str:
    """How many times the baseline's rate: the median of the repeats (the least to the most)."""
    other = runs[load._replace(way=Way(baseline, "rest"))]
    ratios = [a.per_second / b.per_second for a, b in zip(runs[load], other, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def summary(runs: Runs) -> str:
    """Ratios alone, as a Markdown table."""
    rows = (
        [
            f"{WAYS[way].removeprefix('this project, ')}, {_cell(connections, images)}",
            *(
                ratio(runs, Load(kind, way, connections, images), baseline)
                for kind in KINDS
                for baseline in BASELINES
            ),
        ]
        for way in OURS
        for connections, images in CELLS
    )
    heads = (f"{kind}: `parallel_workers: 0` | default" for kind in KINDS.values())
    return results.markdown(f"| times MLServer's rate | {' | '.join(heads)} |", rows)


def table(runs: Runs) -> str:
    """Rates, latencies and ratios as a Markdown table."""
    head = (
        "| | | requests a second | p50, ms | p99, ms "
        "| times `parallel_workers: 0` | times default |"
    )
    return results.markdown(head, _rows(runs))


def _rows(runs: Runs) -> Iterator[list[str]]:
    for kind, model in KINDS.items():
        for connections, images in CELLS:
            for way, name in WAYS.items():
                load = Load(kind, way, connections, images)
                found = median(runs[load])
                yield [
                    f"{model}, {_cell(connections, images)}",
                    name,
                    *(f"{x:,.{(x < 100) + (x < 10)}f}" for x in found[:3]),  # noqa: PLR2004
                    *(ratio(runs, load, b) if way in OURS else "" for b in BASELINES),
                ]


def _cell(connections: int, images: int) -> str:
    over = f"{connections} connection{'s' * (connections > 1)}"
    return over if images == 1 else f"{over}, {images:,} images a request"


def starts(result: dict[str, Any]) -> str:
    """Seconds until both models are ready, and memory, as a Markdown table."""
    memory = result["memory_mb"]
    rows = (
        [
            BASELINES.get(whose, "this project"),
            f"{statistics.median(seconds):.1f}",
            f"{statistics.median(memory[f'{whose}: before the first request']):.0f}",
            f"{statistics.median(memory[f'{whose}: after the last request']):.0f}",
        ]
        for whose, seconds in result["start_seconds"].items()
    )
    return results.markdown("| | ready after, s | MB before the first request | after all |", rows)


def scaling(result: dict[str, Any]) -> str:
    """Milliseconds a request by images and cores, as a Markdown table."""
    seconds = [result["rows"][cores][kind] for kind in KINDS for cores in ("1", "2")]
    rows = (
        [f"{images:,}", *(f"{1e3 * x:,.0f}" for x in found)]
        for images, *found in zip(result["images"], *seconds, strict=True)
    )
    return results.markdown("| images | SVM, one core | two | trees, one core | two |", rows)


def report(result: dict[str, Any]) -> str:
    """All of it, for README.md, benchmarks/README.md and docs/serving.md."""
    runs = runs_of(result)
    parts = [summary(runs), table(runs), results.sentence(result), starts(result)]
    if "scaling" in result:
        parts.append(scaling(result["scaling"]))
    return "\n\n".join(parts)
