"""The images to measure with; result files with their conditions, and Markdown tables of them."""

import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving.fashion.contract import CLASS_NAMES
from stages.data.idx import RAW, read_idx
from stages.data.processed import Images

PACKAGES = (
    *("grpcio", "mlserver", "numpy", "opencv-python-headless", "scikit-learn"),
    *("scikit-learn-intelex", "uvicorn", "xgboost"),
)


def published(files: tuple[str, str]) -> Images:
    """The images of TRAIN_FILES or TEST_FILES of stages.data.idx, once these are downloaded."""
    images, labels = (RAW / file for file in files)
    return read_idx(images, labels, CLASS_NAMES["fashion-mnist"])


def conditions() -> dict[str, Any]:
    """Command, date, commit, hardware and versions."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux
    names = [line.split(": ", 1)[1] for line in facts if line.startswith("model name")]
    commit = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.check_output(commit, text=True).strip(),
        "hardware": f"{len(names)} cores of {names[0]}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write what was measured, after its conditions."""
    path.write_text(json.dumps(conditions() | result, indent=1) + "\n", encoding="utf-8")
    print(f"{path} written")


def describe(result: dict[str, Any]) -> str:
    """Where and of what the figures of a result file are."""
    return f"{result['hardware']}, {result['date']}, commit {result['commit']}"


def markdown(rows: Iterable[dict[str, str]]) -> str:
    """A Markdown table of rows, each with the same columns: cells by heading."""
    first, *others = rows
    lines = [first.keys(), ["---"] * len(first), *(row.values() for row in (first, *others))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
