"""Result files, with the conditions that they were measured under, and Markdown tables of them."""

import datetime
import json
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("grpcio", "mlserver", "numpy", "opencv-python-headless", "scikit-learn"),
    *("scikit-learn-intelex", "uvicorn", "xgboost"),
)


def write(path: Path, result: dict[str, Any]) -> None:
    """Write what the module of the same name measured, after command, date, hardware, versions."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux
    names = [line.split(": ", 1)[1] for line in facts if line.startswith("model name")]
    conditions = {
        "command": " ".join(["python -m", f"benchmarks.{path.stem}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "hardware": f"{len(names)} cores of {names[0]}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }
    path.write_text(json.dumps(conditions | result, indent=1) + "\n", encoding="utf-8")
    print(f"{path} written")


def markdown(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table. head: its first line; rows: their cells."""
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n".join([head, rule, *(f"| {' | '.join(cells)} |" for cells in rows)])
