"""Write drift.html: requests to a server, compared with the evaluation images of its models.

Reads   a request log, data/processed/, serving/models/
Writes  drift.html; exits with 3 where something has drifted
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from report.drawings import COLOUR, Drawing, to_svg
from report.pages import picture, render
from report.windows import (
    CLASSES,
    CONFIDENCE,
    DISTANCE,
    FALSE_ALARMS,
    FEWEST,
    Models,
    Values,
    measures,
)
from serving.fashion.contract import PIXELS
from serving.fashion.packaged import REPOSITORY, RepositoryError, models_in, newest
from serving.fashion.request_log import Line, read_log
from stages.console import StageError, run
from stages.data.arrays import atomic_write
from stages.data.idx import TEST, Images, read_npz

PAGE, TEMPLATE = Path("drift.html"), "drift.html.jinja"
DRIFTED = 3  # exit code
STRANGEST = 12  # images shown
POINTS = 100  # of a distribution function


def newest_lines(folder: Path) -> list[Line]:
    """The requests of a log that were answered, the newest first. Raises StageError for none."""
    try:
        lines = [line for line in read_log(folder) if line.images]
    except OSError as error:
        raise StageError(f"{error.filename}: {error.strerror}") from None
    if not lines:
        raise StageError(
            f"{folder}: expected a request log, found no answered request; a server writes one "
            "with FASHION_REQUEST_LOG=folder"
        )
    return sorted(lines, key=lambda line: line.time, reverse=True)


def logged_values(lines: Iterable[Line], models: Sequence[str], count: int) -> Values:
    """Labels and probabilities of each model's newest images; of none with fewer than FEWEST."""
    values: Values = {}
    for model in models:
        own = [line for line in lines if line.model == model]
        labels = [label for line in own for label in line.labels][:count]
        confidences = [value for line in own for value in line.probabilities][:count]
        if len(labels) >= FEWEST:
            values[f"{CLASSES} of {model}"] = np.array(labels)
            values[f"{CONFIDENCE} of {model}"] = np.array(confidences)
    return values


def logged_images(lines: Iterable[Line], count: int) -> np.ndarray:
    """The newest images whose pixels were logged, uint8 [n, 784], n up to count.

    Each once: a client that asks both models sends it twice, which is no second image.
    """
    pixels = b"".join(line.pixels for line in lines)
    images = (pixels[start : start + PIXELS] for start in range(0, len(pixels), PIXELS))
    distinct = list(dict.fromkeys(images))[:count]
    return np.frombuffer(b"".join(distinct), np.uint8).reshape(-1, PIXELS)


def shares(model: str, window: Values, reference: Values, names: Sequence[str]) -> Drawing:
    """Classes of the window and of the evaluation, side by side."""
    key, title = f"{CLASSES} of {model}", f"Predicted classes, {model}"
    rows = [
        {"class": name, "images": images, "share": float((values[key] == label).mean())}
        for images, values in (("requests", window), ("evaluation", reference))
        for label, name in enumerate(names)
    ]
    encoding = {
        "y": {"field": "class", "type": "nominal", "sort": None, "title": None},
        "x": {"field": "share", "type": "quantitative", "title": "share", "axis": {"format": "%"}},
    }
    return _drawing(f"shares-{model}", title, rows, encoding)


def distribution(name: str, title: str, window: np.ndarray, reference: np.ndarray) -> Drawing:
    """Two distribution functions; their largest gap is the measure."""
    places = np.histogram_bin_edges(np.concatenate([window, reference]), POINTS)
    rows = []
    for images, values in (("requests", window), ("evaluation", reference)):
        below = np.searchsorted(np.sort(values), places, side="right") / len(values)
        pairs = zip(places.tolist(), below.tolist(), strict=True)
        rows += [{"value": value, "images": images, "share": share} for value, share in pairs]
    encoding = {
        "x": {"field": "value", "type": "quantitative", "title": None},
        "y": {
            "field": "share",
            "type": "quantitative",
            "title": "share of images up to it",
            "axis": {"format": "%"},
        },
    }
    return _drawing(name, title, rows, encoding, mark={"type": "line", "interpolate": "step-after"})


def _drawing(
    name: str, title: str, rows: list[dict[str, Any]], encoding: dict[str, Any],
    mark: dict[str, Any] | None = None,
) -> Drawing:  # fmt: skip
    colour = {
        "field": "images",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["requests", "evaluation"], "range": [COLOUR, "#888"]},
    }
    beside = {} if mark else {"yOffset": {"field": "images"}}
    spec = {
        "width": 230,
        "height": 230,
        "data": {"values": rows},
        "mark": mark or "bar",
        "encoding": encoding | beside | {"color": colour},
    }
    return Drawing(title, to_svg(name, title, spec))


def content(folder: Path, count: int) -> dict[str, Any]:
    """All that the page shows. Raises StageError."""
    lines = newest_lines(folder)
    try:
        models = Models(newest(models_in(REPOSITORY)))
    except RepositoryError as error:
        raise StageError(str(error)) from None
    data: Images = read_npz(TEST)
    reference = models(data.images)
    images = logged_images(lines, count)
    values = models(images) if len(images) else {}
    window = logged_values(lines, models.names, count)
    if len(images) >= FEWEST:
        window |= {name: value for name, value in values.items() if name not in window}
    if not window:
        raise StageError(f"{folder}: expected {FEWEST} images of a model at least, found fewer")
    return {
        "first": _first(lines, models.names, count).time,
        "last": lines[0].time,
        "measures": measures(window, reference),
        "false_alarms": FALSE_ALARMS,
        "with_pixels": len(images),
        "fewest": FEWEST,
        "drawings": list(_drawings(models.names, window, reference, data.class_names)),
        "strangest": list(_strangest(images, values, models.names, data.class_names)),
    }


def _first(lines: Sequence[Line], models: Sequence[str], count: int) -> Line:
    """The oldest of the lines, newest first, that have a model's newest images."""
    left, oldest = dict.fromkeys(models, count), lines[0]
    for line in lines:
        if left.get(line.model, 0) > 0:
            left[line.model] -= line.images
            oldest = line
    return oldest


def _drawings(
    models: Sequence[str], window: Values, reference: Values, names: Sequence[str]
) -> Iterable[Drawing]:
    for model in models:
        key = f"{CONFIDENCE} of {model}"
        if key in window:
            yield shares(model, window, reference, names)
            title = f"Probability of the predicted class, {model}"
            yield distribution(f"confidence-{model}", title, window[key], reference[key])
    if DISTANCE in window:
        title = "Distance to the nearest training image, in the space of features"
        yield distribution(DISTANCE, title, window[DISTANCE], reference[DISTANCE])


def _strangest(
    images: np.ndarray, values: Values, models: Sequence[str], names: Sequence[str]
) -> Iterable[dict[str, Any]]:
    if not len(images):
        return
    for place in np.argsort(-values[DISTANCE], kind="stable")[:STRANGEST]:
        yield {
            "src": picture(images[place]),
            "distance": float(values[DISTANCE][place]),
            "labels": {m: names[values[f"{CLASSES} of {m}"][place]] for m in models},
        }


def main() -> None:
    program = argparse.ArgumentParser(prog="python -m report.drift", description=__doc__)
    program.add_argument("folder", type=Path, help="of a request log")
    program.add_argument(
        "--images", type=int, default=500, help=f"the newest ones, {FEWEST} or more (default: 500)"
    )
    options = program.parse_args()
    if options.images < FEWEST:
        raise StageError(f"--images is {options.images}; expected {FEWEST} or more")
    found = content(options.folder, options.images)
    page = render(TEMPLATE, found)
    with atomic_write(PAGE) as part:
        part.write_text(page, encoding="utf-8")
    for measure in found["measures"]:
        verdict = "drifted" if measure.drifted else "as before"
        print(
            f"{measure.name:34} {measure.value:8.4f}, threshold {measure.threshold:.4f} "
            f"({measure.images:,} images): {verdict}"
        )
    if found["with_pixels"] < FEWEST:
        print(
            f"disagreement, distance: not measured, since the log has the pixels of "
            f"{found['with_pixels']} images, {FEWEST} are needed"
        )
    print(f"Read the page:      {PAGE}")
    if any(measure.drifted for measure in found["measures"]):
        sys.exit(DRIFTED)


if __name__ == "__main__":
    run(main)
