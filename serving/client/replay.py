"""Send logged images to another version or another server, and tell what changes."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serving.client import Client
from serving.fashion.contract import LABELS, PIXELS, PROBABILITIES
from serving.fashion.logged import LoggedImages, read_log

CHANGED = 3  # exit code of a replay that changes more labels than allowed


def logged(folder: Path, models: list[str]) -> dict[str, list[LoggedImages]]:
    """The log's requests that have their pixels, by model. models: these only, if any.

    Raises ValueError, in one line, where there is none, OSError where a file cannot be read.
    """
    found: dict[str, list[LoggedImages]] = {}
    for line in read_log(folder):
        if line.pixels and (line.model in models or not models):
            found.setdefault(line.model, []).append(line)
    if not found:
        raise ValueError(
            f"{folder}: expected requests with pixels for {', '.join(models) or 'a model'}, found "
            "none; a server logs those of the share FASHION_REQUEST_LOG_IMAGES"
        )
    return found


def replay(
    client: Client, model: str, version: str, lines: Sequence[LoggedImages]
) -> dict[str, float]:
    """Send requests of a model again, one after another, and count and measure what changes.

    changed: labels; share: of all labels; probability: the largest difference, 0 to 1, of that of a
    logged label; logged_ms, now_ms: medians, in the server, and here, with the network in it.
    Raises ResponseError, and ValueError where a model has fewer classes than the log.
    """
    results, now = [], []
    for line in lines:
        pixels = np.frombuffer(line.pixels, np.uint8).reshape(-1, PIXELS)
        start = time.perf_counter()
        results.append(client.infer(model, pixels, [LABELS, PROBABILITIES], version))
        now.append(1000 * (time.perf_counter() - start))
    labels = np.array([label for line in lines for label in line.labels])
    probabilities = np.concatenate([result[PROBABILITIES] for result in results])
    if labels.max() >= probabilities.shape[1]:
        raise ValueError(f"{model}: expected the classes of the log, got fewer: other classes?")
    changed = labels != np.concatenate([result[LABELS] for result in results])
    before = np.concatenate([line.probabilities for line in lines])
    difference = np.abs(probabilities[np.arange(len(labels)), labels] - before).max()
    return {
        "requests": len(lines),
        "images": len(labels),
        "changed": int(changed.sum()),
        "share": float(changed.mean()),
        "probability": float(difference),
        "logged_ms": float(np.median([line.milliseconds for line in lines])),
        "now_ms": float(np.median(now)),
    }
