"""Measure serving, this project's way compared with the blog's, alternating.

Both servers are up, each with both models, and take turns: over so many connections, each of which
sends again as soon as it has its response (closed loop), with so many images a request; then at
fixed rates (open loop, see load.py); then 10,000 images by each project's own client. Last, this
project's server with one core and with two. Servers, load generator and clients share the
machine's cores.

Run: make bench-serving, or python -m benchmarks.serving [--quick] [--repeats N], after make run
Writes benchmarks/serving.json and two pictures, or with --quick only prints.
"""

import argparse
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import load, pictures, results
from benchmarks.augmented import published
from benchmarks.figures import (
    BLOG_REST,
    KINDS,
    OPEN_CONNECTIONS,
    OUR_GRPC,
    SATURATED,
    WAYS,
    Figures,
    Load,
    Way,
    figures,
    median,
    ratios,
    table,
)
from benchmarks.processes import only_cores, serving
from benchmarks.servers import blog_repository, cpu_seconds, memory_mb, request
from benchmarks.training import labels_by_json
from serving.client import GrpcClient
from serving.fashion.contract import LABELS
from serving.fashion.packaged import REPOSITORY
from serving.launch import Server
from stages.console import StageError, run
from stages.data.idx import TEST_FILES

RESULT = Path("benchmarks/serving.json")
# Connections and images a request; not 64 times 10,000, which would be 3 GB of JSON on its way.
CELLS = (
    *((connections, 1) for connections in (1, 8, 64)),
    *((connections, 16) for connections in (1, 8, 64)),
    *((connections, 128) for connections in (1, 8)),
    (1, 1024),
    (1, 10_000),
)
QUICK_CELLS = ((1, 1), (8, 1), (64, 1), (1, 128))
SECONDS, OPEN_SECONDS = 2.0, 4.0  # of a closed loop, of an open one
RATES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of SATURATED, as far as a way gets
SCALING_IMAGES, SCALING_REPEATS = (100, 300, 1_000, 3_000, 10_000), 3
Servers = dict[str, Server]  # by whose they are
Loads = defaultdict[Load, list[Figures]]


def measure(servers: Servers, what: Load, images: np.ndarray, rate: float = 0.0) -> Figures:
    """Put one load on."""
    server = servers[what.way.whose]
    sent = request(server, what.way, what.kind, images[: what.rows])
    used = cpu_seconds(server)
    seconds = OPEN_SECONDS if rate else SECONDS
    result = uvloop.run(load.run(load.Job(*sent, what.connections, rate, seconds)))
    used = cpu_seconds(server) - used
    print(
        f"{what.way.whose}-{what.kind}, {what.way.protocol}, {what.rows:,} images a request, "
        f"{what.connections} connections, {f'{rate:g} a second' if rate else 'closed loop'}: "
        f"{result.per_second:,.1f} a second, p99 {result.p99:,.1f} ms, {result.wrong} wrong",
        flush=True,
    )
    cpu_ms = round(1e3 * used / result.sent, 3)
    return Figures(result.per_second, result.p50, result.p95, result.p99, cpu_ms, result.wrong)


def open_loops(servers: Servers, images: np.ndarray, into: Loads) -> None:
    """Each rate once for each model and way, in turn, up to the most that a way can do."""
    for factor, kind, way in product(RATES, KINDS, WAYS):
        blog = median(into[Load(kind, BLOG_REST, SATURATED, 1, 0.0)]).per_second
        best = median(into[Load(kind, way, OPEN_CONNECTIONS, 1, 0.0)]).per_second
        if factor * blog <= 1.1 * best:
            what = Load(kind, way, OPEN_CONNECTIONS, 1, factor)
            into[what].append(measure(servers, what, images, round(factor * blog, 1)))


def labels_of_all(server: Server, way: Way, kind: str, images: np.ndarray) -> float:
    """Seconds from arrays to labels: the blog's one request of JSON, or this project's client."""
    model, start = f"{way.whose}-{kind}", time.perf_counter()
    if way.protocol == "grpc":
        labels = GrpcClient(server.grpc).infer(model, images)[LABELS]
    else:
        labels = labels_by_json(server.rest, model, images)
    seconds = time.perf_counter() - start
    if len(labels) != len(images):
        raise StageError(f"{model}: {len(labels):,} labels for {len(images):,} images")
    return seconds


def compare(images: np.ndarray, repeats: int, quick: bool) -> dict[str, Any]:
    """Loads, seconds and memory of both servers, each repeat's."""
    repositories = {"blog": blog_repository(), "fashion": REPOSITORY}
    cells, loads = QUICK_CELLS if quick else CELLS, Loads(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        with ExitStack() as stack:
            servers = {}
            for whose, repository in repositories.items():
                start = time.perf_counter()
                servers[whose] = stack.enter_context(serving(repository))
                seconds[f"{whose}: start, both models ready"].append(time.perf_counter() - start)
                memory[f"{whose}: before the first request"].append(memory_mb(servers[whose]))
            for (connections, rows), kind, way in product(cells, KINDS, WAYS):
                what = Load(kind, way, connections, rows, 0.0)
                loads[what].append(measure(servers, what, images))
            for kind, way in product(KINDS, (BLOG_REST, OUR_GRPC)):
                taken = labels_of_all(servers[way.whose], way, kind, images)
                seconds[f"{way.whose}-{kind}: {len(images):,} images to labels"].append(taken)
            if not quick:
                open_loops(servers, images, loads)
            for whose, server in servers.items():
                memory[f"{whose}: after the last request"].append(memory_mb(server))
    found = [
        what._asdict() | {"way": what.way._asdict(), "runs": [f._asdict() for f in runs]}
        for what, runs in loads.items()
    ]
    return {"loads": found, "seconds": seconds, "memory_mb": memory}


def scaling(images: np.ndarray) -> dict[str, Any]:
    """How this project's server grows, by model.

    rows: seconds a request over gRPC by its images, with one core and with two; serial: the share
    of the most images that a second core does not shorten (Amdahl).
    """
    rows: dict[int, dict[str, list[float]]] = {1: defaultdict(list), 2: defaultdict(list)}
    for cores, seconds in rows.items():
        with only_cores(cores), serving(REPOSITORY) as server:
            for count, kind in product(SCALING_IMAGES, KINDS):
                job = load.Job(*request(server, OUR_GRPC, kind, images[:count]), 1, 0.0, SECONDS)
                runs = [uvloop.run(load.run(job)).p50 for _ in range(SCALING_REPEATS)]
                seconds[kind].append(statistics.median(runs) / 1e3)
    serial = {kind: 2 * rows[2][kind][-1] / rows[1][kind][-1] - 1 for kind in KINDS}
    return {"images": SCALING_IMAGES, "rows": rows, "serial": serial}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few cells, no rates")
    parser.add_argument("--repeats", type=int, default=3, help="of all, alternating")
    options = parser.parse_args()
    images = published(TEST_FILES).images
    measured = compare(images, options.repeats, options.quick)
    print(f"\n{table(ratios(measured))}\n")
    if not options.quick:
        results.write(RESULT, {"scaling": scaling(images)} | measured)
        pictures.draw_serving(figures(measured))


if __name__ == "__main__":
    run(main)
