"""A model that does not fit is not served.  Run: pytest tests/test_unfit.py"""

import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from processes import await_ready, is_ready, ready, started, wait_until
from scratch import edit_json
from test_deploy import healthy
from wire import MODELS, OK, body, infer, log_of, post, tensor

from serving.client import GrpcClient, RestClient
from serving.fashion import integrity
from serving.fashion.integrity import UnfitModelError, check_libraries
from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server

LOADING = """
from mlserver import MLModel

class Model(MLModel):
    async def load(self):
        raise ImportError("no such library")
"""
Change = Callable[[Any], object]


def settings(change: Change) -> Change:
    """Changes the settings of the model in a folder."""
    return lambda folder: edit_json(folder / MODEL_SETTINGS, change)


def extra(change: Change) -> Change:
    """Changes those that are this project's."""
    return settings(lambda s: change(s["parameters"]["extra"]))


DAMAGES: dict[str, tuple[Change, str]] = {  # of a model's folder, and what the log says of it
    "altered": (lambda folder: (folder / "features.npz").write_bytes(b"x"),
        "features.npz: expected SHA-256 .*, got .*; package it again"),
    "removed": (lambda folder: (folder / "model.joblib").unlink(),
        "Invalid URI specified for model removed"),
    "older": (extra(lambda e: e.update(libraries={"scikit-learn": "0.1"})),
        "trained with scikit-learn 0.1, .*; install scikit-learn=="),
    "unsummed": (extra(lambda e: e.pop("sha256")), "missing required field `sha256`"),
    "unversioned": (extra(lambda e: e.pop("libraries")), "missing required field `libraries`"),
    "large": (extra(lambda e: e["limits"].update(body_mb="a lot")),
        r"Expected `int`, got `str` - at `\$.limits.body_mb`"),
    "nowhere": (settings(lambda s: s.update(implementation="nowhere.Model")),
        "nowhere.Model: ModuleNotFoundError: No module named 'nowhere'"),
    "raising": (settings(lambda s: s.update(implementation="raising.Model")),
        "ImportError: no such library"),
}  # fmt: skip


@pytest.fixture(scope="module")
def damaged(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of models each of which has another damage, and of two good ones."""
    copy = Path(shutil.copytree(repository, tmp_path_factory.mktemp("damaged") / "serving"))
    for name, (damage, _) in DAMAGES.items():
        folder = copy / "models" / name / "v1"
        shutil.copytree(copy / "models/fashion-sklearn/v1", folder)
        edit_json(folder / MODEL_SETTINGS, partial(dict.update, name=name))
        damage(folder)
    (copy / "models/raising/v1/raising.py").write_text(LOADING, "utf-8")
    with started(copy, copy.parent) as server:
        wait_until(lambda: log_of(server).count("is not served") >= len(DAMAGES), "all rejected")
        for model in MODELS:
            await_ready(server, model)
        yield server


@pytest.mark.parametrize("name", DAMAGES)
def test_a_model_that_must_not_be_loaded_is_rejected_in_one_line_of_the_log(
    damaged: Server, images: np.ndarray, name: str
):
    (line,) = (line for line in log_of(damaged).splitlines() if f"{name} v1 is not served" in line)
    assert re.search(f"{name} v1 is not served: .*({DAMAGES[name][1]})", line)
    request = body(tensor(images[:2]))
    expected = (404, 404) if "ModuleNotFoundError" in line else (503, grpc.StatusCode.UNAVAILABLE)
    assert tuple(infer(damaged, p, name, request).status for p in ("rest", "grpc")) == expected
    assert not is_ready(damaged, name)
    for client in (RestClient(damaged.rest), GrpcClient(damaged.grpc)):
        assert name in client.models()


def test_the_other_models_are_served_and_the_server_is_not_ready(
    damaged: Server, images: np.ndarray
):
    request = body(tensor(images[:2]))
    for model in MODELS:
        assert infer(damaged, "grpc", model, request).status == OK
    for client in (RestClient(damaged.rest), GrpcClient(damaged.grpc)):
        assert client.ready("fashion-xgboost")
        assert not client.ready()
    assert log_of(damaged).count("Traceback") == 1  # of the model whose own code raises


def test_another_version_of_a_library_is_rejected_or_warned_about():
    here = {name: version(name) for name in ("numpy", "scikit-learn", "xgboost")}
    assert check_libraries(here) == []
    assert check_libraries({"xgboost": "1.0"}) == [
        f"trained with xgboost 1.0, here is {here['xgboost']}"
    ]
    assert check_libraries({"no-such-library": "1"}) == [
        "trained with no-such-library 1, here is none"
    ]
    for name, trained in [("scikit-learn", "1.0"), ("scikit-learn", "99"), ("xgboost", "99.0")]:
        message = f"trained with {name} {trained}, here is .*; install {name}=={trained}"
        with pytest.raises(UnfitModelError, match=message):
            check_libraries({name: trained})


def test_xgboost_counts_without_its_gpu_code_too(monkeypatch: pytest.MonkeyPatch):
    def without_gpu_code(name: str) -> str:
        if name != "xgboost-cpu":
            raise PackageNotFoundError(name)
        return "3.2.0"

    monkeypatch.setattr(integrity, "version", without_gpu_code)
    assert check_libraries({"xgboost": "3.2.0"}) == []
    with pytest.raises(UnfitModelError, match=r"xgboost 3\.3\.0, here is 3\.2\.0"):
        check_libraries({"xgboost": "3.3.0"})


def test_broken_settings_and_missing_samples_leave_the_other_model_served(
    own_repository: Path, tmp_path: Path, images: np.ndarray
):
    (own_repository / "models/fashion-sklearn/v1" / MODEL_SETTINGS).write_text("{", "utf-8")
    (own_repository / "models/samples.json").unlink()
    with ready(own_repository, tmp_path, "fashion-xgboost") as server:
        assert post(server, "fashion-xgboost", body(tensor(images[:2]))).status == OK
        assert not RestClient(server.rest).ready()
        assert not healthy(server.rest.rpartition(":")[2])
        response = requests.get(f"{server.rest}/demo/samples.json", timeout=60)
        assert response.status_code == 404
        assert response.json()["error"] == (
            "expected samples.json in the folder of models, got none; package them again"
        )
