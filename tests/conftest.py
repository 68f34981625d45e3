"""What several tests share: small images, a packaged repository, one real server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scratch import ROOT

from serving.fashion.contract import PIXELS
from serving.server import Server, running
from stages import package, train_sklearn, train_xgboost
from stages.dataset import Images
from stages.download import make_digits
from stages.params import Params, load_params


@pytest.fixture(scope="session")
def params() -> Params:
    """params.yaml, with boosting made short."""
    params = load_params(ROOT / "params.yaml")
    short = params.xgboost.model_copy(update={"n_estimators": 10})
    return params.model_copy(update={"xgboost": short})


@pytest.fixture(scope="session")
def digits() -> tuple[Images, Images]:
    return make_digits()


@pytest.fixture
def small() -> Images:
    """Forty random images of four classes, ten each."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (40, PIXELS), dtype=np.uint8)
    return Images(images, np.arange(40, dtype=np.uint8) % 4, ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def repository(
    tmp_path_factory: pytest.TempPathFactory, digits: tuple[Images, Images], params: Params
) -> Path:
    """A copy of serving/ with both models, trained on digits and packaged, in another place."""
    folder = tmp_path_factory.mktemp("repository")
    train, test = digits
    models = {n: (folder / file.name, runtime) for n, (file, runtime) in package.MODELS.items()}
    svm = train_sklearn.train(train.images, train.labels, params.svm)
    train_sklearn.save(models["fashion-sklearn"][0], svm, test.images)
    trees = train_xgboost.train(train.images, train.labels, params.xgboost)
    train_xgboost.save(models["fashion-xgboost"][0], trees, test.images)
    shutil.copytree(
        ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("models", "__pycache__")
    )
    package.package(folder / "serving" / "models", models, params.package.version, test)
    return folder / "serving"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """One real server for all tests that only ask."""
    with running(repository) as server:
        yield server
