"""How serving grows: with the threads of a model, and with the images a request."""

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.load import Job
from benchmarks.servers import KINDS, OUR_GRPC, end_load, question, start_load
from serving.launch import running

ROWS = (100, 300, 1_000, 3_000, 10_000)
SECONDS, REPEATS = 2.0, 3


def measure_scaling(images: np.ndarray) -> dict[str, Any]:
    """Of this project's server, by model.

    rows: seconds a request over gRPC by its images, with one thread and with two; serial: the share
    of 10,000 images that a second thread does not shorten (Amdahl).
    """
    cores = sorted(os.sched_getaffinity(0))
    rows = {threads: _seconds(images, set(cores[:threads])) for threads in (1, 2)}
    one, two = (rows[threads] for threads in (1, 2))
    serial = {kind: 2 * two[kind][-1] / one[kind][-1] - 1 for kind in KINDS}
    return {"images": ROWS, "rows": rows, "serial": serial}


def _seconds(images: np.ndarray, cores: set[int]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with _only(cores), running() as server:
        for count in ROWS:
            for kind in KINDS:
                asked = Job(*question(server, OUR_GRPC, kind, images[:count]), 1, 0.0, SECONDS)
                runs = [end_load(start_load(asked)) for _ in range(REPEATS)]
                found[kind].append(statistics.median(r.p50 or 0.0 for r in runs) / 1e3)
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
