"""Write drift.html: requests to a server, compared with the evaluation images of its models.

Reads   a request log, data/processed/, serving/models/
Writes  drift.html; exits with 3 where something has drifted
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from report.drawings import COLOUR, Drawing, to_svg
from report.pages import picture, render
from report.windows import (
    CLASSES,
    CONFIDENCE,
    DISAGREEMENT,
    DISTANCE,
    FALSE_ALARMS,
    MIN_IMAGES,
    Values,
    measures,
    model_values,
)
from serving.fashion.contract import PIXELS
from serving.fashion.logged import read_log
from serving.fashion.packaged import REPOSITORY, models_in, newest
from stages.console import StageError, run
from stages.data.arrays import atomic_write
from stages.data.processed import TEST, read_npz

PAGE, TEMPLATE = Path("drift.html"), "drift.html.jinja"
DRIFTED = 3  # exit code
MOST_DISTANT = 12  # images shown
BINS = 10  # of a drawing


class Window(NamedTuple):
    """The newest of a log. images: uint8 [n, 784], first, last: of all that is in it, UTC.

    values: labels and probabilities that were logged of each model, as report/windows.py has them.
    """

    values: Values
    images: np.ndarray
    first: datetime
    last: datetime


def newest_window(folder: Path, versions: dict[str, str], count: int) -> Window:
    """What up to `count` images of each model have, and as many whose pixels were logged.

    versions: of the models that are compared, by name. A model with fewer than MIN_IMAGES images is
    left out. Pixels count once: an image sent to several models is one. Raises StageError
    where there are no responses of these models.
    """
    labels: dict[str, list[int]] = {model: [] for model in versions}
    confidences: dict[str, list[float]] = {model: [] for model in versions}
    images: dict[bytes, None] = {}
    times: list[datetime] = []
    try:
        for line in read_log(folder, newest_first=True):
            if line.images and versions.get(line.model) == line.version:
                if len(labels[line.model]) < count:
                    labels[line.model] += line.labels
                    confidences[line.model] += line.probabilities
                if len(images) < count:
                    starts = range(0, len(line.pixels), PIXELS)
                    images |= {line.pixels[start : start + PIXELS]: None for start in starts}
                times.append(line.time)
            if min(len(images), *map(len, labels.values())) >= count:
                break
    except OSError as error:
        raise StageError(f"{error.filename}: {error.strerror}") from None
    if not times:
        served = ", ".join(" ".join(model) for model in versions.items())
        raise StageError(
            f"{folder}: expected a request log with responses of {served}, found none; a server "
            "writes one with FASHION_REQUEST_LOG=folder"
        )
    values: Values = {}
    for model, found in labels.items():
        if len(found) >= MIN_IMAGES:
            values[f"{CLASSES} of {model}"] = np.array(found[:count])
            values[f"{CONFIDENCE} of {model}"] = np.array(confidences[model][:count])
    joined = np.frombuffer(b"".join(list(images)[:count]), np.uint8).reshape(-1, PIXELS)
    return Window(values, joined, min(times), max(times))


def drawing(name: str, window: np.ndarray, reference: np.ndarray, names: Sequence[str]) -> Drawing:
    """Shares of the images by class or by value, of both. names: of the classes."""
    kind, _, model = name.partition(" of ")
    both = {"requests": window, "evaluation": reference}
    if kind == CLASSES:
        edges, bins = np.arange(len(names) + 1), list(names)
    else:
        edges = np.histogram_bin_edges(np.concatenate(list(both.values())), BINS)
        bins = [f"from {edge:.2f}" for edge in edges[:-1]]
    rows = [
        {"bin": text, "images": images, "share": share}
        for images, values in both.items()
        for text, share in zip(bins, np.histogram(values, edges)[0] / len(values), strict=True)
    ]
    scale = {"domain": list(both), "range": [COLOUR, "#888"]}
    encoding = {
        "y": {"field": "bin", "type": "nominal", "sort": None, "title": None},
        "x": {"field": "share", "type": "quantitative", "axis": {"format": "%"}},
        "yOffset": {"field": "images"},
        "color": {"field": "images", "type": "nominal", "title": None, "scale": scale},
    }
    spec = {"width": 230, "height": 230, "mark": "bar", "encoding": encoding}
    return Drawing(name, to_svg(f"{kind}-{model}", name, spec | {"data": {"values": rows}}))


def content(folder: Path, count: int) -> dict[str, Any]:
    """All that the page shows. Raises StageError."""
    packaged = newest(models_in(REPOSITORY))
    versions = {model.name: model.version for model in packaged}
    log = newest_window(folder, versions, count)
    if not log.values and len(log.images) < MIN_IMAGES:
        raise StageError(f"{folder}: expected {MIN_IMAGES} images of a model at least, found fewer")
    data, images = read_npz(TEST), log.images
    reference, names = model_values(packaged, data.images), data.class_names
    values = model_values(packaged, images) if len(images) >= MIN_IMAGES else {}
    window = values | log.values
    distances = values.get(DISTANCE, np.empty(0))
    most_distant = np.argsort(-distances, kind="stable")[:MOST_DISTANT]
    drawn = [name for name in window if name != DISAGREEMENT]  # which is a single number
    return {
        "first": log.first,
        "last": log.last,
        "measures": measures(window, reference),
        "false_alarms": FALSE_ALARMS,
        "with_pixels": len(images),
        "fewest": MIN_IMAGES,
        "drawings": [drawing(name, window[name], reference[name], names) for name in drawn],
        "most_distant": [
            {
                "src": picture(images[place]),
                "distance": float(values[DISTANCE][place]),
                "labels": {m: names[values[f"{CLASSES} of {m}"][place]] for m in versions},
            }
            for place in most_distant
        ],
    }


def main() -> None:
    program = argparse.ArgumentParser(prog="python -m report.drift", description=__doc__)
    program.add_argument("folder", type=Path, help="of a request log")
    program.add_argument(
        "--images",
        type=int,
        default=500,
        help=f"the newest ones, {MIN_IMAGES} or more (default: 500)",
    )
    options = program.parse_args()
    if options.images < MIN_IMAGES:
        raise StageError(f"--images is {options.images}; expected {MIN_IMAGES} or more")
    found = content(options.folder, options.images)
    page = render(TEMPLATE, found)
    with atomic_write(PAGE) as tmp:
        tmp.write_text(page, encoding="utf-8")
    for measure in found["measures"]:
        verdict = "drifted" if measure.drifted else "as before"
        print(
            f"{measure.name:34} {measure.value:8.4f}, threshold {measure.threshold:.4f} "
            f"({measure.images:,} images): {verdict}"
        )
    if found["with_pixels"] < MIN_IMAGES:
        print(
            f"disagreement, distance: not measured, since the log has the pixels of "
            f"{found['with_pixels']} images, {MIN_IMAGES} are needed"
        )
    print(f"Read the page:      {PAGE}")
    if any(measure.drifted for measure in found["measures"]):
        sys.exit(DRIFTED)


if __name__ == "__main__":
    run(main)
