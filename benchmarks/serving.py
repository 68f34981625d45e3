"""Measure serving: this project compared with MLServer in its fastest setting and in its default.

Three servers are up, each with both models, and take turns: this project's as `make serve` starts
it, and MLServer's own runtimes with the blog's models, once with `parallel_workers: 0` and once
with one worker process, MLServer's default. Each connection sends again as soon as it has its
response (closed loop, see load.py); all servers start anew for each repeat. Servers and load
generator share the machine's cores.

Run: make bench-serving, or python -m benchmarks.serving [--seconds S] [--repeats N], after make run
Writes benchmarks/serving.json, or with shorter loads or fewer repeats only prints.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from benchmarks import load, results
from benchmarks.processes import cpu_seconds, in_new_process, memory_mb, serving
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
KINDS = {"sklearn": "SVM", "xgboost": "trees"}
BASELINES = {"workers-0": "MLServer, `parallel_workers: 0`", "default": "MLServer, default"}
CELLS = ((1, 1), (8, 1), (64, 1), (1, 1024))  # connections, images a request
BLOG = Path("data/blog")  # the blog's models, trained once, which takes minutes
# Logs of each request would cost MLServer time.
SETTINGS = {"workers-0": {"debug": False, "parallel_workers": 0}, "default": {"debug": False}}
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class Setup(NamedTuple):
    """system: fashion, or one of BASELINES; protocol: rest, in JSON of FP64, or grpc, in UINT8."""

    system: str
    protocol: str


OURS = OUR_REST, OUR_GRPC = Setup("fashion", "rest"), Setup("fashion", "grpc")
PROTOCOLS = {"rest": "REST", "grpc": "gRPC"}
SETUPS = {setup: f"this project, {PROTOCOLS[setup.protocol]}" for setup in OURS} | {
    Setup(system, "rest"): name for system, name in BASELINES.items()
}


class Load(NamedTuple):
    """What is sent to a server."""

    kind: str
    setup: Setup
    connections: int
    rows: int


class Figures(NamedTuple):
    """Of one load, or medians of some. Latencies in ms; cpu_ms: of the server, a request."""

    per_second: float
    p50: float
    p99: float
    cpu_ms: float
    wrong: int


Runs = dict[Load, list[Figures]]  # one a repeat


def runs_of(result: dict[str, Any]) -> Runs:
    """The loads of serving.json."""
    return {
        Load(x["kind"], Setup(**x["setup"]), x["connections"], x["rows"]): [
            Figures(**run) for run in x["runs"]
        ]
        for x in result["loads"]
    }


def ratio(runs: Runs, what: Load) -> str:
    """How many times the rate of `parallel_workers: 0`: median of the repeats (min–max)."""
    other = runs[what._replace(setup=Setup("workers-0", "rest"))]
    ratios = [a.per_second / b.per_second for a, b in zip(runs[what], other, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def table(runs: Runs) -> str:
    """Medians of the repeats, and ratios, as a Markdown table: a line a load."""
    return results.markdown(_row(runs, kind, *cell) for kind, cell in product(KINDS, CELLS))


def _row(runs: Runs, kind: str, connections: int, images: int) -> dict[str, str]:
    several = f"{connections} connection{'s' * (connections > 1)}"
    row = {"model and load": f"{KINDS[kind]}, {several}{f', {images:,} images' * (images > 1)}"}
    loads = {setup: Load(kind, setup, connections, images) for setup in SETUPS}
    for setup, what in loads.items():
        medians = (statistics.median(figures) for figures in zip(*runs[what], strict=True))
        per_second, p50, p99, *_ = map(_three_digits, medians)
        row[SETUPS[setup]] = f"{per_second} ({p50}, {p99})"
    return row | {f"times, {PROTOCOLS[s.protocol]}": ratio(runs, loads[s]) for s in OURS}


def _three_digits(number: float) -> str:
    return f"{number:,.{(number < 100) + (number < 10)}f}"  # noqa: PLR2004


def starts(result: dict[str, Any]) -> str:
    """Seconds until both models are ready, and memory, as a Markdown table."""
    memory = result["memory_mb"]
    return results.markdown(
        {
            "": BASELINES.get(system, "this project"),
            "ready after, s": f"{statistics.median(seconds):.1f}",
            "MB before the first request": f"{statistics.median(memory[system]['before']):.0f}",
            "after all": f"{statistics.median(memory[system]['after']):.0f}",
        }
        for system, seconds in result["start_seconds"].items()
    )


def capacity(runs: Runs) -> str:
    """Images a second that one core can do, by the server's processor time, as a Markdown table."""
    loads = [Load(kind, s, *cell) for s in OURS for cell in ((64, 1), (1, 1024)) for kind in KINDS]
    return results.markdown(
        {
            "sent by": PROTOCOLS[load.setup.protocol],
            "images a request": f"{load.rows:,}",
            "model": KINDS[load.kind],
            "images a second and core": f"{load.rows * 1e3 / cpu_ms:,.0f}",
        }
        for load in loads
        for cpu_ms in [statistics.median(run.cpu_ms for run in runs[load])]
    )


def baseline_repository(baseline: str) -> Path:
    """The blog's models under one of BASELINES, for a server that starts before the next call.

    The models are trained unless they are there.
    """
    for kind in KINDS:
        if not (BLOG / f"models/blog-{kind}").exists():
            print(f"training the blog's model with {kind}, once", flush=True)
            in_new_process(train, f"blog-{kind}", ALL, BLOG)
    (BLOG / "settings.json").write_text(json.dumps(SETTINGS[baseline]), encoding="utf-8")
    return BLOG


def request(
    server: Server, setup: Setup, kind: str, images: np.ndarray, count: int | None = None
) -> tuple[str, str, bytes]:
    """Protocol, address and payload of a Job that sends these images to one model.

    count: of images in the shape, another number than there are for a bad request.
    """
    model = f"{'blog' if setup.system in BASELINES else setup.system}-{kind}"
    shape = [count or len(images), PIXELS]
    if setup.protocol == "grpc":
        return setup.protocol, f"{server.grpc} {METHOD}", _message(model, images, shape)
    body = infer_request(images, "FP64") | {"id": "1"}
    body["inputs"][0]["shape"] = shape
    return setup.protocol, f"{server.rest}/v2/models/{model}/infer", json.dumps(body).encode()


def _message(model: str, images: np.ndarray, shape: Sequence[int]) -> bytes:
    from tritonclient.grpc import service_pb2 as pb  # noqa: PLC0415 (see GrpcClient)

    message = pb.ModelInferRequest(model_name=model, id="1")
    message.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=shape)
    message.raw_input_contents.append(images.tobytes())
    return message.SerializeToString()


def measure(server: Server, what: Load, images: np.ndarray, seconds: float) -> Figures:
    """Put one load on."""
    sent = request(server, what.setup, what.kind, images[: what.rows])
    used = cpu_seconds(server)
    result = uvloop.run(load.run(load.Job(*sent, what.connections, 0.0, seconds)))
    used = cpu_seconds(server) - used
    print(
        f"{SETUPS[what.setup]}, {KINDS[what.kind]}, {what.rows:,} images a request, "
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
    memory: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(repeats):
        with ExitStack() as stack:
            servers = {}
            for system in ("fashion", *BASELINES):
                repository = baseline_repository(system) if system in BASELINES else REPOSITORY
                start = time.perf_counter()
                servers[system] = stack.enter_context(serving(repository))
                start_seconds[system].append(time.perf_counter() - start)
                memory[system]["before"].append(memory_mb(servers[system]))
            for (connections, rows), kind, setup in product(CELLS, KINDS, SETUPS):
                what = Load(kind, setup, connections, rows)
                runs[what].append(measure(servers[setup.system], what, images, seconds))
            for system, server in servers.items():
                memory[system]["after"].append(memory_mb(server))
    loads = [
        what._asdict() | {"setup": what.setup._asdict(), "runs": [f._asdict() for f in found]}
        for what, found in runs.items()
    ]
    return {"loads": loads, "start_seconds": start_seconds, "memory_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of all, alternating")
    options = parser.parse_args()
    result = compare(published(TEST_FILES).images, options.repeats, options.seconds)
    runs = runs_of(result)
    print(f"\n{table(runs)}\n\n{starts(result)}\n\n{capacity(runs)}\n")
    if options.seconds >= SECONDS and options.repeats >= REPEATS:
        results.write(RESULT, result)


if __name__ == "__main__":
    run(main)
