"""XGBoost's engines train alike, in memory and on Dask.  Run: pytest tests/test_engines.py"""

import asyncio
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import psutil
import pytest
from scratch import CountedRows, Digits, Fitted, deep
from xgboost import XGBClassifier

from stages import train_xgboost
from stages.console import StageError
from stages.params import Params, Xgboost
from stages.training import boosting
from stages.training.boosting import Subset

needs_dask = pytest.mark.skipif(not find_spec("distributed"), reason="no Dask: make dask")
boosting_dask: Any = find_spec("distributed") and import_module("stages.training.boosting_dask")


def on_dask(params: Params, scheduler: str | None = None, **changes: object) -> Xgboost:
    update = {"engine": "dask", "scheduler": scheduler} | changes
    return params.xgboost.model_copy(update=update)


def test_in_memory_trains_what_an_xgbclassifier_does(everything: Subset, params: Params):
    section = params.xgboost
    trained = train_xgboost.boost(everything, section, 5).booster
    values = section.model_dump(exclude=boosting.EXCLUDED)
    stock = XGBClassifier(n_estimators=5, tree_method="hist", eval_metric="mlogloss", **values)
    stock.fit(*everything.whole())
    assert trained.save_raw() == stock.get_booster().save_raw()


@pytest.fixture
def everything(fitted: Fitted, digits: Digits, params: Params) -> Subset:
    """All digits that train."""
    labels = digits[0].labels
    inputs = fitted[1][:, : params.xgboost.components]
    return Subset(inputs, labels, np.arange(len(labels)))


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """A scheduler and so many workers, each in a process, until the end of a `with` block."""
    with import_module("distributed").SubprocessCluster(
        worker_class="distributed.Worker",  # which, unlike a Nanny, is not started again
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as started:
        if workers:
            started.wait_for_workers(workers, timeout=60)
        yield started


@pytest.fixture(scope="module")
def two_workers() -> Iterator[str]:
    with cluster(2) as started:
        yield started.scheduler_address


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting_dask, "BATCH", 200)


@needs_dask
@pytest.mark.usefixtures("small_batches")
def test_two_workers_train_as_well_and_the_same_each_time_with_a_batch_on_the_client(
    fitted: Fitted,
    digits: Digits,
    params: Params,
    two_workers: str,
    capfd: pytest.CaptureFixture[str],
):
    inputs = fitted[1][:, : params.xgboost.components]
    rows: Any = CountedRows(inputs)
    labels = digits[0].labels
    local = train_xgboost.fit(inputs, labels, params.xgboost, params.calibration)
    section = on_dask(params, two_workers)
    first, second = (train_xgboost.fit(rows, labels, section, params.calibration) for _ in range(2))
    raw = [trained.model.get_booster().save_raw() for trained in (first, second)]
    assert raw[0] == raw[1]
    assert rows.most <= 300
    assert "boosting on 2 workers of Dask" in capfd.readouterr().out
    assert first.losses.keys() == local.losses.keys()
    test = fitted[0](digits[1].images)[:, : params.xgboost.components]
    on_workers, in_memory = (
        (trained.model.predict(test) == digits[1].labels).mean() for trained in (first, local)
    )
    assert on_workers == pytest.approx(in_memory, abs=0.02)


@needs_dask
@deep
@pytest.mark.parametrize("phase", ["DaskQuantileDMatrix", "train"])
def test_a_worker_killed_midway_is_survived(
    phase: str,
    everything: Subset,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
):
    real = getattr(boosting_dask.engine, phase)

    async def kill_during(client: Any, *given: Any, **more: Any) -> Any:
        """What the phase does, with a worker killed while it is at work, the first time."""
        work = asyncio.ensure_future(real(client, *given, **more))
        while worker.is_running() and not work.done():
            await asyncio.sleep(0.01)
            if phase == "DaskQuantileDMatrix" or any((await client.processing()).values()):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
        return await work

    monkeypatch.setattr(boosting_dask.engine, phase, kill_during)
    monkeypatch.setattr(boosting_dask, "PEER_SECONDS", 5)
    with cluster(2) as started:
        worker = psutil.Process(started.workers[0].process.pid)
        section = on_dask(params, started.scheduler_address, learning_rate=0.01)
        with redirect_stdout(io.StringIO()) as output:
            boosted = train_xgboost.boost(everything, section, 60)
    assert output.getvalue() == (
        "boosting on 2 workers of Dask\n"
        "Dask lost 1 of 2 workers meanwhile\n"
        "boosting on 1 workers of Dask\n"
    )
    assert boosted.booster.num_boosted_rounds() == 60


@needs_dask
def test_no_workers_is_one_line(
    everything: Subset, params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(boosting_dask, "WORKERS_SECONDS", 0.5)
    words = r"Dask has no worker at \S+ after 0.5 s; "
    with cluster(0) as started, pytest.raises(StageError, match=words):
        train_xgboost.boost(everything, on_dask(params, started.scheduler_address), 1)


@needs_dask
def test_a_worker_with_another_xgboost_is_one_line(
    two_workers: str, everything: Subset, params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(boosting_dask.xgboost, "__version__", "9.8.7")
    with pytest.raises(StageError, match=r"has xgboost 3\.\S+, expected 9\.8\.7; install"):
        train_xgboost.boost(everything, on_dask(params, two_workers), 1)


@needs_dask
def test_no_scheduler_is_one_line(
    everything: Subset, params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(boosting_dask, "CONNECT_SECONDS", 1)
    with pytest.raises(StageError, match=r"scheduler is tcp://127.0.0.1:9, where no scheduler res"):
        train_xgboost.boost(everything, on_dask(params, "tcp://127.0.0.1:9"), 1)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(boosting, "find_spec", lambda _: None)
    train_xgboost.check_engine(params.xgboost)
    with pytest.raises(StageError) as error:
        train_xgboost.check_engine(on_dask(params))
    assert str(error.value) == (
        "params.yaml: xgboost.engine is dask, but dask, distributed, pyarrow is not installed; "
        "install it with: pip install -r requirements-dask.txt, or use local"
    )
