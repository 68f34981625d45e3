"""The picture of what `make bench` has measured."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

FOLDER = Path("benchmarks")
BLUE, ORANGE = "#1f6feb", "#d1552b"  # apart for the colour-blind, too
mpl.rcParams |= {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 11}


def draw_growth(curves: dict[str, Any]) -> None:
    """Draw seconds (both axes logarithmic) and accuracy against images.

    curves: by way, with images, seconds, accuracy and exponent.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (way, curve), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
        images, name = np.array(curve["images"]), way.replace("ours_", "fashion-")
        fit = np.poly1d(np.polyfit(np.log(images), np.log(curve["seconds"]), 1))
        label = f"{name}: images$^{{{curve['exponent']:.2f}}}$"
        left.loglog(images, curve["seconds"], "o", color=colour, label=label)
        left.loglog(images, np.exp(fit(np.log(images))), "-", color=colour, alpha=0.5)
        right.semilogx(images, curve["accuracy"], "o-", color=colour, label=name)
    left.set_yticks(ticks := [2, 5, 10, 20, 50, 100], [str(tick) for tick in ticks])
    for axes, title in (
        (left, "training, features included, seconds"),
        (right, "accuracy on the test images"),
    ):
        axes.set_xticks(images, [f"{n // 1000}k" for n in images])
        axes.set_title(title, loc="left")
        axes.set_xlabel("training images")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(FOLDER / "growth.svg", metadata={"Date": None})
