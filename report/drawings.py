"""DVC's plots as SVG, drawn here without a browser or the internet."""

import json
import re
import subprocess
import sys
import tempfile
from html import escape
from typing import Any, NamedTuple

import vl_convert

from stages.console import StageError

INK, FAINT, COLOUR = "currentColor", "#8884", "#945dd6"  # the last one is DVC's first
LABELS = {"labelColor": INK, "labelFontSize": 13, "titleColor": INK, "titleFontSize": 13}
LINES = {"gridColor": FAINT, "domainColor": FAINT, "tickColor": FAINT}
CONFIG = {
    "aria": False,  # the page describes each drawing
    "background": None,
    "font": "Arial, Helvetica, sans-serif",  # narrow ones, and alike
    "padding": 10,
    "axis": LABELS | LINES,
    "header": LABELS | {"title": None, "labels": False},  # "workspace", except in .dvc/plots
    "legend": LABELS | {"orient": "bottom"},
    "text": {"color": INK, "fontSize": 13},
    "view": {"stroke": FAINT},
}
BY_REVISION = {"field": "rev", "type": "nominal"}  # a colour in DVC's templates
SIZES = {"recall": (320, 320), "reliability": (320, 320), "training_curve": (560, 320)}
SIZE = 440, 440  # of the others, in CSS pixels; a facet's, labels and legend come on top


class Drawing(NamedTuple):
    """title: DVC's; svg: an element that takes its ink from the text around it."""

    title: str
    svg: str


def dvc_plots() -> dict[str, Any]:
    """What `dvc plots show` shows of the working tree, by plot: its template and its values.

    Raises StageError where DVC cannot make one of them.
    """
    with tempfile.TemporaryDirectory() as pictures:
        command = ["plots", "show", "--json", "--split", "--out", pictures]
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise StageError(f"dvc plots show: {done.stderr.strip()}")
    metadata = json.loads(done.stdout)
    for error in metadata.get("errors", []):
        raise StageError(f"{error.get('source', error['name'])}: {error['msg']}; run: dvc repro")
    return metadata["data"]


def draw(name: str, plot: dict[str, Any]) -> Drawing:
    """Draw a plot. name: its id in dvc.yaml; plot: of type vega, as `dvc_plots` gives it."""
    values = plot["anchor_definitions"]
    title = values["<DVC_METRIC_TITLE>"]
    width, height = SIZES.get(name, SIZE)
    values |= {
        "<DVC_METRIC_TITLE>": "",  # the page has it as a caption
        "<DVC_METRIC_COLOR>": {"value": COLOUR},
        "<DVC_METRIC_PLOT_WIDTH>": width,
        "<DVC_METRIC_PLOT_HEIGHT>": height,
    }
    template = json.dumps(plot["content"])
    for old, new in [(BY_REVISION, {"value": COLOUR}), *values.items()]:
        template = template.replace(json.dumps(old), json.dumps(new))
    spec = json.loads(template)
    for choice in spec.get("params", []):
        choice["value"] = choice["name"] == "showValues" or choice.get("value")
    return Drawing(title, to_svg(name, title, spec))


def to_svg(name: str, title: str, spec: dict[str, Any]) -> str:
    """An element for a page of Vega-Lite's specification. name: unique in the page."""
    prefix = re.sub(r"\W", "-", name)
    svg = vl_convert.vegalite_to_svg(spec, config=CONFIG, allowed_base_urls=[])
    svg = re.sub(r'(\bid="|url\(#)', rf"\g<1>{prefix}-", svg)  # ids are unique in the page
    svg = re.sub(r' (role|aria-[a-z]+)="[^"]*"', "", svg)  # of each mark; the whole has one
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def drawings() -> dict[str, Drawing]:
    """All of DVC's plots but its pictures, by their ids in dvc.yaml; of a folder, by path."""
    plots = dvc_plots().items()
    return {name: draw(name, shown[0]) for name, shown in plots if shown[0]["type"] == "vega"}
