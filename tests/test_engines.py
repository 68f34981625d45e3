"""XGBoost's engines train alike, in memory and on Dask.  Run: pytest tests/test_engines.py"""

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import wait_until
from scratch import (
    REAL_DATA,
    ROOT,
    CountedRows,
    Digits,
    Fitted,
    deep,
    environment,
    fit_features,
    needs_real_data,
)
from xgboost import XGBClassifier

from serving.fashion.contract import CLASS_NAMES
from serving.fashion.model.scores import ScoreArrays, ScoreMap
from stages import train_xgboost
from stages.console import StageError
from stages.data.idx import TRAIN_FILES, read_idx
from stages.data.processed import Images
from stages.params import Params, Xgboost
from stages.training import boosting
from stages.training.boosting import Subset

needs_dask = pytest.mark.skipif(not find_spec("distributed"), reason="no Dask: make dask")
boosting_dask: Any = find_spec("distributed") and import_module("stages.training.boosting_dask")


def on_dask(params: Params, scheduler: str | None = None, **changes: object) -> Xgboost:
    update = {"engine": "dask", "scheduler": scheduler} | changes
    return params.xgboost.model_copy(update=update)


def accuracy(
    model: XGBClassifier, fitted: Fitted, test: Images, scores: ScoreArrays | None = None
) -> float:
    inputs = fitted[0](test.images)
    if scores:
        inputs = np.hstack([ScoreMap(scores)(inputs), inputs])
    return float((model.predict(inputs[:, : model.n_features_in_]) == test.labels).mean())


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


def started(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        cwd=ROOT,
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a real scheduler, and its worker processes; all end in the end."""
    from distributed import Client  # noqa: PLC0415

    file = folder / "scheduler.json"
    here = ("--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(file))
    running = [started("scheduler", *here, "--port", "0")]
    try:
        wait_until(file.exists, "a scheduler")
        options = (*here, "--no-nanny", "--nthreads", "1", "--local-directory", str(folder))
        running += [started("worker", *options) for _ in range(workers)]
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(max(workers, 1), timeout=60) if workers else None
            address = client.scheduler.address
        yield address, running[1:]
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("dask"), 2) as (address, _):
        yield address


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
    assert accuracy(first.model, fitted, digits[1]) == pytest.approx(
        accuracy(local.model, fitted, digits[1]), abs=0.02
    )


@needs_dask
@deep
@needs_real_data
def test_on_real_images_two_workers_are_as_accurate_as_one_process(
    two_workers: str, params: Params
):
    assert REAL_DATA
    full = params.features.model_copy(update={"directions": [16, 64]})
    params = params.model_copy(update={"features": full})
    names = CLASS_NAMES["fashion-mnist"]
    data = read_idx(REAL_DATA / TRAIN_FILES[0], REAL_DATA / TRAIN_FILES[1], names)
    train, other = slice(0, 6_000), slice(6_000, 16_000)
    fitted, features = fit_features(data.images[train], params)
    inputs, scores = train_xgboost.tree_inputs(features, data.labels[train], params.xgboost)
    unseen = data._replace(images=data.images[other], labels=data.labels[other])
    found = []
    for section in (params.xgboost, on_dask(params, two_workers)):
        trained = train_xgboost.fit(inputs, data.labels[train], section, params.calibration)
        found.append(accuracy(trained.model, (fitted, features), unseen, scores))
    assert found[0] > 0.85
    assert found[1] == pytest.approx(found[0], abs=0.003)


@needs_dask
@deep
@pytest.mark.parametrize("phase", ["DaskQuantileDMatrix", "train"])
def test_a_worker_killed_midway_is_survived(
    phase: str,
    everything: Subset,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    real = getattr(boosting_dask.engine, phase)

    async def kill_during(client: Any, *given: Any, **more: Any) -> Any:
        """What the phase does, with a worker killed while it is at work, the first time."""
        work = asyncio.ensure_future(real(client, *given, **more))
        while worker.poll() is None and not work.done():
            await asyncio.sleep(0.01)
            if phase == "DaskQuantileDMatrix" or any((await client.processing()).values()):
                worker.kill()
        return await work

    monkeypatch.setattr(boosting_dask.engine, phase, kill_during)
    monkeypatch.setattr(boosting_dask, "PEER_SECONDS", 5)
    with cluster(tmp_path, 2) as (address, (worker, _)):
        section = on_dask(params, address, learning_rate=0.01)
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
    everything: Subset,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(boosting_dask, "WORKERS_SECONDS", 0.5)
    words = r"Dask has no worker at \S+ after 0.5 s; "
    with cluster(tmp_path, 0) as (address, _), pytest.raises(StageError, match=words):
        train_xgboost.boost(everything, on_dask(params, address), 1)


@needs_dask
def test_a_worker_with_another_xgboost_is_one_line(
    two_workers: str,
    everything: Subset,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
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
