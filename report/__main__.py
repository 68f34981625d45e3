"""Write report.html, one page on the last evaluation, that needs no other file.

Reads   metrics/, dvc.yaml, dvc.lock, data/processed/, serving/models/, git
Writes  report.html

Most of its few seconds go to DVC's plots and status, and to drawing the plots.
"""

from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from report import provenance
from report.drawings import drawings
from report.pages import picture, render
from report.predictions import common_mistakes, mistakes, read_predictions, weakest
from stages.console import run
from stages.data.arrays import atomic_write, map_rows
from stages.data.processed import PROCESSED, TRAIN_LABELS, Images, read_npz
from stages.evaluation.plots import PREDICTIONS, read_metrics

REPORT, TEMPLATE = Path("report.html"), "report.html.jinja"
MISTAKES, COMMON, WEAKEST = 12, 3, 3  # shown, at most


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


def gallery(data: Images, predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """The mistakes of a model with the highest confidence."""
    surest = mistakes(predictions).nlargest(MISTAKES, "confidence").to_dict("index")
    return [
        {"number": number, "src": picture(data.images[number])} | row
        for number, row in surest.items()
    ]


def content() -> dict[str, Any]:
    """All that the page shows."""
    metrics = read_metrics()
    data, stages = read_npz(PROCESSED / "test.npz"), provenance.locked()
    predictions = {m: read_predictions(PREDICTIONS / f"{m}.csv") for m in metrics}
    return {
        "metrics": metrics,
        "standard_error": {
            m: sqrt(v["accuracy"] * (1 - v["accuracy"]) / v["images"]) for m, v in metrics.items()
        },
        "published": PUBLISHED,
        "common": {m: common_mistakes(a, COMMON) for m, a in predictions.items()},
        "mistakes": {m: gallery(data, a) for m, a in predictions.items()},
        "class_names": data.class_names,
        "trained_on": len(map_rows(TRAIN_LABELS)),
        "weakest": {m: weakest(a, WEAKEST) for m, a in predictions.items()},
        "drawings": drawings(),
        "commit": provenance.commit(),
        "changed_stages": provenance.changed_stages(),
        "raw_files": stages["download"]["outs"],
        "models": provenance.packaged(),
        "params": provenance.parameters(stages),
    }


def main() -> None:
    page = render(TEMPLATE, content())
    with atomic_write(REPORT) as tmp:
        tmp.write_text(page, encoding="utf-8")
    print(f"Read the report:    {REPORT}")


if __name__ == "__main__":
    run(main)
