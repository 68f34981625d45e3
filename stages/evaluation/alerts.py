"""What Prometheus compares a server's predictions with: those for the evaluation images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from stages.evaluation.metrics import Predictions

EXPECTED = Path("metrics/expected.yml")


def expected(class_names: Sequence[str], predictions: Mapping[str, Predictions]) -> str:
    """A file of recording rules: shares of classes and mean confidence of each model, by name."""
    rules = []
    for model, found in predictions.items():
        shares = np.bincount(found.labels, minlength=len(class_names)) / len(found.labels)
        by_class = zip(class_names, shares, strict=True)
        values = [("class_share", {"class": name}, share) for name, share in by_class]
        for name, of, value in [*values, ("confidence", {}, found.confidence.mean())]:
            rule = {"record": f"fashion_evaluation_{name}", "expr": f"vector({value:.4f})"}
            rules.append(rule | {"labels": {"model": model} | of})
    groups = {"groups": [{"name": "fashion-evaluation", "rules": rules}]}
    return yaml.safe_dump(groups, sort_keys=False, width=100)
