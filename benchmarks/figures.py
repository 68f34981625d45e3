"""What serving.json has: loads on a server, their figures, and how these compare."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

from benchmarks import results

KINDS = ("sklearn", "xgboost")
WHOSE = ("blog", "fashion")
PROTOCOLS = {"rest": "REST", "grpc": "gRPC"}
SATURATED = 8  # connections, whose rate the blog's way cannot exceed by much
OPEN_CONNECTIONS = 64


class Way(NamedTuple):
    """Whose server, blog or fashion, and how: rest, in JSON of FP64, or grpc, in raw UINT8."""

    whose: str
    protocol: str


WAYS = BLOG_REST, OUR_REST, OUR_GRPC = (
    Way("blog", "rest"),
    Way("fashion", "rest"),
    Way("fashion", "grpc"),
)


class Load(NamedTuple):
    """What is sent to a server. factor: of the rate that saturates the blog's way; 0: closed."""

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


def median(of: Iterable[Figures]) -> Figures:
    """The median of each figure; of what was wrong, all."""
    runs = list(of)
    middle = Figures(*map(statistics.median, zip(*runs, strict=True)))
    return middle._replace(wrong=sum(run.wrong for run in runs))


def figures(result: dict[str, Any]) -> dict[Load, Figures]:
    """The medians of the loads of serving.json."""
    found = {}
    for load in result["loads"]:
        fields = {name: load[name] for name in Load._fields} | {"way": Way(**load["way"])}
        found[Load(**fields)] = median(Figures(**run) for run in load["runs"])
    return found


def ratios(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times better than the blog's each figure is, by measure and model."""
    found, seconds = figures(result), result["seconds"]
    (labels,) = {x.split(": ")[1] for x in seconds if x.endswith("labels")}
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for kind in KINDS:
        for way, connections in product((OUR_REST, OUR_GRPC), (1, SATURATED, OPEN_CONNECTIONS)):
            ours, blog = (
                found[Load(kind, w, connections, 1, 0.0)].per_second for w in (way, BLOG_REST)
            )
            over = f"{connections} connection{'s' * (connections > 1)}"
            name = f"single images a second, {PROTOCOLS[way.protocol]}, {over}"
            rows[name][kind] = ours / blog
        for way in (OUR_REST, OUR_GRPC):
            blog = found[Load(kind, BLOG_REST, SATURATED, 1, 0.0)].p99
            if (load := Load(kind, way, OPEN_CONNECTIONS, 1, 1.0)) in found:
                name = f"p99 at the rate that saturates the blog's way, {PROTOCOLS[way.protocol]}"
                rows[name][kind] = blog / found[load].p99
        blog, ours = (statistics.median(seconds[f"{w}-{kind}: {labels}"]) for w in WHOSE)
        rows[f"{labels}, each with its own client"][kind] = blog / ours
    return dict(rows)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Ratios as a Markdown table."""
    cells = ([name, *(f"{row[kind]:.1f}" for kind in KINDS)] for name, row in rows.items())
    return results.markdown("| times the blog's way | SVM | trees |", cells)
