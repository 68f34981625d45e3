"""Train a model one way, in a process of its own, and say what that took.

The blog's ways are those of "Serving Python Machine Learning Models With Ease" (Ed Shee):
its model parameters, raw pixels as float64, its file formats, the stock MLServer runtimes.

Run: python -m benchmarks.ways WAY IMAGES FOLDER, from the project's root, after dvc repro download
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np

from serving.fashion.contract import CLASS_NAMES, FEATURES_FILE
from serving.fashion.packaged import MODEL_SETTINGS
from stages import package, train_sklearn, train_xgboost
from stages.dataset import RAW, TRAIN_FILES, Images, read_idx
from stages.errors import StageError, run
from stages.features import fit_features
from stages.params import load_params
from stages.split import stratified

Seconds = dict[str, float]
MODEL = "fashion"  # the name that each way's model is served by
BLOG_SETTINGS = '{"debug": false}'  # else MLServer's own


def blog_sklearn(images: np.ndarray, labels: np.ndarray, folder: Path) -> Seconds:
    """The blog's SVC, with scikit-learn alone."""
    from sklearn.svm import SVC  # noqa: PLC0415

    start = time.perf_counter()
    model = SVC(kernel="poly", degree=4, gamma=0.1).fit(images.astype(np.float64), labels)
    seconds = time.perf_counter() - start
    joblib.dump(model, _folder(folder, "model.joblib", "mlserver_sklearn.SKLearnModel"))
    return {"features": 0.0, "fit": seconds}


def blog_xgboost(images: np.ndarray, labels: np.ndarray, folder: Path) -> Seconds:
    """The blog's boosted trees."""
    import xgboost  # noqa: PLC0415

    start = time.perf_counter()
    given = {"max_depth": 5, "eta": 0.3, "objective": "multi:softmax", "num_class": 10}
    data = xgboost.DMatrix(images.astype(np.float64), labels)
    model = xgboost.train(given, data, 50)
    seconds = time.perf_counter() - start
    model.save_model(_folder(folder, "model.json", "mlserver_xgboost.XGBoostModel"))
    return {"features": 0.0, "fit": seconds}


def ours_sklearn(images: np.ndarray, labels: np.ndarray, folder: Path) -> Seconds:
    """The support vector machine of params.yaml, with its features and calibration."""
    params = load_params()
    features, seconds = _features(images, labels, folder)
    start = time.perf_counter()
    temperature = train_sklearn.calibrate(features, labels, params.svm, params.calibration)
    model = train_sklearn.train(features, labels, params.svm)
    seconds["fit"] = time.perf_counter() - start
    train_sklearn.save(folder / "svm", model, temperature, params.svm, features[:100])
    _package(folder, folder / "svm" / train_sklearn.MODEL, "fashion-sklearn", images, labels)
    return seconds


def ours_xgboost(images: np.ndarray, labels: np.ndarray, folder: Path) -> Seconds:
    """The boosted trees of params.yaml, with their features and trial."""
    features, seconds = _features(images, labels, folder)
    start = time.perf_counter()
    params = load_params()
    trained = train_xgboost.fit(features, labels, params)
    seconds["fit"] = time.perf_counter() - start
    train_xgboost.save(folder / "trees", trained, params.xgboost, features[:100])
    _package(folder, folder / "trees" / train_xgboost.MODEL, "fashion-xgboost", images, labels)
    return seconds


def _features(images: np.ndarray, labels: np.ndarray, folder: Path) -> tuple[np.ndarray, Seconds]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        path = Path(scratch, "features.npy")
        fitted = fit_features(images, labels, load_params(), path)
        features = np.load(path)
    seconds = time.perf_counter() - start
    folder.mkdir(parents=True)
    np.savez(folder / FEATURES_FILE, **fitted._asdict())
    return features, {"features": seconds}


def _folder(repository: Path, file: str, runtime: str) -> Path:
    """Make the settings of the blog's repository; the path of the model's own file."""
    folder = repository / "models" / MODEL
    folder.mkdir(parents=True)
    content = {
        "name": MODEL,
        "implementation": runtime,
        "parameters": {"uri": f"./{file}", "version": "v1"},
    }
    (folder / MODEL_SETTINGS).write_text(json.dumps(content), encoding="utf-8")
    (repository / "settings.json").write_text(BLOG_SETTINGS, encoding="utf-8")
    return folder / file


def _package(
    repository: Path, file: Path, name: str, images: np.ndarray, labels: np.ndarray
) -> None:
    """Make the repository as the stage `package` does, of one model."""
    data = Images(images[:1], labels[:1], CLASS_NAMES["fashion-mnist"])
    source = {MODEL: package.MODELS[name]._replace(file=file)}
    target = repository / "models"
    package.package(target, source, repository / FEATURES_FILE, load_params().package, data)


WAYS = {way.__name__: way for way in (blog_sklearn, ours_sklearn, blog_xgboost, ours_xgboost)}


def train(way: str, images: int, folder: Path) -> dict[str, float]:
    """Train one way on that many images, in a new process, into folder; seconds and MB.

    Raises StageError with what the process said if it fails.
    """
    command = [sys.executable, "-m", "benchmarks.ways", way, str(images), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(f"{way}: {done.stderr.strip()}")
    said = json.loads(done.stdout.splitlines()[-1])
    seconds = said["seconds"]
    return {**seconds, "training": sum(seconds.values()), "peak_mb": said["peak_mb"]}


def main() -> None:
    name, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    data = read_idx(RAW / TRAIN_FILES[0], RAW / TRAIN_FILES[1], CLASS_NAMES["fashion-mnist"])
    rows = stratified(data.labels, count, seed=7)
    seconds = WAYS[name](data.images[rows], data.labels[rows].astype(np.int64), folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB on Linux
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    run(main)
