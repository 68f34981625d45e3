"""What `evaluate` leaves for `dvc plots` and the report, and where."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serving.fashion.contract import SIDE
from stages.data.arrays import atomic_write
from stages.data.processed import Images
from stages.evaluation.metrics import DECIMALS, reliability

METRICS = Path("metrics/evaluation.json")
PREDICTIONS, PLOTS = Path("metrics/predictions"), Path("metrics/plots")

COLUMNS, ROWS = 6, 3  # of the gallery
SCALE, GAP, LINE = 5, 18, 18  # pixels: a side of an image's pixel, between images, a line of text
INK, QUIET = (29, 29, 31), (92, 92, 102)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, numbers rounded to DECIMALS."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in rows:
            table.writerow([round(v, DECIMALS) if isinstance(v, float) else v for v in row])


def write_predictions(
    path: Path, data: Images, predicted: np.ndarray, confidence: np.ndarray
) -> None:
    """Write each image's actual and predicted class name, and the probability of the latter."""
    names = np.array(data.class_names)
    rows = zip(names[data.labels], names[predicted], confidence.tolist(), strict=True)
    write_table(path, ["actual", "predicted", "confidence"], rows)


def write_recall(path: Path, recall: dict[str, dict[str, float]]) -> None:
    """Write the recall of each class, by model and class name."""
    rows = [(m, name, value) for m, classes in recall.items() for name, value in classes.items()]
    write_table(path, ["model", "class", "recall"], rows)


def write_reliability(path: Path, judged: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the bins of `reliability`. judged: right and confidence, [n] each, by model."""
    rows = [
        (model, *found)
        for model, (right, confidence) in judged.items()
        for found in reliability(right, confidence)
    ]
    write_table(path, ["model", "confidence", "right", "images"], rows)


def surest_mistakes(wrong: np.ndarray, confidence: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the wrongly predicted images, int [≤ count], the surest first.

    wrong: bool [n]; confidence: float [n], probability of the predicted class.
    """
    numbers = np.flatnonzero(wrong)
    return numbers[np.argsort(-confidence[numbers], kind="stable")][:count]


def gallery(data: Images, predicted: np.ndarray, confidence: np.ndarray) -> Image.Image:
    """A picture of the mistakes that a model was surest of, with what they are and were taken for.

    predicted: [n], labels; confidence: [n], their probabilities.
    """
    worst = surest_mistakes(predicted != data.labels, confidence, COLUMNS * ROWS)
    width, height = SIDE * SCALE + GAP, SIDE * SCALE + GAP + 3 * LINE
    rows = -(-len(worst) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * width + GAP, max(rows * height, LINE) + GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    if not len(worst):
        draw.text((GAP, GAP // 2), f"No mistakes on {len(predicted):,} images.", INK, font)
    for place, number in enumerate(worst):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        picture.paste(enlarged(data.images[number]), (left, top))
        lines = [
            (f"is {data.class_names[data.labels[number]]}", INK),
            (f"taken for {data.class_names[predicted[number]]}", INK),
            (f"{confidence[number]:.1%} sure", QUIET),
        ]
        for line, (text, colour) in enumerate(lines):
            draw.text((left, top + SIDE * SCALE + line * LINE), text, colour, font)
    return picture


def enlarged(image: np.ndarray) -> Image.Image:
    """An image, uint8 [784], each of its pixels a square of SCALE × SCALE."""
    size = (SIDE * SCALE, SIDE * SCALE)
    return Image.fromarray(image.reshape(SIDE, SIDE)).resize(size, Image.Resampling.NEAREST)


def write_gallery(path: Path, data: Images, predicted: np.ndarray, confidence: np.ndarray) -> None:
    """Write the gallery as PNG."""
    with atomic_write(path) as part:
        gallery(data, predicted, confidence).save(part)
