"""Functions and servers in separate processes, and the memory and time that these take."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from serving.launch import Server, running
from stages import KERNELS

POLL_SECONDS, MB = 0.1, 1e6


def in_new_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What the function returns or raises, and the most MB that its process had at a time.

    Pages of files, which the system takes back when it needs them, do not count.
    """
    peak = 0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        child = psutil.Process(pool.submit(os.getpid).result())
        future = pool.submit(function, *arguments)
        while not wait([future], POLL_SECONDS).done:
            with suppress(psutil.NoSuchProcess):
                memory = child.memory_info()
                peak = max(peak, memory.rss - memory.shared)
    return future.result(), peak / MB


def peak_mb() -> float:
    """The most MiB of this process that were resident at a time, pages of files among them."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def only_cores(count: int) -> Iterator[None]:
    """Let this process, and what it starts meanwhile, use no more than so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(repository: Path) -> Iterator[Server]:
    """A server as `make serve` starts it: with the kernels of its processor, unlike a stage."""
    kernels = {name: os.environ.pop(name) for name in KERNELS if name in os.environ}
    try:
        with running(repository) as server:
            yield server
    finally:
        os.environ.update(kernels)


def processes(server: Server) -> list[psutil.Process]:
    """The server's processes, not the guard that ends them."""
    return psutil.Process(server.guard.pid).children(recursive=True)


def cpu_seconds(server: Server) -> float:
    """That the server's processes have used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(server))


def memory_mb(server: Server) -> float:
    """Of all of the server's processes, the files that they share, libraries mostly, once.

    (Linux also divides shared pages by the processes that have them, other programs' included; when
    one of these ends, that would look like growth.)
    """
    of = [process.memory_info() for process in processes(server)]
    return float(sum(m.rss - m.shared for m in of) + max(m.shared for m in of)) / MB
