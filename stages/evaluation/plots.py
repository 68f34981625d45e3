"""What `evaluate` records: metrics, what `dvc plots` and the report show, and alerts' baselines."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serving.fashion.contract import SIDE
from stages.console import StageError
from stages.data.arrays import atomic_folder, atomic_write
from stages.data.processed import Images
from stages.evaluation.alerts import EXPECTED, expected
from stages.evaluation.metrics import DECIMALS, Predictions, evaluation_metrics, recall, reliability

METRICS, PREDICTIONS, PLOTS = (Path("metrics", n) for n in ("models", "predictions", "plots"))

COLUMNS, ROWS = 6, 3  # of the gallery
SCALE, GAP, LINE = 5, 18, 18  # pixels: a side of an image's pixel, between images, a line of text
INK, QUIET = (29, 29, 31), (92, 92, 102)


def write_results(data: Images, predictions: Mapping[str, Predictions]) -> None:
    """Record the predictions of models, by name, in place of all that was recorded, at once."""
    names, models = np.array(data.class_names), predictions.items()
    with (
        atomic_folder(METRICS) as metrics,
        atomic_folder(PREDICTIONS) as tables,
        atomic_folder(PLOTS) as plots,
        atomic_write(EXPECTED) as rules,
    ):
        (plots / "mistakes").mkdir()
        for name, found in models:
            values = json.dumps(evaluation_metrics(data, found), indent=4)
            (metrics / f"{name}.json").write_text(values + "\n", encoding="utf-8")
            columns = names[data.labels], names[found.labels], found.confidence.tolist()
            header = ["actual", "predicted", "confidence"]
            write_table(tables / f"{name}.csv", header, zip(*columns, strict=True))
            gallery(data, found).save(plots / f"mistakes/{name}.png")
        shares = [(name, *row) for name, found in models for row in recall(data, found).items()]
        write_table(plots / "recall.csv", ["model", "class", "recall"], shares)
        right = {name: (found.labels == data.labels, found.confidence) for name, found in models}
        bins = [(name, *row) for name, of in right.items() for row in reliability(*of)]
        write_table(plots / "reliability.csv", ["model", "confidence", "right", "images"], bins)
        rules.write_text(expected(data.class_names, predictions), encoding="utf-8")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, numbers rounded to DECIMALS."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in rows:
            table.writerow([round(v, DECIMALS) if isinstance(v, float) else v for v in row])


def read_metrics(folder: Path = METRICS) -> dict[str, dict[str, float]]:
    """What is recorded of each model, by name. Raises StageError when nothing was evaluated yet."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise StageError(f"{folder}: no metrics found; make them with: dvc repro")
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def surest_mistakes(wrong: np.ndarray, confidence: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the wrongly predicted images, int [≤ count], the surest first.

    wrong: bool [n]; confidence: float [n], probability of the predicted class.
    """
    numbers = np.flatnonzero(wrong)
    return numbers[np.argsort(-confidence[numbers], kind="stable")][:count]


def gallery(data: Images, predictions: Predictions) -> Image.Image:
    """A picture of the mistakes that a model was surest of, with actual and predicted class."""
    predicted, confidence = predictions.labels, predictions.confidence
    worst = surest_mistakes(predicted != data.labels, confidence, COLUMNS * ROWS)
    side = SIDE * SCALE
    width, height = side + GAP, side + GAP + 3 * LINE
    rows = -(-len(worst) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * width + GAP, max(rows * height, LINE) + GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    if not len(worst):
        draw.text((GAP, GAP // 2), f"No mistakes on {len(predicted):,} images.", INK, font)
    for place, number in enumerate(worst):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        image = Image.fromarray(data.images[number].reshape(SIDE, SIDE))
        picture.paste(image.resize((side, side), Image.Resampling.NEAREST), (left, top))
        actual, taken_for = (data.class_names[y[number]] for y in (data.labels, predicted))
        below = top + side
        draw.text((left, below), f"is {actual}", INK, font)
        draw.text((left, below + LINE), f"taken for {taken_for}", INK, font)
        draw.text((left, below + 2 * LINE), f"{confidence[number]:.1%} sure", QUIET, font)
    return picture
