"""Under which conditions something was measured, as every result says first."""

import datetime
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("grpcio", "mlserver", "numpy", "opencv-python-headless", "scikit-learn"),
    *("scikit-learn-intelex", "uvicorn", "xgboost"),
)


def conditions(module: str) -> dict[str, Any]:
    """The command that runs this module as it was run, the date, hardware and versions."""
    return {
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def hardware() -> str:
    """The processor's name and number of cores, as Linux tells them."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(": ", 1)[1] for line in facts if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}"
