"""How serving grows: with the threads of a model, with processes, with the images a request."""

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import Job
from benchmarks.servers import KINDS, OUR_GRPC, OUR_REST, end_load, question, start_load
from serving.fashion.packaged import REPOSITORY
from serving.launch import running

WORKERS = (0, 1, 2)  # processes of MLServer beside the one that listens
ROWS = (100, 300, 1_000, 3_000, 10_000)
SECONDS, REPEATS, CONNECTIONS = 2.0, 3, 64


def measure_scaling(images: np.ndarray) -> dict[str, Any]:
    """Of this project's server, by model.

    rows: seconds a request over gRPC by its images, with one thread and with two; serial: the share
    of 10,000 images that a second thread does not shorten (Amdahl); workers: single images a second
    over REST by the number of MLServer's worker processes.
    """
    cores = sorted(os.sched_getaffinity(0))
    rows = {threads: _seconds(images, set(cores[:threads])) for threads in (1, 2)}
    one, two = (rows[threads] for threads in (1, 2))
    serial = {kind: 2 * two[kind][-1] / one[kind][-1] - 1 for kind in KINDS}
    workers = {count: _per_second(images[:1], count) for count in WORKERS}
    return {"images": ROWS, "rows": rows, "serial": serial, "workers": workers}


def _seconds(images: np.ndarray, cores: set[int]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with _only(cores), running() as server:
        for count in ROWS:
            for kind in KINDS:
                asked = Job(*question(server, OUR_GRPC, kind, images[:count]), 1, 0.0, SECONDS)
                runs = [end_load(start_load(asked)) for _ in range(REPEATS)]
                found[kind].append(statistics.median(r.p50 or 0.0 for r in runs) / 1e3)
    return found


def _per_second(image: np.ndarray, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        repository = Path(scratch, "serving")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY, repository, ignore=ignored)
        settings = json.loads((repository / "settings.json").read_text(encoding="utf-8"))
        text = json.dumps(settings | {"parallel_workers": workers})
        (repository / "settings.json").write_text(text, encoding="utf-8")
        with running(repository) as server:
            found = {}
            for kind in KINDS:
                asked = Job(*question(server, OUR_REST, kind, image), CONNECTIONS, 0.0, SECONDS)
                runs = [end_load(start_load(asked)) for _ in range(REPEATS)]
                found[kind] = statistics.median(r.per_second for r in runs)
            return found


@contextmanager
def _only(cores: set[int]) -> Iterator[None]:
    """Have what is started meanwhile use these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
