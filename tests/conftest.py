"""What several tests share: small images, a packaged repository, one real server."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from scratch import (
    PARAMS,
    ROOT,
    Digits,
    Fitted,
    commit,
    fit_features,
    fit_trees,
    make_project,
    run,
)

from serving.fashion.contract import PIXELS
from serving.launch import Server, running
from stages import package, train_sklearn, train_xgboost
from stages.data.arrays import write_npz
from stages.data.digits import make_digits
from stages.data.processed import FEATURES, Images
from stages.params import Params, load_params
from stages.training import dictionary

# A shell runs what it starts in the background with Ctrl-C ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


# These files take longest, so they begin first, in this order: all test processes end at about one
# time. The first makes `trained`; others go without it meanwhile.
LONGEST = (
    "test_experiments",
    "test_pipeline",
    "test_make",
    "test_memory",
    "test_real_data",
    "test_add_a_model",
    "test_server",
    "test_demo",
    "test_lifecycle",
    "test_access",
    "test_request_log",
    "test_unfit",
    "test_versions",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [*LONGEST, *(item.path.stem for item in items)]
    items.sort(key=lambda item: names.index(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def few_patches() -> Iterator[None]:
    """Dictionaries that a test fits in its own process are learnt from few patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dictionary, "PATCHES", 4_000)
        yield


@pytest.fixture(scope="session")
def params() -> Params:
    return load_params(PARAMS)


@pytest.fixture(scope="session")
def digits() -> Digits:
    return make_digits()


@pytest.fixture(scope="session")
def images(digits: Digits) -> np.ndarray:
    """The digits to test with."""
    return digits[1].images


@pytest.fixture(scope="session")
def fitted(digits: Digits, params: Params) -> Fitted:
    """The map from pixels to features, and the features of the training digits."""
    return fit_features(digits[0].images, params)


@pytest.fixture
def small() -> Images:
    """Forty random images of four classes, ten each."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (40, PIXELS), dtype=np.uint8)
    return Images(images, np.arange(40, dtype=np.uint8) % 4, ("a", "b", "c", "d"))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the test processes makes, and all of them read."""
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with FileLock(shared / f"{name}.lock"):
        if not (shared / f"{name}.made").exists():
            make(shared / name)
            (shared / f"{name}.made").touch()
    return shared / name


@pytest.fixture(scope="session")
def repository(
    tmp_path_factory: pytest.TempPathFactory,
    digits: Digits,
    request: pytest.FixtureRequest,
    params: Params,
) -> Path:
    """A copy of serving/ with both models, trained on digits and packaged, in another place."""

    def make(folder: Path) -> None:
        make_repository(folder, digits, request.getfixturevalue("fitted"), params)

    return made_once(tmp_path_factory, "repository", make) / "serving"


def make_repository(folder: Path, digits: Digits, fitted: Fitted, params: Params) -> None:
    folder.mkdir()
    train, test = digits
    features, labels, features_file = fitted[1], train.labels, folder / FEATURES
    write_npz(features_file, fitted[0])
    svm = train_sklearn.train(features, labels, params.svm)
    temperature = train_sklearn.calibrate(features, labels, params.svm, params.calibration)
    svm_folder, trees_folder = (folder / stage.FOLDER for stage in (train_sklearn, train_xgboost))
    train_sklearn.save(svm_folder, svm, temperature, params.svm, features, features=features_file)
    trees, scores, inputs = fit_trees(features, labels, params)
    train_xgboost.save(trees_folder, trees, scores, params.xgboost, inputs, features=features_file)
    shutil.copytree(
        ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("models", "__pycache__")
    )
    models = [svm_folder, trees_folder]
    package.package(folder / "serving/models", models, params.package, test)


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """One real server for all tests that only infer."""
    with running(repository) as server:
        yield server


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on digits, run once and committed; to be copied."""

    def make(folder: Path) -> None:
        make_project(folder)
        run(folder, "dvc", "repro")
        commit(folder, "run")

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture(scope="module")
def module_project(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that the tests of a file share."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("module") / "project"))


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project that knows no source of data but the one that a test names."""
    return make_project(tmp_path / "checkout", "download.dataset=fashion-mnist")


@pytest.fixture
def own_repository(repository: Path, tmp_path: Path) -> Path:
    """A repository that a test may break."""
    return Path(shutil.copytree(repository, tmp_path / "serving"))
