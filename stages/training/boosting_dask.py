"""Boost trees on the workers of a Dask cluster, which get the images batch by batch."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import dask
import dask.array as da
import xgboost
from dask.system import CPU_COUNT
from distributed import CancelledError, Client, KilledWorker, LocalCluster
from xgboost import dask as engine
from xgboost.collective import Config

from stages.console import StageError
from stages.params import Xgboost
from stages.training.boosting import HELD_OUT, LOSS, TRAINING, Boosted, Subset, booster_params

BATCH = 20_000  # images that are read, and sent to a worker, at once
LOCAL_WORKERS = 2  # of a cluster started here; a fixed number, since the trees depend on it
CONNECT_SECONDS = 10  # to connect to a scheduler
WORKERS_SECONDS = 30  # for the first worker to connect
PEER_SECONDS = 120  # that workers wait for each other, after which one counts as lost
POLL_SECONDS = 1.0  # between two checks of the workers
ATTEMPTS = 3  # to train, of which all but the last may lose workers


class Cluster(NamedTuple):
    """workers: addresses, sorted, which fixes what each gets: as many give the same trees again."""

    client: Client
    workers: list[str]


def boost_on_dask(images: Subset, params: Xgboost, rounds: int, held_out: Subset | None) -> Boosted:
    """Boost at most so many rounds; record the losses of both subsets, as boosting.py does.

    When a worker is lost, training restarts on the remaining ones. Raises StageError when none is
    left, or workers are lost ATTEMPTS times.
    """
    with connected(params.scheduler) as client:
        for _ in range(ATTEMPTS):
            workers = ready_workers(client, params.scheduler)
            print(f"boosting on {len(workers)} workers of Dask", flush=True)
            cluster = Cluster(client, workers)
            try:
                found: Boosted = client.sync(_watched, cluster, images, params, rounds, held_out)
                return found
            except (CancelledError, KilledWorker, RuntimeError, xgboost.core.XGBoostError):
                lost = client.sync(_lost, cluster)
                if not lost:
                    raise
                print(f"Dask lost {len(lost)} of {len(workers)} workers meanwhile", flush=True)
        words = "see their logs; often, memory is too small"
        raise StageError(f"Dask lost workers {ATTEMPTS} times in a row; {words}")


@contextmanager
def connected(scheduler: str | None) -> Iterator[Client]:
    """Yield a client of the scheduler, or of a cluster on this machine that ends with it."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise StageError(
                f"params.yaml: xgboost.scheduler is {scheduler}, where no scheduler responds "
                f"({type(error).__name__}); start one with: dask scheduler, or set it to null"
            ) from None
        with client:
            yield client
        return
    size = {"n_workers": LOCAL_WORKERS, "threads_per_worker": max(1, CPU_COUNT // LOCAL_WORKERS)}
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(**size, **quiet) as cluster, Client(cluster) as client:
        yield client


def ready_workers(client: Client, scheduler: str | None) -> list[str]:
    """Addresses of the workers, sorted, at least one, all with this XGBoost."""
    try:
        client.wait_for_workers(1 if scheduler else LOCAL_WORKERS, timeout=WORKERS_SECONDS)
    except TimeoutError:
        raise StageError(
            f"Dask has no worker at {scheduler or 'this machine'} after {WORKERS_SECONDS} s; "
            "start some with: dask worker tcp://…"
        ) from None
    found: Any = client.get_versions(packages=["xgboost"])
    for address, about in found["workers"].items():
        version = about["packages"]["xgboost"]
        if version != xgboost.__version__:
            raise StageError(
                f"worker {address} of Dask has xgboost {version or 'not installed'}, "
                f"expected {xgboost.__version__}; install xgboost=={xgboost.__version__} there"
            )
    return sorted(client.nthreads())


async def _lost(cluster: Cluster) -> set[str]:
    return set(cluster.workers) - set(await cluster.client.nthreads())


async def _watched(cluster: Cluster, *arguments: Any) -> Boosted:
    """Boost until a worker is lost, since a task that needs its data would never end."""
    boosting = asyncio.ensure_future(_boost(cluster, *arguments))
    try:
        while not boosting.done():
            if await _lost(cluster):
                raise CancelledError
            await asyncio.wait([boosting], timeout=POLL_SECONDS)
        return boosting.result()
    finally:
        boosting.cancel()


async def scatter_batches(cluster: Cluster, images: Subset) -> tuple[da.Array, da.Array]:
    """Send images to the workers in turn, batch by batch; returns distributed inputs, labels."""
    client, workers = cluster
    arrays: tuple[list[da.Array], list[da.Array]] = ([], [])
    size = min(BATCH, -(-len(images.positions) // len(workers)))
    for number, batch in enumerate(images.batches(size)):
        worker = workers[number % len(workers)]
        futures = await client.scatter(list(batch), workers=[worker], hash=False)
        for values, future, chunks in zip(batch, futures, arrays, strict=True):
            chunks.append(da.from_delayed(dask.delayed(future), values.shape, values.dtype))
    inputs, labels = (da.concatenate(chunks) for chunks in arrays)
    return inputs, labels


async def _boost(
    cluster: Cluster, images: Subset, params: Xgboost, rounds: int, held_out: Subset | None
) -> Boosted:
    client = cluster.client
    bins = {"max_bin": params.max_bin}
    data = await engine.DaskQuantileDMatrix(client, *await scatter_batches(cluster, images), **bins)
    evals = []
    if held_out:
        held_out_arrays = await scatter_batches(cluster, held_out)
        validation = await engine.DaskQuantileDMatrix(client, *held_out_arrays, ref=data, **bins)
        evals = [(data, TRAINING), (validation, HELD_OUT)]
    trained = await engine.train(
        client,
        booster_params(params, int(images.labels.max()) + 1),
        data,
        rounds,
        evals=evals,
        early_stopping_rounds=params.early_stopping_rounds if held_out else None,
        verbose_eval=False,
        coll_cfg=Config(timeout=PEER_SECONDS, tracker_timeout=PEER_SECONDS),
    )
    losses = {name: values[LOSS] for name, values in trained["history"].items()}
    return Boosted(trained["booster"], losses)
