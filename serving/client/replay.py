"""Send logged images to another version or another server, and tell what changes."""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serving.client.base import Client
from serving.fashion.contract import LABELS, PIXELS, PROBABILITIES
from serving.fashion.logged import LoggedImages, read_log

CHANGED = 3  # exit code of a replay that changes more labels than allowed


class Change(NamedTuple):
    """Of one model's logged requests, sent again.

    changed: labels; share: of all labels; probability: the largest difference, 0 to 1, of that of a
    logged label; logged_ms, now_ms: medians, in the server, and here, with the network in it.
    """

    requests: int
    images: int
    changed: int
    share: float
    probability: float
    logged_ms: float
    now_ms: float


def add_options(program: argparse.ArgumentParser) -> None:
    """Of a replay, beside those of every command."""
    program.add_argument("folder", type=Path, help="of the log")
    program.add_argument(
        "--allow", type=float, default=0.0, metavar="SHARE",
        help=f"of labels that may change; above it, exit code {CHANGED} (default: 0)",
    )  # fmt: skip


def rows(changes: dict[str, Change]) -> list[list[str]]:
    """A table of the changes, by model, its first row a heading."""
    heading = ["model", *(name.replace("_", " ") for name in Change._fields)]
    shown = ([f"{n:,}" if isinstance(n, int) else f"{n:.4f}" for n in c] for c in changes.values())
    return [heading, *([model, *cells] for model, cells in zip(changes, shown, strict=True))]


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


def replay(client: Client, model: str, version: str, lines: Iterable[LoggedImages]) -> Change:
    """Send requests of a model again, one after another. Raises ResponseError."""
    images = changed = 0
    difference, before, now = 0.0, [], []
    for line in lines:
        pixels = np.frombuffer(line.pixels, np.uint8).reshape(-1, PIXELS)
        start = time.perf_counter()
        outputs = client.infer(model, pixels, [LABELS, PROBABILITIES], version)
        now.append(1000 * (time.perf_counter() - start))
        before.append(line.milliseconds)
        labels = np.array(line.labels)
        images += len(labels)
        changed += int((outputs[LABELS] != labels).sum())
        if labels.max() >= outputs[PROBABILITIES].shape[1]:
            raise ValueError(f"{model}: expected the classes of the log, got fewer: other classes?")
        same = outputs[PROBABILITIES][np.arange(len(labels)), labels]
        difference = max(difference, float(np.abs(same - line.probabilities).max()))
    milliseconds = float(np.median(before)), float(np.median(now))
    return Change(len(now), images, changed, changed / images, difference, *milliseconds)
