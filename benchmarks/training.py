"""Measure training and inference: this project and the blog's setup, alternating.

The blog is "Serving Python Machine Learning Models With Ease" (Ed Shee): its model parameters, raw
pixels as float64, its file formats, MLServer's runtimes. Each setup trains in a separate process,
is served by MLServer, and gets the 10,000 test images in one JSON request of FP64, as the blog
sends them; this project's client also sends them in batches of 1,000.

Run: make bench, or python -m benchmarks.training [--quick] [--repeats N], after make run
Writes benchmarks/training.json, or with --quick only prints.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import requests
import xgboost
from sklearn.svm import SVC

from benchmarks import results
from benchmarks.processes import in_new_process, peak_mb, serving
from benchmarks.results import published
from serving.client import DIRECT, RestClient, infer_request
from serving.fashion.contract import CLASS_LABELS, FEATURES_FILE, PROBABILITIES
from serving.fashion.packaged import MODEL_SETTINGS, REPOSITORY
from stages import package, train_sklearn, train_xgboost
from stages.console import run
from stages.data.arrays import write_npz
from stages.data.idx import TEST_FILES, TRAIN_FILES
from stages.data.processed import Images
from stages.data.splits import stratified
from stages.params import load_params
from stages.training.features import fit_features

RESULT = Path("benchmarks/training.json")
# Also the names of the served models.
SETUPS = {
    "blog-sklearn": "SVM, blog",
    "fashion-sklearn": "SVM, this project",
    "blog-xgboost": "trees, blog",
    "fashion-xgboost": "trees, this project",
}
ALL, QUICK = 60_000, 6_000
BATCH = 1000
TIMEOUT_SECONDS = 600
BLOG_TREES = {"max_depth": 5, "eta": 0.3, "objective": "multi:softmax", "num_class": 10}
COLUMNS = {
    "features": "features, s",
    "fit": "fit, s",
    "training": "training in all, s",
    "peak_mb": "peak memory, MB",
    "one_request": "10,000 rows, one JSON request, s",
    "client": "10,000 rows, our client, s",
    "accuracy": "accuracy",
}
Measures = dict[str, float]


def train(setup: str, images: int, repository: Path) -> Measures:
    """Train one of SETUPS on that many images into an MLServer repository; seconds and MB."""
    data = published(TRAIN_FILES)
    rows = stratified(data.labels, images, seed=7)
    data = Images(data.images[rows], data.labels[rows].astype(np.int64), data.class_names)
    seconds = (_train_blog if setup.startswith("blog") else _train_ours)(setup, data, repository)
    return seconds | {"training": sum(seconds.values()), "peak_mb": peak_mb()}


def _train_blog(setup: str, data: Images, repository: Path) -> Measures:
    start = time.perf_counter()
    pixels = data.images.astype(np.float64)
    save: Callable[[Path], object]
    if setup.endswith("sklearn"):
        model = SVC(kernel="poly", degree=4, gamma=0.1).fit(pixels, data.labels)
        save, file = partial(joblib.dump, model), "model.joblib"
        runtime = "mlserver_sklearn.SKLearnModel"
    else:
        save = xgboost.train(BLOG_TREES, xgboost.DMatrix(pixels, data.labels), 50).save_model
        file, runtime = "model.json", "mlserver_xgboost.XGBoostModel"
    seconds = time.perf_counter() - start
    folder = repository / "models" / setup
    folder.mkdir(parents=True)
    save(folder / file)
    parameters = {"uri": f"./{file}", "version": "v1"}
    settings = {"name": setup, "implementation": runtime, "parameters": parameters}
    (folder / MODEL_SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    # All else is MLServer's default.
    (repository / "settings.json").write_text('{"debug": false}', encoding="utf-8")
    return {"features": 0.0, "fit": seconds}


def _train_ours(setup: str, data: Images, repository: Path) -> Measures:
    """As the stages do by params.yaml, features and calibration included."""
    params, features_file = load_params(), repository / FEATURES_FILE
    folder = repository / setup
    repository.mkdir(parents=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        path = Path(scratch, "features.npy")
        write_npz(features_file, fit_features(data.images, params.features, path))
        features = np.load(path)
    middle = time.perf_counter()
    if setup.endswith("sklearn"):
        temperature = train_sklearn.calibrate(features, data.labels, params.svm, params.calibration)
        model = train_sklearn.train(features, data.labels, params.svm)
        end = time.perf_counter()
        train_sklearn.save(
            folder, model, temperature, params.svm, features[:100], features=features_file
        )
    else:
        inputs, scores = train_xgboost.tree_inputs(features, data.labels, params.xgboost)
        trained = train_xgboost.fit(inputs, data.labels, params.xgboost, params.calibration)
        end = time.perf_counter()
        train_xgboost.save(
            folder, trained, scores, params.xgboost, inputs[:100], features=features_file
        )
    package.package(repository / "models", [folder], params.package, data)
    shutil.copyfile(REPOSITORY / "settings.json", repository / "settings.json")
    (repository / "fashion").symlink_to(REPOSITORY / "fashion")
    return {"features": middle - start, "fit": end - middle}


def labels_by_json(rest: str, model: str, images: np.ndarray) -> np.ndarray:
    """Send one request of FP64, as the blog does, and return the labels."""
    url, body = f"{rest}/v2/models/{model}/infer", infer_request(images, "FP64")
    response = requests.post(url, json=body, timeout=TIMEOUT_SECONDS, proxies=DIRECT)
    return np.array(response.json()["outputs"][0]["data"])


def measure(setup: str, images: int, test: Images) -> Measures:
    """Train one setup, serve it, and get the labels of all test images; seconds, MB, accuracy."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        repository = Path(scratch, "serving")
        measured: Measures = in_new_process(train, setup, images, repository)[0]
        with serving(repository) as server:
            labels_by_json(server.rest, setup, test.images[:1])
            start = time.perf_counter()
            labels = labels_by_json(server.rest, setup, test.images)
            measured["one_request"] = time.perf_counter() - start
            if setup.startswith("fashion"):
                client = RestClient(server.rest)
                start = time.perf_counter()
                for batch in np.split(test.images, len(test.images) // BATCH):
                    client.infer(setup, batch, [CLASS_LABELS, PROBABILITIES])
                measured["client"] = time.perf_counter() - start
    measured["accuracy"] = float((labels == test.labels).mean())
    print(setup, *(f"{COLUMNS[k]} {v:.4g}" for k, v in measured.items()), sep="; ", flush=True)
    return measured


def table(medians: dict[str, Measures]) -> str:
    """Markdown of the medians: a line a setup; in brackets, how many times the blog's."""
    return results.markdown(
        {"": SETUPS[setup]} | {head: _cell(medians, setup, key) for key, head in COLUMNS.items()}
        for setup in SETUPS
    )


def _cell(medians: dict[str, Measures], setup: str, key: str) -> str:
    value, blog = (medians[s].get(key) for s in (setup, setup.replace("fashion", "blog")))
    if not value:
        return "–"
    if key == "accuracy":
        return f"{value:.4f}"
    ratio = f" ({value / blog:.2f})" if blog and setup.startswith("fashion") else ""
    return f"{value:,.{0 if key == 'peak_mb' else 1}f}{ratio}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"train on {QUICK:,} images")
    parser.add_argument("--repeats", type=int, default=3, help="of each setup, alternating")
    options = parser.parse_args()
    test, images = published(TEST_FILES), QUICK if options.quick else ALL
    runs: dict[str, list[Measures]] = {setup: [] for setup in SETUPS}
    for _ in range(options.repeats):
        for setup in SETUPS:
            runs[setup].append(measure(setup, images, test))
    medians = {
        setup: {key: statistics.median(r[key] for r in repeats) for key in repeats[0]}
        for setup, repeats in runs.items()
    }
    print(f"\n{table(medians)}\n")
    if not options.quick:
        results.write(RESULT, {"images": images, "medians": medians, "runs": runs})


if __name__ == "__main__":
    run(main)
