"""What `make bench-serving` has measured, as pictures."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.figures import Figures, Load
from benchmarks.servers import BLOG_REST, KINDS, OUR_GRPC, OUR_REST, WAYS, Way

PICTURES = LATENCY, THROUGHPUT = (
    Path("benchmarks/latency.svg"),
    Path("benchmarks/throughput.svg"),
)
NAMES = {BLOG_REST: "blog, REST", OUR_REST: "ours, REST", OUR_GRPC: "ours, gRPC"}
COLOURS = {BLOG_REST: "#6e7781", OUR_REST: "#1f6feb", OUR_GRPC: "#d1552b"}
MARKERS = {BLOG_REST: "s", OUR_REST: "o", OUR_GRPC: "^"}
TITLES = {"sklearn": "SVM", "xgboost": "boosted trees"}
mpl.rcParams |= {"svg.hashsalt": "serving", "svg.fonttype": "none", "font.size": 11}


def draw(found: dict[Load, Figures]) -> None:
    """Draw p99 against the offered rate, and images a second against images a request, SVGs."""
    figure, axes = _pair()
    for kind, plot in zip(KINDS, axes, strict=True):
        for way in WAYS:
            loads = sorted(
                (x for x in found if _is(x, kind, way) and x.factor), key=lambda x: x.factor
            )
            rates = [round(found[load].per_second) for load in loads]
            _line(plot, way, rates, [found[load].p99 for load in loads])
        plot.set_xlabel("single images asked for a second, on schedule")
        _finish(plot, f"{TITLES[kind]}: 99th percentile of latency, ms")
    figure.savefig(LATENCY, metadata={"Date": None})
    figure, axes = _pair()
    for kind, plot in zip(KINDS, axes, strict=True):
        for way in WAYS:
            loads = [x for x in found if _is(x, kind, way) and x.connections == 1 and not x.factor]
            loads.sort(key=lambda load: load.rows)
            images = [load.rows for load in loads]
            _line(plot, way, images, [1e3 / found[x].p50 * x.rows for x in loads])
        plot.set_xscale("log")
        plot.set_xticks(images, [f"{count:,}" for count in images])
        plot.set_xlabel("images a request, over one connection")
        _finish(plot, f"{TITLES[kind]}: images a second")
    figure.savefig(THROUGHPUT, metadata={"Date": None})


def _is(load: Load, kind: str, way: Way) -> bool:
    return load.kind == kind and load.way == way


def _pair() -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    return figure, list(figure.subplots(1, 2))


def _line(plot: Axes, way: Way, across: list[int], up: list[float]) -> None:
    plot.plot(across, up, color=COLOURS[way], marker=MARKERS[way], label=NAMES[way])


def _finish(plot: Axes, title: str) -> None:
    plot.set_title(title, loc="left")
    plot.set_yscale("log")
    plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.minorticks_off()
    plot.yaxis.set_major_formatter("{x:,.0f}")
    plot.grid(alpha=0.3)
    plot.spines[["top", "right"]].set_visible(False)
    plot.legend(frameon=False)
