"""Write report.html, one page on the last evaluation, that needs nothing beside it.

Reads   metrics/, dvc.yaml, dvc.lock, data/processed/, serving/models/, git
Writes  report.html

Most of its few seconds go to DVC, asked for plots and status, and to drawing the plots.
"""

from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from report import comparison, provenance
from report.comparison import Predictions
from report.drawings import drawings
from report.pages import picture, render
from stages.console import run
from stages.data.arrays import atomic_write, map_rows
from stages.data.processed import PROCESSED, TRAIN_LABELS, Images, read_npz
from stages.evaluation.plots import PREDICTIONS, read_metrics, surest_mistakes

REPORT, TEMPLATE = Path("report.html"), "report.html.jinja"
MISTAKES, DISAGREEMENTS, PAIRS, COMMON, WEAKEST = 12, 12, 10, 3, 3  # shown, at most


class Published(NamedTuple):
    """Someone else's accuracy on the test images of Fashion-MNIST, and where it was published."""

    name: str
    accuracy: float
    source: str
    url: str


DATA_SET = "https://github.com/zalandoresearch/fashion-mnist"
PUBLISHED = (
    Published(
        "Tsetlin machine composites", 0.930, "arXiv 2309.04801", "https://arxiv.org/abs/2309.04801"
    ),
    Published("HOG and an SVM", 0.926, "data set's README", DATA_SET),
    Published("Boosted trees", 0.911, "its issue 189", f"{DATA_SET}/issues/189"),
    Published("People", 0.835, "data set's README", DATA_SET),
)


def mistakes(data: Images, predictions: Predictions) -> list[dict[str, Any]]:
    """The mistakes that a model was surest of."""
    numbers = surest_mistakes(~predictions.right, predictions.confidence, MISTAKES)
    return [shown(data, n, {"taken for": predictions}) for n in numbers]


def shown(data: Images, number: int, predictions: dict[str, Predictions]) -> dict[str, Any]:
    """A picture with its actual class, and the predictions, by the words before each."""
    return {
        "number": number,
        "src": picture(data.images[number]),
        "actual": data.class_names[data.labels[number]],
        "by_model": {
            w: (a.predicted[number], a.confidence[number]) for w, a in predictions.items()
        },
    }


def compared(data: Images, predictions: dict[str, Predictions]) -> dict[str, Any]:
    """Where two models disagree."""
    first, second = predictions.values()
    right = comparison.agreement_counts(first, second)
    surest = comparison.surest_disagreements(first, second, DISAGREEMENTS)
    return {
        "models": list(predictions),
        "images": int((first.predicted != second.predicted).sum()),
        "right": right,
        "chance": comparison.chance(right["first"], right["second"]),
        "pairs": comparison.disagreements(first, second)[:PAIRS],
        "pictures": [shown(data, n, {f"{m}:": a for m, a in predictions.items()}) for n in surest],
    }


def content() -> dict[str, Any]:
    """All that the page shows."""
    metrics = read_metrics()
    data, stages = read_npz(PROCESSED / "test.npz"), provenance.locked()
    predictions = {m: comparison.read_predictions(PREDICTIONS / f"{m}.csv") for m in metrics}
    return {
        "metrics": metrics,
        "standard_error": {
            m: sqrt(v["accuracy"] * (1 - v["accuracy"]) / v["images"]) for m, v in metrics.items()
        },
        "published": PUBLISHED,
        "common": {m: comparison.common_mistakes(a, COMMON) for m, a in predictions.items()},
        "mistakes": {m: mistakes(data, a) for m, a in predictions.items()},
        "compared": [compared(data, dict(two)) for two in combinations(predictions.items(), 2)],
        "class_names": data.class_names,
        "trained_on": len(map_rows(TRAIN_LABELS)),
        "weakest": {m: comparison.weakest(a, WEAKEST) for m, a in predictions.items()},
        "drawings": drawings(),
        "commit": provenance.commit(),
        "changed_stages": provenance.changed_stages(),
        "raw_files": provenance.raw_files(stages),
        "models": provenance.packaged(),
        "params": provenance.parameters(stages),
    }


def main() -> None:
    page = render(TEMPLATE, content())
    with atomic_write(REPORT) as part:
        part.write_text(page, encoding="utf-8")
    print(f"Read the report:    {REPORT}")


if __name__ == "__main__":
    run(main)
