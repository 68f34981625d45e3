"""How the cost of training grows with the number of images, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

NAMES = {"ours_sklearn": "fashion-sklearn", "ours_xgboost": "fashion-xgboost"}
COLOURS = {"ours_sklearn": "#1f6feb", "ours_xgboost": "#d1552b"}  # apart for the colour-blind, too
mpl.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 11}


def exponent(images: Sequence[int], seconds: Sequence[float]) -> float:
    """The b of seconds = a · images^b, by least squares on the logarithms."""
    return float(np.polyfit(np.log(images), np.log(seconds), 1)[0])


def draw(path: Path, curves: dict[str, Any]) -> None:
    """Draw seconds (both axes logarithmic) and accuracy against images, an SVG.

    curves: by way, with images, seconds, accuracy and exponent.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for way, curve in curves.items():
        images, colour = np.array(curve["images"]), COLOURS[way]
        fit = np.poly1d(np.polyfit(np.log(images), np.log(curve["seconds"]), 1))
        label = f"{NAMES[way]}: images$^{{{curve['exponent']:.2f}}}$"
        left.loglog(images, curve["seconds"], "o", color=colour, label=label)
        left.loglog(images, np.exp(fit(np.log(images))), "-", color=colour, alpha=0.5)
        right.semilogx(images, curve["accuracy"], "o-", color=colour, label=NAMES[way])
    left.set_title("training, features included, seconds", loc="left")
    right.set_title("accuracy on the test images", loc="left")
    for axes in (left, right):
        axes.set_xticks(images, [f"{n // 1000}k" for n in images])
        axes.minorticks_off()
        axes.set_xlabel("training images")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    left.set_yticks(ticks := [2, 5, 10, 20, 50, 100], [str(tick) for tick in ticks])
    figure.savefig(path, metadata={"Date": None})
