"""Measure training and answering, this project's way beside the blog's, alternating.

Each way trains in a process of its own, is served by MLServer, and is asked for the labels of the
10,000 test images: in one JSON request of FP64, as the blog does, and, where it is this project's,
in batches of 1,000 by its client too. Then: how this project's ways grow with the images.

Run: make bench, or python -m benchmarks.training [--quick] [--repeats N], after make run
Writes benchmarks/training.json and benchmarks/growth.svg, or with --quick only prints.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.conditions import conditions
from benchmarks.growth import draw, exponent
from benchmarks.ways import MODEL, WAYS, train
from serving.client import DIRECT, RestClient, infer_request
from serving.fashion.contract import CLASS_LABELS, CLASS_NAMES, PROBABILITIES
from serving.fashion.packaged import REPOSITORY
from serving.launch import running
from stages.dataset import RAW, TEST_FILES, Images, read_idx
from stages.errors import run

RESULT, PICTURE = Path("benchmarks/training.json"), Path("benchmarks/growth.svg")
ALL, QUICK = 60_000, 6_000
SIZES = (5_000, 10_000, 20_000, 40_000, 60_000)
BATCH = 1000
ANSWER_SECONDS = 600
LABELS = {
    "features": "features, s",
    "fit": "fit, s",
    "training": "training in all, s",
    "peak_mb": "peak memory, MB",
    "one_request": "10,000 rows, one JSON request, s",
    "client": "10,000 rows, our client, s",
    "accuracy": "accuracy",
}


def answer(repository: Path, test: Images, ours: bool) -> dict[str, float]:
    """Serve a repository and ask it for the labels of all test images; seconds, accuracy."""
    with running(repository) as server:
        address = f"{server.rest}/v2/models/{MODEL}/infer"
        first = infer_request(test.images[:1], "FP64")
        requests.post(address, json=first, timeout=ANSWER_SECONDS, proxies=DIRECT)
        start = time.perf_counter()
        body = infer_request(test.images, "FP64")
        said = requests.post(address, json=body, timeout=ANSWER_SECONDS, proxies=DIRECT).json()
        labels = np.array(said["outputs"][0]["data"])
        measured = {"one_request": time.perf_counter() - start}
        if ours:
            client = RestClient(server.rest)
            start = time.perf_counter()
            for batch in np.split(test.images, len(test.images) // BATCH):
                client.infer(MODEL, batch, [CLASS_LABELS, PROBABILITIES])
            measured["client"] = time.perf_counter() - start
    return measured | {"accuracy": float((labels == test.labels).mean())}


def measure(way: str, images: int, test: Images) -> dict[str, float]:
    """Train and ask one way."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        repository = Path(scratch, "serving")
        ours = way.startswith("ours")
        measured = train(way, images, repository)
        if ours:
            shutil.copyfile(REPOSITORY / "settings.json", repository / "settings.json")
            (repository / "fashion").symlink_to(REPOSITORY / "fashion")
        measured |= answer(repository, test, ours)
    print(way, *(f"{LABELS[k]} {v:.4g}" for k, v in measured.items()), sep="; ", flush=True)
    return measured


def grow(ways: list[str], sizes: tuple[int, ...], test: Images) -> dict[str, Any]:
    """Training seconds and accuracy by number of images, and the exponent fitted to the seconds."""
    curves: dict[str, Any] = {}
    for way in ways:
        points = [measure(way, size, test) for size in sizes]
        seconds = [point["training"] for point in points]
        curves[way] = {
            "images": sizes,
            "seconds": seconds,
            "accuracy": [point["accuracy"] for point in points],
            "exponent": exponent(sizes, seconds),
        }
    return curves


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table of the medians: a line a measure, the blog's, ours, their ratio."""
    lines = ["| | SVM, blog | ours | ratio | trees, blog | ours | ratio |", "|---" * 7 + "|"]
    for key, label in LABELS.items():
        cells = []
        for kind in ("sklearn", "xgboost"):
            blog, ours = rows[f"blog_{kind}"].get(key), rows[f"ours_{kind}"].get(key)
            cells += [_number(key, blog), _number(key, ours), _ratio(key, blog, ours)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(key: str, value: float | None) -> str:
    if value is None or (key == "features" and value == 0):
        return "–"
    return f"{value:.4f}" if key == "accuracy" else f"{value:,.{0 if value >= 100 else 1}f}"  # noqa: PLR2004


def _ratio(key: str, blog: float | None, ours: float | None) -> str:
    if key == "accuracy" or not blog or not ours:
        return ""
    return f"{ours / blog:.2f}"


def medians(repeats: list[dict[str, float]]) -> dict[str, float]:
    """The median of each measure."""
    return {key: statistics.median(r[key] for r in repeats) for key in repeats[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"train on {QUICK:,} images")
    parser.add_argument("--repeats", type=int, default=3, help="of each way, alternating")
    given = parser.parse_args()
    test = read_idx(RAW / TEST_FILES[0], RAW / TEST_FILES[1], CLASS_NAMES["fashion-mnist"])
    images = QUICK if given.quick else ALL
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(given.repeats):
        for way in WAYS:
            runs[way].append(measure(way, images, test))
    rows = {way: medians(repeats) for way, repeats in runs.items()}
    print(f"\n{table(rows)}\n")
    if given.quick:
        return
    growth = grow([way for way in WAYS if way.startswith("ours")], SIZES, test)
    draw(PICTURE, growth)
    result = conditions("benchmarks.training") | {
        "images": images,
        "medians": rows,
        "runs": runs,
        "growth": growth,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{RESULT} and {PICTURE} written")


if __name__ == "__main__":
    run(main)
