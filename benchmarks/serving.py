"""Measure serving, this project's way beside the blog's, alternating.

Both servers are up, each with both models, and are asked in turn: over so many connections, which
ask again as soon as they are answered (closed loop), for so many images a request; then at fixed
rates (open loop, see load.py); then by each project's own way for 10,000 images. Servers, load
generator and clients share the machine's cores.

Run: make bench-serving, or python -m benchmarks.serving [--quick] [--repeats N], after make run
Writes benchmarks/serving.json and two pictures, or with --quick only prints.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.conditions import conditions
from benchmarks.figures import Figures, Load, Loads, figures, median
from benchmarks.load import Job
from benchmarks.pictures import PICTURES, draw
from benchmarks.scaling import measure_scaling
from benchmarks.servers import (
    BLOG_REST,
    KINDS,
    OUR_GRPC,
    OUR_REST,
    WAYS,
    WHOSE,
    Way,
    blog_repository,
    cpu_seconds,
    end_load,
    memory_mb,
    question,
    start_load,
)
from serving.client import DIRECT, GrpcClient, infer_request
from serving.fashion.contract import CLASS_NAMES, LABELS
from serving.fashion.packaged import REPOSITORY
from serving.launch import Server, running
from stages.dataset import RAW, TEST_FILES, read_idx
from stages.errors import StageError, run

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
ANSWER_SECONDS = 600.0
SATURATED = 8  # connections, whose rate the blog's way cannot exceed by much
RATES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of that, as far as a way gets
OPEN_CONNECTIONS = 64
PROTOCOLS = {"rest": "REST", "grpc": "gRPC"}
Servers = dict[str, Server]  # by whose they are


def measure(servers: Servers, load: Load, images: np.ndarray, rate: float = 0.0) -> Figures:
    """Put one load on."""
    server = servers[load.way.whose]
    asked = question(server, load.way, load.kind, images[: load.rows])
    used = cpu_seconds(server)
    seconds = OPEN_SECONDS if rate else SECONDS
    came = end_load(start_load(Job(*asked, load.connections, rate, seconds)))
    used = cpu_seconds(server) - used
    if came.p50 is None or came.p95 is None or came.p99 is None:
        raise StageError(f"{load.way.whose}-{load.kind}: nothing was answered")
    cpu_ms = round(1e3 * used / came.sent, 3)
    at = f"{rate:g} a second" if rate else "as fast as can be"
    what = f"{load.rows:,} images a request, {load.connections} connections, {at}"
    done = f"{came.per_second:,.1f} answers a second, p99 {came.p99:,.1f} ms, {came.wrong} wrong"
    print(f"{load.way.whose}-{load.kind}, {load.way.protocol}, {what}: {done}", flush=True)
    return Figures(came.per_second, came.p50, came.p95, came.p99, cpu_ms, came.wrong)


def closed_loops(
    servers: Servers, images: np.ndarray, cells: Iterable[tuple[int, int]], into: Loads
) -> None:
    """Each cell once for each model and way, in turn."""
    for connections, rows in cells:
        for kind, way in product(KINDS, WAYS):
            load = Load(kind, way, connections, rows, 0.0)
            into[load].append(measure(servers, load, images))


def open_loops(servers: Servers, images: np.ndarray, into: Loads) -> None:
    """Each rate once for each model and way, in turn, up to what a way answers at best."""
    for factor, kind, way in product(RATES, KINDS, WAYS):
        blog = median(into[Load(kind, BLOG_REST, SATURATED, 1, 0.0)]).per_second
        best = median(into[Load(kind, way, OPEN_CONNECTIONS, 1, 0.0)]).per_second
        if factor * blog <= 1.1 * best:
            load = Load(kind, way, OPEN_CONNECTIONS, 1, factor)
            into[load].append(measure(servers, load, images, round(factor * blog, 1)))


def labels_of_all(server: Server, way: Way, kind: str, images: np.ndarray) -> float:
    """Seconds from arrays to labels: the blog's one request of JSON, or this project's client."""
    model, start = f"{way.whose}-{kind}", time.perf_counter()
    if way.protocol == "grpc":
        labels = GrpcClient(server.grpc).infer(model, images)[LABELS]
    else:
        address, body = f"{server.rest}/v2/models/{model}/infer", infer_request(images, "FP64")
        said = requests.post(address, json=body, timeout=ANSWER_SECONDS, proxies=DIRECT).json()
        labels = np.array(said["outputs"][0]["data"])
    seconds = time.perf_counter() - start
    if len(labels) != len(images):
        raise StageError(f"{model}: {len(labels):,} labels for {len(images):,} images")
    return seconds


def measure_all(images: np.ndarray, repeats: int, quick: bool) -> dict[str, Any]:
    """All figures, each repeat's."""
    repositories = {"blog": blog_repository(), "fashion": REPOSITORY}
    loads: Loads = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        with ExitStack() as stack:
            servers = {}
            for whose, repository in repositories.items():
                start = time.perf_counter()
                servers[whose] = stack.enter_context(running(repository))
                seconds[f"{whose}: start, both models ready"].append(time.perf_counter() - start)
                memory[f"{whose}: before the first request"].append(memory_mb(servers[whose]))
            closed_loops(servers, images, QUICK_CELLS if quick else CELLS, loads)
            for kind, way in product(KINDS, (BLOG_REST, OUR_GRPC)):
                taken = labels_of_all(servers[way.whose], way, kind, images)
                seconds[f"{way.whose}-{kind}: {len(images):,} images to labels"].append(taken)
            if not quick:
                open_loops(servers, images, loads)
            for whose, server in servers.items():
                memory[f"{whose}: after the last request"].append(memory_mb(server))
    return {
        "loads": [
            load._asdict() | {"way": load.way._asdict(), "runs": [f._asdict() for f in figures]}
            for load, figures in loads.items()
        ],
        "seconds": seconds,
        "memory_mb": memory,
    }


def ratios(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times better than the blog's each figure is, by measure and model."""
    found, seconds = figures(result), result["seconds"]
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for kind in KINDS:
        for way, connections in product((OUR_REST, OUR_GRPC), (1, SATURATED, OPEN_CONNECTIONS)):
            ours = found[Load(kind, way, connections, 1, 0.0)].per_second
            blog = found[Load(kind, BLOG_REST, connections, 1, 0.0)].per_second
            over = f"{connections} connection{'s' * (connections > 1)}"
            name = f"single images a second, {PROTOCOLS[way.protocol]}, {over}"
            rows[name][kind] = ours / blog
        for way in (OUR_REST, OUR_GRPC):
            blog = found[Load(kind, BLOG_REST, SATURATED, 1, 0.0)].p99
            if (load := Load(kind, way, OPEN_CONNECTIONS, 1, 1.0)) in found:
                name = f"p99 at the rate that saturates the blog's way, {PROTOCOLS[way.protocol]}"
                rows[name][kind] = blog / found[load].p99
        (name,) = {x.split(": ")[1] for x in seconds if x.endswith("labels")}
        blog, ours = (statistics.median(seconds[f"{w}-{kind}: {name}"]) for w in WHOSE)
        rows[f"{name}, each with its own client"][kind] = blog / ours
    return dict(rows)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Ratios as a Markdown table."""
    lines = ["| times the blog's way | SVM | trees |", "|---|---|---|"]
    lines += [f"| {name} | {r['sklearn']:.1f} | {r['xgboost']:.1f} |" for name, r in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few cells, no rates")
    parser.add_argument("--repeats", type=int, default=3, help="of all, alternating")
    given = parser.parse_args()
    images = read_idx(RAW / TEST_FILES[0], RAW / TEST_FILES[1], CLASS_NAMES["fashion-mnist"]).images
    measured = measure_all(images, given.repeats, given.quick)
    print(f"\n{table(ratios(measured))}\n")
    if given.quick:
        return
    result = conditions("benchmarks.serving") | {"scaling": measure_scaling(images)} | measured
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(figures(measured))
    print(f"{RESULT}, {', '.join(map(str, PICTURES))} written")


if __name__ == "__main__":
    run(main)
