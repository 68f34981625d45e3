"""Extrapolate what was measured to more requests and images: the tables of deploy/README.md.

Reads benchmarks/serving.json, benchmarks/training.json, params.yaml, dvc.lock; prints Markdown.
Prices are inputs: set yours below.

Run: python -m benchmarks.capacity
"""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.figures import Figures, Load, figures
from benchmarks.growth import exponent
from benchmarks.servers import KINDS, OUR_GRPC, OUR_REST, message
from benchmarks.serving import OPEN_CONNECTIONS, PROTOCOLS
from benchmarks.serving import RESULT as SERVING
from benchmarks.soak import SHARE
from benchmarks.training import RESULT as TRAINING
from serving.client import infer_request
from serving.fashion.contract import CLASS_NAMES, PIXEL_MAX, PIXELS
from stages.errors import run
from stages.params import PARAMS, Params, load_params

CORE_HOUR = 0.0765 / 2  # $ a vCPU: EC2's c6a.large has two; on demand, us-east-1
GB_BETWEEN_ZONES = 0.02  # $: EC2 takes half from either side
MONTH = 730  # hours
NODE_CORES = 64
# Kubernetes, sig-scalability/configs-and-limits/thresholds.md: endpoints of a Service, pods of a
# namespace; Knative, pkg/autoscaler/config: defaultTargetUtilization; S3, "Best practices design
# patterns: optimizing Amazon S3 performance": GETs a second and prefix.
ENDPOINTS, PODS, TARGET_UTILIZATION, GETS = 250, 3_000, 0.7, 5_500
RATES = (1_000, 100_000, 10_000_000)  # requests a second
IMAGES = (60_000, 1_000_000, 100_000_000)  # to train on, the first measured
BATCH = 1024  # images a request
SECONDS = {"s": 1, "min": 60, "h": 3600, "days": 86_400, "years": 365.25 * 86_400}
GIB = {"Mi": 1 / 1024, "Gi": 1}
FLOAT32 = 4  # bytes
MODELS = ("SVM", "trees")  # of KINDS
BEYOND = (2.0, 1.0)  # powers of the images: of kernels between all pairs, of passes over all
Found = dict[Load, Figures]
ALONE, SINGLE, MANY = (
    [Load("", way, connections, rows, 0.0) for way in (OUR_REST, OUR_GRPC)]  # of any kind
    for connections, rows in ((1, 1), (OPEN_CONNECTIONS, 1), (1, BATCH))
)


def two_digits(number: float) -> str:
    """A number above 0, rounded to two digits that count."""
    rounded = float(f"{number:.1e}")
    places = 0 if isinstance(number, int) else max(1 - math.floor(math.log10(rounded)), 0)
    return f"{rounded:,.{places}f}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there is one, from a second."""
    unit = max((u for u in SECONDS if SECONDS[u] <= seconds), key=SECONDS.__getitem__)
    return f"{two_digits(seconds / SECONDS[unit])} {unit}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def by_model(*columns: str) -> list[str]:
    """Heads of columns, once for each model."""
    return [f"{model}: {column}" for model, column in product(MODELS, columns)]


def words(asked: Load) -> str:
    """How a server is asked."""
    return f"{PROTOCOLS[asked.way.protocol]}, {asked.rows:,} image{'s' * (asked.rows > 1)}"


def body(asked: Load) -> int:
    """Bytes of a request, at most: of white images, whose numbers are the longest."""
    white = np.full((asked.rows, PIXELS), PIXEL_MAX, np.uint8)
    if asked.way == OUR_GRPC:
        return len(message("fashion-sklearn", white, white.shape))
    return len(json.dumps(infer_request(white)))


def per_core(found: Found, asked: Load, kind: str) -> float:
    """Requests that a second of one core's time answers."""
    return 1e3 / found[asked._replace(kind=kind)].cpu_ms


def replicas(found: Found, asked: Load, kind: str, rate: float, params: Params) -> int:
    """That answer so many requests a second, each at SHARE of what it can."""
    return math.ceil(rate / (SHARE * per_core(found, asked, kind) * params.deploy.cpu))


def cores(found: Found) -> str:
    """What a core does, by how it is asked."""
    head = ["asked", "connections", "bytes, at most"]
    head += by_model("requests a second", "images a second", "p99, ms")
    rows = []
    for asked in (*ALONE, *SINGLE, *MANY):
        cells = [words(asked), str(asked.connections), f"{body(asked):,}"]
        for kind in KINDS:
            rate, p99 = per_core(found, asked, kind), found[asked._replace(kind=kind)].p99
            cells += map(two_digits, (rate, rate * asked.rows, p99))
        rows.append(cells)
    return table(head, rows)


def serving(found: Found, params: Params) -> str:
    """What rates of requests take."""
    head = ["requests a second", "asked", "Gbit/s", "between zones, $ a month"]
    head += by_model("replicas", "GiB", "$ a month")
    requested, rows = params.deploy.memory[0], []
    gib = int(requested[:-2]) * GIB[requested[-2:]]
    for rate, asked in product(RATES, (*SINGLE, *MANY)):
        sent = rate * body(asked) / 1e9
        cells = [sent * 8, sent * 3600 * MONTH * GB_BETWEEN_ZONES]
        for kind in KINDS:
            count = replicas(found, asked, kind, rate, params)
            cells += [count, count * gib, count * params.deploy.cpu * CORE_HOUR * MONTH]
        rows.append([f"{rate:,}", words(asked), *map(two_digits, cells)])
    return table(head, rows)


def cluster(found: Found, params: Params, lock: dict[str, Any]) -> str:
    """What single images take of a cluster, in the way and of the model that take most."""
    head = ["requests a second", "replicas", "scaled by requests", "scaled by processors"]
    head += ["Services", "namespaces", "nodes", "models read, GB", "GETs last, s"]
    (models,) = lock["stages"]["package"]["outs"]
    rows = []
    for rate in RATES:
        count, lone = (
            max(replicas(found, asked, kind, rate, params) for asked, kind in product(how, KINDS))
            for how in (SINGLE, ALONE)
        )
        scaled = math.ceil(rate / (params.deploy.requests_per_second * TARGET_UTILIZATION))
        parts = [math.ceil(count / n) for n in (ENDPOINTS, PODS, NODE_CORES / params.deploy.cpu)]
        start = [count * models["size"] / 1e9, count * models["nfiles"] / GETS]
        rows.append([f"{rate:,}", *map(two_digits, (count, scaled, lone, *parts, *start))])
    return table(head, rows)


def training(growth: dict[str, Any]) -> str:
    """How long training takes, features included, if a power of the images holds from the last."""
    rows = []
    for name, kind, beyond in zip(MODELS, KINDS, BEYOND, strict=True):
        images, seconds = (growth[f"ours_{kind}"][key] for key in ("images", "seconds"))
        for what, power in (
            (f"{images[0]:,} to {images[-1]:,} images", exponent(images, seconds)),
            (f"{images[-2]:,} to {images[-1]:,}", exponent(images[-2:], seconds[-2:])),
            ("none: the work without fixed costs", beyond),
        ):
            times = [duration(seconds[-1] * (n / images[-1]) ** power) for n in IMAGES]
            rows.append([name, what, f"{power:.2f}", *times])
    return table(["", "power found from", "power", *(f"{n:,} images" for n in IMAGES)], rows)


def memory(params: Params) -> str:
    """GB of what training makes, whether it holds it or not."""
    classes = len(CLASS_NAMES["fashion-mnist"])
    held = {
        "pixels, a byte each": PIXELS,
        "columns of the trees, float32": params.xgboost.columns * FLOAT32,
        "features, float32": (classes + (params.features.components or 0)) * FLOAT32,
        "kernel of images and landmarks, float32": (params.scores.landmarks or 0) * FLOAT32,
    }
    rows = [[what, *(two_digits(n * each / 1e9) for n in IMAGES)] for what, each in held.items()]
    return table(["GB", *(f"{n:,} images" for n in IMAGES)], rows)


def tables(root: Path) -> list[str]:
    """All of them, from the files of a checkout."""
    results = (root / path for path in (SERVING, TRAINING))
    measured, trained = (json.loads(path.read_text("utf-8")) for path in results)
    params, found = load_params(root / PARAMS), figures(measured)
    lock = yaml.safe_load((root / "dvc.lock").read_text("utf-8"))
    return [
        cores(found),
        serving(found, params),
        cluster(found, params, lock),
        training(trained["growth"]),
        memory(params),
    ]


def main() -> None:
    print("\n\n".join(tables(Path())))


if __name__ == "__main__":
    run(main)
