"""Measure training and inference, this project's way compared with the blog's, alternating.

The blog's ways are those of "Serving Python Machine Learning Models With Ease" (Ed Shee): its
model parameters, raw pixels as float64, its file formats, the stock MLServer runtimes. Each way
trains in a process of its own, is served by MLServer, and gets the 10,000 test images: in one JSON
request of FP64, as the blog does, and, where it is this project's, in batches of 1,000 by its
client too. Then: how this project's ways grow with the images.

Run: make bench, or python -m benchmarks.training [--quick] [--repeats N], after make run
Writes benchmarks/training.json and benchmarks/growth.svg, or with --quick only prints.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import matplotlib as mpl
import numpy as np
import requests
import xgboost
from matplotlib.figure import Figure
from sklearn.svm import SVC

from benchmarks import results
from benchmarks.processes import in_new_process, peak_mb, serving
from benchmarks.results import published
from serving.client import DIRECT, RestClient, infer_request
from serving.fashion.contract import CLASS_LABELS, FEATURES_FILE, PROBABILITIES, TRAINING_FILE
from serving.fashion.packaged import MODEL_SETTINGS, REPOSITORY
from stages import package, train_sklearn, train_xgboost
from stages.console import run
from stages.data.arrays import write_npz
from stages.data.idx import TEST_FILES, TRAIN_FILES
from stages.data.processed import Images
from stages.data.splits import stratified
from stages.params import load_params
from stages.training.features import fit_features

RESULT, GROWTH = Path("benchmarks/training.json"), Path("benchmarks/growth.svg")
WAYS = ("blog_sklearn", "ours_sklearn", "blog_xgboost", "ours_xgboost")
ALL, QUICK = 60_000, 6_000
SIZES = (5_000, 10_000, 20_000, 40_000, 60_000)
BATCH = 1000
TIMEOUT_SECONDS = 600
MODEL = "fashion"
BLOG_TREES = {"max_depth": 5, "eta": 0.3, "objective": "multi:softmax", "num_class": 10}
LABELS = {
    "features": "features, s",
    "fit": "fit, s",
    "training": "training in all, s",
    "peak_mb": "peak memory, MB",
    "one_request": "10,000 rows, one JSON request, s",
    "client": "10,000 rows, our client, s",
    "accuracy": "accuracy",
}
BLUE, ORANGE = "#1f6feb", "#d1552b"  # apart for the colour-blind, too
mpl.rcParams |= {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 11}
Measures = dict[str, float]


def train(way: str, images: int, repository: Path, name: str = MODEL) -> Measures:
    """Train one way on that many images into an MLServer repository; seconds and MB."""
    data = published(TRAIN_FILES)
    rows = stratified(data.labels, images, seed=7)
    data = Images(data.images[rows], data.labels[rows].astype(np.int64), data.class_names)
    whose, kind = way.split("_")
    seconds = {"blog": _blog, "ours": _ours}[whose](kind, data, repository, name)
    return seconds | {"training": sum(seconds.values()), "peak_mb": peak_mb()}


def _blog(kind: str, data: Images, repository: Path, name: str) -> Measures:
    start = time.perf_counter()
    pixels = data.images.astype(np.float64)
    save: Callable[[Path], object]
    if kind == "sklearn":
        save = partial(
            joblib.dump, SVC(kernel="poly", degree=4, gamma=0.1).fit(pixels, data.labels)
        )
        file, runtime = "model.joblib", "mlserver_sklearn.SKLearnModel"
    else:
        save = xgboost.train(BLOG_TREES, xgboost.DMatrix(pixels, data.labels), 50).save_model
        file, runtime = "model.json", "mlserver_xgboost.XGBoostModel"
    seconds = time.perf_counter() - start
    folder = repository / "models" / name
    folder.mkdir(parents=True)
    save(folder / file)
    parameters = {"uri": f"./{file}", "version": "v1"}
    settings = {"name": name, "implementation": runtime, "parameters": parameters}
    (folder / MODEL_SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    # Else MLServer's own.
    (repository / "settings.json").write_text('{"debug": false}', encoding="utf-8")
    return {"features": 0.0, "fit": seconds}


def _ours(kind: str, data: Images, repository: Path, name: str) -> Measures:
    """As the stages do by params.yaml, features and calibration included."""
    params, features_file = load_params(), repository / FEATURES_FILE
    folder = repository / kind
    repository.mkdir(parents=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        path = Path(scratch, "features.npy")
        write_npz(features_file, fit_features(data.images, params.features, path))
        features = np.load(path)
    middle = time.perf_counter()
    if kind == "sklearn":
        temperature = train_sklearn.calibrate(features, data.labels, params.svm, params.calibration)
        model = train_sklearn.train(features, data.labels, params.svm)
        end = time.perf_counter()
        train_sklearn.save(
            folder, model, temperature, params.svm, features[:100], features=features_file
        )
    else:
        inputs, scores = train_xgboost.see(features, data.labels, params.xgboost)
        trained = train_xgboost.fit(inputs, data.labels, params.xgboost, params.calibration)
        end = time.perf_counter()
        train_xgboost.save(
            folder, trained, scores, params.xgboost, inputs[:100], features=features_file
        )
    path = folder / TRAINING_FILE
    training = json.loads(path.read_text("utf-8"))
    training["served"]["name"] = name
    path.write_text(json.dumps(training), "utf-8")
    package.package(repository / "models", [folder], params.package, data)
    shutil.copyfile(REPOSITORY / "settings.json", repository / "settings.json")
    (repository / "fashion").symlink_to(REPOSITORY / "fashion")
    return {"features": middle - start, "fit": end - middle}


def labels_by_json(rest: str, model: str, images: np.ndarray) -> np.ndarray:
    """Ask as the blog does, in one request of FP64, and return the labels."""
    url, body = f"{rest}/v2/models/{model}/infer", infer_request(images, "FP64")
    response = requests.post(url, json=body, timeout=TIMEOUT_SECONDS, proxies=DIRECT)
    return np.array(response.json()["outputs"][0]["data"])


def measure(way: str, images: int, test: Images) -> Measures:
    """Train one way, serve it, and get the labels of all test images; seconds, MB, accuracy."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        repository = Path(scratch, "serving")
        measured: Measures = in_new_process(train, way, images, repository)[0]
        with serving(repository) as server:
            labels_by_json(server.rest, MODEL, test.images[:1])
            start = time.perf_counter()
            labels = labels_by_json(server.rest, MODEL, test.images)
            measured["one_request"] = time.perf_counter() - start
            if way.startswith("ours"):
                client = RestClient(server.rest)
                start = time.perf_counter()
                for batch in np.split(test.images, len(test.images) // BATCH):
                    client.infer(MODEL, batch, [CLASS_LABELS, PROBABILITIES])
                measured["client"] = time.perf_counter() - start
    measured["accuracy"] = float((labels == test.labels).mean())
    print(way, *(f"{LABELS[k]} {v:.4g}" for k, v in measured.items()), sep="; ", flush=True)
    return measured


def exponent(images: Sequence[int], seconds: Sequence[float]) -> float:
    """The b of seconds = a · images^b, by least squares on the logarithms."""
    return float(np.polyfit(np.log(images), np.log(seconds), 1)[0])


def grow(way: str, test: Images) -> dict[str, Any]:
    """Training seconds and accuracy by number of images, and the exponent fitted to the seconds."""
    points = [measure(way, size, test) for size in SIZES]
    seconds, accuracy = ([p[key] for p in points] for key in ("training", "accuracy"))
    power = exponent(SIZES, seconds)
    return {"images": SIZES, "seconds": seconds, "accuracy": accuracy, "exponent": power}


def draw_growth(curves: dict[str, Any]) -> None:
    """Draw seconds (both axes logarithmic) and accuracy against images.

    curves: by way, with images, seconds, accuracy and exponent.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (way, curve), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
        images, name = np.array(curve["images"]), way.replace("ours_", "fashion-")
        fit = np.poly1d(np.polyfit(np.log(images), np.log(curve["seconds"]), 1))
        label = f"{name}: images$^{{{curve['exponent']:.2f}}}$"
        left.loglog(images, curve["seconds"], "o", color=colour, label=label)
        left.loglog(images, np.exp(fit(np.log(images))), "-", color=colour, alpha=0.5)
        right.semilogx(images, curve["accuracy"], "o-", color=colour, label=name)
    left.set_yticks(ticks := [2, 5, 10, 20, 50, 100], [str(tick) for tick in ticks])
    for axes, title in (
        (left, "training, features included, seconds"),
        (right, "accuracy on the test images"),
    ):
        axes.set_xticks(images, [f"{n // 1000}k" for n in images])
        axes.set_title(title, loc="left")
        axes.set_xlabel("training images")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(GROWTH, metadata={"Date": None})


def table(rows: dict[str, Measures]) -> str:
    """Markdown of the medians by way: a line a measure, the blog's, ours, their ratio."""
    head = "| | SVM, blog | ours | ratio | trees, blog | ours | ratio |"
    return results.markdown(head, ([LABELS[key], *_cells(rows, key)] for key in LABELS))


def _cells(rows: dict[str, Measures], key: str) -> Iterator[str]:
    for kind in ("sklearn", "xgboost"):
        blog, ours = (rows[f"{whose}_{kind}"].get(key, 0.0) for whose in ("blog", "ours"))
        for value in (blog, ours):
            digits = 4 if key == "accuracy" else 0 if value >= 100 else 1  # noqa: PLR2004
            yield f"{value:,.{digits}f}" if value else "–"
        yield f"{ours / blog:.2f}" if blog and ours and key != "accuracy" else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"train on {QUICK:,} images")
    parser.add_argument("--repeats", type=int, default=3, help="of each way, alternating")
    options = parser.parse_args()
    test, images = published(TEST_FILES), QUICK if options.quick else ALL
    runs: dict[str, list[Measures]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            runs[way].append(measure(way, images, test))
    medians = {
        way: {key: statistics.median(r[key] for r in repeats) for key in repeats[0]}
        for way, repeats in runs.items()
    }
    print(f"\n{table(medians)}\n")
    if not options.quick:
        growth = {way: grow(way, test) for way in WAYS if way.startswith("ours")}
        draw_growth(growth)
        measured = {"images": images, "medians": medians, "runs": runs, "growth": growth}
        results.write(RESULT, measured)


if __name__ == "__main__":
    run(main)
