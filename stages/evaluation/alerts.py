"""What Prometheus compares a server's predictions with: those for the evaluation images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stages.data.arrays import atomic_write

EXPECTED = Path("metrics/expected.yml")


def expected(
    model: str, class_names: Sequence[str], labels: np.ndarray, confidence: np.ndarray
) -> list[dict[str, Any]]:
    """Recording rules of a model's shares of classes and mean confidence.

    labels: predicted, int [n]; confidence: their probabilities, float [n].
    """
    shares = np.bincount(labels, minlength=len(class_names)) / len(labels)
    values = [("class_share", {"class": n}, s) for n, s in zip(class_names, shares, strict=True)]
    return [
        {
            "record": f"fashion_evaluation_{name}",
            "expr": f"vector({value:.4f})",
            "labels": {"model": model} | of,
        }
        for name, of, value in [*values, ("confidence", {}, confidence.mean())]
    ]


def write_expected(path: Path, rules: list[dict[str, Any]]) -> None:
    """Write a file of rules for Prometheus."""
    groups = {"groups": [{"name": "fashion-evaluation", "rules": rules}]}
    with atomic_write(path) as part:
        part.write_text(yaml.safe_dump(groups, sort_keys=False, width=100), encoding="utf-8")
