"""Turn what `dvc metrics show --json` prints, on stdin, into a line a metric, a column a model."""

import json
import sys
from typing import Any


def flatten(metrics: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested metrics as one level: {"recall": {"Bag": 0.5}} becomes {"recall.Bag": "0.5000"}."""
    flat: dict[str, str] = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = f"{value:.4f}" if isinstance(value, float) else str(value)
    return flat


def table(shown: dict[str, Any]) -> str:
    """The table for the parsed output of DVC: {"": {"data": {file: {"data": {model: …}}}}}."""
    blocks = []
    for file, content in shown[""]["data"].items():
        columns = {model: flatten(metrics) for model, metrics in content["data"].items()}
        labels = list(dict.fromkeys(label for column in columns.values() for label in column))
        width = max(map(len, [file, *labels])) + 2
        rows = [[file, *columns]]
        rows += [[label, *(c.get(label, "") for c in columns.values())] for label in labels]
        blocks += [row[0].ljust(width) + "".join(f"{v:>17}" for v in row[1:]) for row in rows]
    return "\n".join(blocks)


if __name__ == "__main__":
    print(table(json.load(sys.stdin)))
