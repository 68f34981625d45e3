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
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from benchmarks import load, results
from benchmarks.processes import cpu_seconds, in_new_process, memory_mb, only_cores, serving
from benchmarks.results import published
from benchmarks.training import ALL, train
from serving.client import infer_request
from serving.fashion.contract import INPUT_NAME, PIXELS
from serving.fashion.packaged import REPOSITORY
from serving.launch import Server
from stages.console import run
from stages.data.idx import TEST_FILES

RESULT = Path("benchmarks/serving.json")
SECONDS, REPEATS = 3.0, 3
SCALING_IMAGES = (100, 300, 1_000, 3_000, 10_000)
KINDS = {"sklearn": "SVM", "xgboost": "trees"}
BASELINES = {"workers-0": "MLServer, `parallel_workers: 0`", "default": "MLServer, default"}
CELLS = ((1, 1), (8, 1), (64, 1), (1, 1024))  # connections, images a request
BLOG = Path("data/blog")  # the blog's models, trained once, which takes six minutes
# Logs of each request would cost MLServer time.
SETTINGS = {"workers-0": {"debug": False, "parallel_workers": 0}, "default": {"debug": False}}
METHOD = "/inference.GRPCInferenceService/ModelInfer"


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


def scaling_table(result: dict[str, Any]) -> str:
    """Milliseconds a request by images and cores, as a Markdown table."""
    seconds = [result["rows"][cores][kind] for kind in KINDS for cores in ("1", "2")]
    rows = (
        [f"{images:,}", *(f"{1e3 * x:,.0f}" for x in found)]
        for images, *found in zip(result["images"], *seconds, strict=True)
    )
    return results.markdown("| images | SVM, one core | two | trees, one core | two |", rows)


def baseline_repository(baseline: str) -> Path:
    """The blog's models under one of BASELINES, for a server that starts before the next call.

    The models are trained unless they are there.
    """
    for kind in KINDS:
        if not (BLOG / f"models/blog-{kind}").exists():
            print(f"training the blog's model with {kind}, once", flush=True)
            in_new_process(train, f"blog_{kind}", ALL, BLOG, f"blog-{kind}")
    (BLOG / "settings.json").write_text(json.dumps(SETTINGS[baseline]), encoding="utf-8")
    return BLOG


def request(
    server: Server, way: Way, kind: str, images: np.ndarray, count: int | None = None
) -> tuple[str, str, bytes]:
    """Protocol, address and payload of a Job that sends these images to one model.

    count: of images in the shape, another number than there are for a bad request.
    """
    model = f"{'blog' if way.whose in BASELINES else way.whose}-{kind}"
    shape = [count or len(images), PIXELS]
    if way.protocol == "grpc":
        return way.protocol, f"{server.grpc} {METHOD}", _message(model, images, shape)
    body = infer_request(images, "FP64") | {"id": "1"}
    body["inputs"][0]["shape"] = shape
    return way.protocol, f"{server.rest}/v2/models/{model}/infer", json.dumps(body).encode()


def _message(model: str, images: np.ndarray, shape: Sequence[int]) -> bytes:
    from tritonclient.grpc import service_pb2 as pb  # noqa: PLC0415 (see GrpcClient)

    message = pb.ModelInferRequest(model_name=model, id="1")
    message.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=shape)
    message.raw_input_contents.append(images.tobytes())
    return message.SerializeToString()


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


def report(result: dict[str, Any]) -> str:
    """All of it, for README.md, benchmarks/README.md and docs/serving.md."""
    runs = runs_of(result)
    parts = [summary(runs), table(runs), results.sentence(result), starts(result)]
    if "scaling" in result:
        parts.append(scaling_table(result["scaling"]))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of all, alternating")
    options = parser.parse_args()
    images = published(TEST_FILES).images
    result = results.conditions() | compare(images, options.repeats, options.seconds)
    if options.seconds >= SECONDS and options.repeats >= REPEATS:
        result["scaling"] = scaling(images, options.seconds)
    print(f"\n{report(result)}\n")
    if "scaling" in result:
        results.write(RESULT, result)


if __name__ == "__main__":
    run(main)
