"""Write deploy/monitoring/evaluation.yml: what the alerts compare the models' predictions with.

Reads   metrics/evaluation.json, metrics/predictions/
Writes  deploy/monitoring/evaluation.yml
"""

from pathlib import Path
from typing import Any

import yaml

from report.__main__ import read_metrics
from report.comparison import Predictions, read_predictions
from stages.console import run
from stages.data.arrays import atomic_write
from stages.evaluation.plots import PREDICTIONS

RULES = Path("deploy/monitoring/evaluation.yml")
HEAD = "# Predictions for the evaluation images, by: python -m report.expected\n"


def rules(model: str, predictions: Predictions) -> list[dict[str, Any]]:
    """Prometheus' recording rules of a model's classes and mean confidence."""
    classes = sorted(set(predictions.actual.tolist()))
    shares = {name: (predictions.predicted == name).mean() for name in classes}
    confidence = predictions.confidence.mean()
    return [
        {
            "record": "fashion_evaluation_class_share",
            "expr": f"vector({share:.4f})",
            "labels": {"model": model, "class": name},
        }
        for name, share in shares.items()
    ] + [
        {
            "record": "fashion_evaluation_confidence",
            "expr": f"vector({confidence:.4f})",
            "labels": {"model": model},
        }
    ]


def content() -> str:
    """The file's text."""
    found = {m: read_predictions(PREDICTIONS / f"{m}.csv") for m in read_metrics()}
    records = [rule for model, own in found.items() for rule in rules(model, own)]
    groups = {"groups": [{"name": "fashion-evaluation", "rules": records}]}
    return HEAD + yaml.safe_dump(groups, sort_keys=False, width=100)


def main() -> None:
    text = content()
    with atomic_write(RULES) as part:
        part.write_text(text, encoding="utf-8")
    print(f"Written: {RULES}")


if __name__ == "__main__":
    run(main)
