"""Result files, with the conditions that they were measured under, and Markdown tables of them."""

import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("grpcio", "mlserver", "numpy", "opencv-python-headless", "scikit-learn"),
    *("scikit-learn-intelex", "uvicorn", "xgboost"),
)


def conditions(path: Path) -> dict[str, Any]:
    """Command, date, commit, hardware and versions of the module of the same name."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux
    names = [line.split(": ", 1)[1] for line in facts if line.startswith("model name")]
    commit = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "command": " ".join(["python -m", f"benchmarks.{path.stem}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.check_output(commit, text=True).strip(),
        "hardware": f"{len(names)} cores of {names[0]}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write what the module of the same name measured, after its conditions."""
    path.write_text(json.dumps(conditions(path) | result, indent=1) + "\n", encoding="utf-8")
    print(f"{path} written")


def sentence(result: dict[str, Any]) -> str:
    """The conditions of a result file, command excepted."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['hardware']}, {result['date']}, commit {result['commit']}; {versions}."


def markdown(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table. head: its first line; rows: their cells."""
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n".join([head, rule, *(f"| {' | '.join(cells)} |" for cells in rows)])
