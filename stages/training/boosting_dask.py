"""Boost trees on the workers of a Dask cluster, to which the images are handed batch by batch."""

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
from stages.training.boosting import (
    BATCH,
    HELD_OUT,
    LOSS,
    TRAINING,
    Boosted,
    Subset,
    booster_params,
)

LOCAL_WORKERS = 2  # of a cluster started here; a fixed number, since the trees depend on it
CONNECT_SECONDS = 10  # for a scheduler to answer
WORKERS_SECONDS = 30  # for the first worker to come
PEER_SECONDS = 120  # that workers wait for each other, after which one of them is taken for lost
POLL_SECONDS = 1.0  # between two looks at whether the workers are there
ATTEMPTS = 3  # to train, of which all but the last may lose workers


class Cluster(NamedTuple):
    """workers: addresses, sorted, which fixes what each gets: as many give the same trees again."""

    client: Client
    workers: list[str]


def boost_on_dask(part: Subset, params: Xgboost, rounds: int, held_out: Subset | None) -> Boosted:
    """Boost at most so many rounds; follow the losses of both parts, as boosting.py does.

    When a worker is lost, what it had is handed over anew and training begins again, on those that
    are there then. Raises StageError when none is, or workers are lost again and again.
    """
    with connected(params.scheduler) as client:
        for _ in range(ATTEMPTS):
            workers = ready_workers(client, params.scheduler)
            print(f"boosting on {len(workers)} workers of Dask", flush=True)
            cluster = Cluster(client, workers)
            try:
                found: Boosted = client.sync(_watched, cluster, part, params, rounds, held_out)
                return found
            except (CancelledError, KilledWorker, RuntimeError, xgboost.core.XGBoostError):
                lost = client.sync(_lost, cluster)
                if not lost:
                    raise
                print(f"Dask lost {len(lost)} of {len(workers)} workers meanwhile", flush=True)
        words = "their logs tell why, which often is too little memory"
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
                f"params.yaml: xgboost.scheduler is {scheduler}, where no scheduler answers "
                f"({type(error).__name__}); start one with: dask scheduler, or set it to null"
            ) from None
        with client:
            yield client
        return
    size = {"n_workers": LOCAL_WORKERS, "threads_per_worker": max(1, CPU_COUNT // LOCAL_WORKERS)}
    quiet = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
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
    """Boost, but not in vain: what waits for data that was lost with a worker waits for ever."""
    boosting = asyncio.ensure_future(_boost(cluster, *arguments))
    try:
        while not boosting.done():
            if await _lost(cluster):
                raise CancelledError
            await asyncio.wait([boosting], timeout=POLL_SECONDS)
        return boosting.result()
    finally:
        boosting.cancel()


async def scatter_batches(cluster: Cluster, part: Subset) -> tuple[da.Array, da.Array]:
    """Send a part to the workers in turn, batch by batch; inputs and labels as they lie there."""
    client, workers = cluster
    arrays: tuple[list[da.Array], list[da.Array]] = ([], [])
    size = min(BATCH, -(-len(part.positions) // len(workers)))
    for number, batch in enumerate(part.batches(size)):
        worker = workers[number % len(workers)]
        futures = await client.scatter(list(batch), workers=[worker], hash=False)
        for values, future, there in zip(batch, futures, arrays, strict=True):
            there.append(da.from_delayed(dask.delayed(future), values.shape, values.dtype))
    inputs, labels = (da.concatenate(there) for there in arrays)
    return inputs, labels


async def _boost(
    cluster: Cluster, part: Subset, params: Xgboost, rounds: int, held_out: Subset | None
) -> Boosted:
    client = cluster.client
    bins = {"max_bin": params.max_bin}
    data = await engine.DaskQuantileDMatrix(client, *await scatter_batches(cluster, part), **bins)
    followed = []
    if held_out:
        unseen = await scatter_batches(cluster, held_out)
        checked = await engine.DaskQuantileDMatrix(client, *unseen, ref=data, **bins)
        followed = [(data, TRAINING), (checked, HELD_OUT)]
    trained = await engine.train(
        client,
        booster_params(params, int(part.labels.max()) + 1),
        data,
        rounds,
        evals=followed,
        early_stopping_rounds=params.early_stopping_rounds if held_out else None,
        verbose_eval=False,
        coll_cfg=Config(timeout=PEER_SECONDS, tracker_timeout=PEER_SECONDS),
    )
    losses = {name: values[LOSS] for name, values in trained["history"].items()}
    return Boosted(trained["booster"], losses)
