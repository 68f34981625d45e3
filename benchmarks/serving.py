"""Measure serving: this project compared with MLServer in its fastest setting and in its default.

Three servers are up, each with both models, and take turns: this project's as `make serve` starts
it, and MLServer's own runtimes with the blog's models, once with `parallel_workers: 0` and once
with one worker process, MLServer's default. Each connection sends again as soon as it has its
response (closed loop, see load.py); all servers start anew for each repeat. Last, this project's
server with one core and with two. Servers and load generator share the machine's cores.

Run: make bench-serving, or python -m benchmarks.serving [--seconds S] [--repeats N], after make run
Writes benchmarks/serving.json, or with shorter loads or fewer repeats only prints.
"""

import argparse
import time
from collections import defaultdict
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import load, results
from benchmarks.augmented import published
from benchmarks.figures import BASELINES, CELLS, KINDS, OUR_GRPC, WAYS, Figures, Load, Runs, report
from benchmarks.processes import only_cores, serving
from benchmarks.servers import baseline_repository, cpu_seconds, memory_mb, request
from serving.fashion.packaged import REPOSITORY
from serving.launch import Server
from stages.console import run
from stages.data.idx import TEST_FILES

RESULT = Path("benchmarks/serving.json")
SECONDS, REPEATS = 3.0, 3
SCALING_IMAGES = (100, 300, 1_000, 3_000, 10_000)


def measure(server: Server, what: Load, images: np.ndarray, seconds: float) -> Figures:
    """Put one load on."""
    sent = request(server, what.way, what.kind, images[: what.rows])
    used = cpu_seconds(server)
    result = uvloop.run(load.run(load.Job(*sent, what.connections, 0.0, seconds)))
    used = cpu_seconds(server) - used
    print(
        f"{WAYS[what.way]}, {KINDS[what.kind]}, {what.rows:,} images a request, "
        f"{what.connections} connections: {result.per_second:,.1f} a second, "
        f"p99 {result.p99:,.1f} ms, {result.wrong} wrong",
        flush=True,
    )
    cpu_ms = round(1e3 * used / result.sent, 3)
    return Figures(result.per_second, result.p50, result.p99, cpu_ms, result.wrong)


def compare(images: np.ndarray, repeats: int, seconds: float) -> dict[str, Any]:
    """Loads, seconds until ready and memory of all servers, each repeat's."""
    runs: Runs = defaultdict(list)
    start_seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        with ExitStack() as stack:
            servers = {}
            for whose in ("fashion", *BASELINES):
                repository = baseline_repository(whose) if whose in BASELINES else REPOSITORY
                start = time.perf_counter()
                servers[whose] = stack.enter_context(serving(repository))
                start_seconds[whose].append(time.perf_counter() - start)
                memory[f"{whose}: before the first request"].append(memory_mb(servers[whose]))
            for (connections, rows), kind, way in product(CELLS, KINDS, WAYS):
                what = Load(kind, way, connections, rows)
                runs[what].append(measure(servers[way.whose], what, images, seconds))
            for whose, server in servers.items():
                memory[f"{whose}: after the last request"].append(memory_mb(server))
    loads = [
        what._asdict() | {"way": what.way._asdict(), "runs": [f._asdict() for f in found]}
        for what, found in runs.items()
    ]
    return {"loads": loads, "start_seconds": start_seconds, "memory_mb": memory}


def scaling(images: np.ndarray, seconds: float) -> dict[str, Any]:
    """How this project's server grows, by model.

    rows: seconds a request over gRPC by its images, with one core and with two; serial: the share
    of the most images that a second core does not shorten (Amdahl).
    """
    rows: dict[str, dict[str, list[float]]] = {"1": defaultdict(list), "2": defaultdict(list)}
    for cores, found in rows.items():
        with only_cores(int(cores)), serving(REPOSITORY) as server:
            for count, kind in product(SCALING_IMAGES, KINDS):
                what = Load(kind, OUR_GRPC, 1, count)
                found[kind].append(measure(server, what, images, seconds).p50 / 1e3)
    serial = {kind: 2 * rows["2"][kind][-1] / rows["1"][kind][-1] - 1 for kind in KINDS}
    return {"images": SCALING_IMAGES, "rows": rows, "serial": serial}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of all, alternating")
    options = parser.parse_args()
    images = published(TEST_FILES).images
    result = results.conditions(RESULT) | compare(images, options.repeats, options.seconds)
    if options.seconds >= SECONDS and options.repeats >= REPEATS:
        result["scaling"] = scaling(images, options.seconds)
    print(f"\n{report(result)}\n")
    if "scaling" in result:
        results.write(RESULT, result)


if __name__ == "__main__":
    run(main)
