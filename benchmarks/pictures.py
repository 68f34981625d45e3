"""The pictures of what `make bench` and `make bench-serving` have measured."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.figures import BLOG_REST, KINDS, OUR_GRPC, OUR_REST, Figures, Load

FOLDER = Path("benchmarks")
GREY, BLUE, ORANGE = "#6e7781", "#1f6feb", "#d1552b"  # apart for the colour-blind, too
LINES: dict[Any, dict[str, Any]] = {
    BLOG_REST: {"label": "blog, REST", "color": GREY, "marker": "s"},
    OUR_REST: {"label": "ours, REST", "color": BLUE, "marker": "o"},
    OUR_GRPC: {"label": "ours, gRPC", "color": ORANGE, "marker": "^"},
}
TITLES = {"sklearn": "SVM", "xgboost": "boosted trees"}
mpl.rcParams |= {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 11}


def draw_growth(curves: dict[str, Any]) -> None:
    """Draw seconds (both axes logarithmic) and accuracy against images.

    curves: by way, with images, seconds, accuracy and exponent.
    """
    figure, (left, right) = _pair()
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
        _finish(axes, title, "training images")
    _save(figure, "growth")


def draw_serving(found: dict[Load, Figures]) -> None:
    """Draw p99 against the offered rate, and images a second against images a request."""
    (latency, left), (throughput, right) = _pair(), _pair()
    for kind, above, below in zip(KINDS, left, right, strict=True):
        for way, line in LINES.items():
            loads = [load for load in found if (load.kind, load.way) == (kind, way)]
            offered = sorted((x for x in loads if x.factor), key=lambda x: x.factor)
            rates = [round(found[x].per_second) for x in offered]
            above.plot(rates, [found[x].p99 for x in offered], **line)
            alone = [x for x in loads if x.connections == 1 and not x.factor]
            alone.sort(key=lambda x: x.rows)
            images = [x.rows for x in alone]
            below.plot(images, [1e3 / found[x].p50 * x.rows for x in alone], **line)
        below.set_xscale("log")
        below.set_xticks(images, [f"{count:,}" for count in images])
        for axes in (above, below):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:,.0f}")
        title = f"{TITLES[kind]}: 99th percentile of latency, ms"
        _finish(above, title, "single images sent a second, on schedule")
        _finish(below, f"{TITLES[kind]}: images a second", "images a request, over one connection")
    _save(latency, "latency")
    _save(throughput, "throughput")


def _pair() -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    return figure, list(figure.subplots(1, 2))


def _finish(axes: Axes, title: str, across: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(across)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
