"""A model that does not fit is not served.  Run: pytest tests/test_unfit.py"""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from processes import is_ready, started, wait_until
from scratch import edit_json
from test_deploy import healthy
from wire import OK, REFUSED, ask, body, post, tensor

from serving.client import GrpcClient, RestClient
from serving.fashion import integrity
from serving.fashion.integrity import UnfitModelError, check_libraries
from serving.fashion.packaged import MODEL_SETTINGS
from stages.data.idx import Images


def truncate(folder: Path) -> None:
    file = folder / "model.joblib"
    file.write_bytes(file.read_bytes()[:-1])


def alter(folder: Path) -> None:
    file = folder / "features.npz"
    file.write_bytes(b"x" + file.read_bytes()[1:])


def remove(folder: Path) -> None:
    (folder / "model.joblib").unlink()


def train_with_another_library(folder: Path) -> None:
    def edit(settings: dict[str, Any]) -> None:
        settings["parameters"]["extra"]["libraries"]["scikit-learn"] = "0.1"

    edit_json(folder / MODEL_SETTINGS, edit)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "model.joblib: expected SHA-256 .*, got .*; package it again"),
        (alter, "features.npz: expected SHA-256 .*, got .*; package it again"),
        (remove, "Invalid URI specified for model fashion-sklearn"),
        (train_with_another_library, "trained with scikit-learn 0.1, .*; install scikit-learn=="),
    ],
)
def test_a_model_that_must_not_be_loaded_is_refused_and_the_other_one_served(
    own_repository: Path,
    tmp_path: Path,
    digits: tuple[Images, Images],
    damage: Callable[[Path], None],
    words: str,
):
    damage(own_repository / "models/fashion-sklearn/v1")
    with started(own_repository, tmp_path) as (_, server):
        wait_until(lambda: is_ready(server, "fashion-xgboost"), "the other model")
        wait_until(lambda: "is not served" in server.log.read_text("utf-8"), "a line of the log")
        lines = [x for x in server.log.read_text("utf-8").splitlines() if "is not served" in x]
        assert len(lines) == 1
        assert re.search(f"fashion-sklearn v1 is not served: .*({words})", lines[0])
        request = body(tensor(digits[1].images[:2]))
        assert ask(server, "grpc", "fashion-xgboost", request).status == OK
        assert post(server, "fashion-sklearn", request).status == REFUSED
        rest, grpc = RestClient(server.rest), GrpcClient(server.grpc)
        for client in (rest, grpc):
            assert not client.ready()
            assert not client.ready("fashion-sklearn")
            assert client.ready("fashion-xgboost")


def test_another_version_of_a_library_is_refused_or_warned_about():
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


def test_broken_settings_of_a_model_leave_the_other_one_served_and_the_server_not_ready(
    own_repository: Path, tmp_path: Path, digits: tuple[Images, Images]
):
    (own_repository / "models/fashion-sklearn/v1" / MODEL_SETTINGS).write_text("{", "utf-8")
    with started(own_repository, tmp_path) as (_, server):
        wait_until(lambda: is_ready(server, "fashion-xgboost"), "the other model")
        assert post(server, "fashion-xgboost", body(tensor(digits[1].images[:2]))).status == OK
        assert not RestClient(server.rest).ready()
        assert not healthy(server.rest.rpartition(":")[2])
