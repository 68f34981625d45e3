"""Check what this project needs to run here, and print what to do: make doctor

Works before anything is installed, under any Python from 3.8. Argument: the accepted versions of
Python, as "3.11|3.12"; or "data", to check only whether the data set can be fetched.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Iterator, List, Tuple  # noqa: UP035 (Python 3.8)

from serving.fashion.adapter.preflight import port_error
from stages.data.forms import TEST_FILES, TRAIN_FILES, failure

DISK_GB, INSTALLED_GB = 3.0, 1.8  # for everything, and the part that is installed into .venv
MEMORY_MB = 2500  # of training; benchmarks/training.json has what was measured
PORTS = {"HTTP": 8080, "GRPC": 8081, "METRICS": 8082}  # MLServer's defaults
Result = Tuple[bool, str, str]  # noqa: UP006 (passed, what was checked, what was found)


def check_machine(versions: str) -> Iterator[Result]:
    version = "{}.{}".format(*sys.version_info)
    needed = " or ".join(versions.replace("|", ", ").rsplit(", ", 1))
    yield version in versions.split("|"), "Python", f"{version}, {needed} needed: {sys.executable}"
    git = bool(shutil.which("git")) and Path(".git").exists()
    yield git, "git", "found" if git else "DVC needs git, and a repository: git init"
    gb = shutil.disk_usage(".").free / 1e9
    needed_gb = DISK_GB - INSTALLED_GB * Path(".venv/.installed").exists()
    yield gb >= needed_gb, "disk", f"{gb:,.1f} GB free, {needed_gb:.1f} needed"
    mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    words = f"{mb:,.0f} MB, training takes {MEMORY_MB:,}; less with preprocess.train_limit"
    yield mb >= MEMORY_MB, "memory", words


def check_ports() -> Iterator[Result]:
    settings = {**dict(re.findall(r"(?m)^(\w+)=(.*)$", _read(".env"))), **os.environ}
    host = settings.get("MLSERVER_HOST", "0.0.0.0")
    for name, default in PORTS.items():
        variable = f"MLSERVER_{name}_PORT"
        port = settings.get(variable, str(default))
        error = f"{variable} is {port!r}; expected a whole number"
        if port.isdigit():
            error = port_error(host, int(port), variable)
        yield not error, f"port {port}", error or f"free on {host}"


def check_data() -> Result:
    try:
        dataset, listed = _download_params()
    except ValueError as error:
        return False, "data", str(error)
    files = [*TRAIN_FILES, *TEST_FILES]
    if dataset != "fashion-mnist":
        return True, "data", f"download.dataset is {dataset}"
    if all(Path("data/raw", name).exists() for name in files):
        return True, "data", "already in data/raw"
    failures = []
    for source in filter(None, [os.environ.get("FASHION_MNIST_SOURCE"), *listed]):
        why = failure(source, files)
        if not why:
            return True, "data", f"from {source}"
        failures.append(f"{source}: {why}")
    return False, "data", f"{'; '.join(failures)}; set FASHION_MNIST_SOURCE to a folder or base URL"


def _download_params() -> Tuple[str, List[str]]:  # noqa: UP006
    """download.dataset and download.sources. Raises ValueError where params.yaml is wrong."""
    try:
        from stages.console import StageError  # noqa: PLC0415
        from stages.params import load_params  # noqa: PLC0415
    except (ImportError, TypeError):  # nothing that reads YAML is installed yet, or for this Python
        section = _read("params.yaml").partition("\n  own:")[0]
        found = re.search(r"(?m)^  dataset: ([a-z-]+)", section)
        return found.group(1) if found else "", re.findall(r"(?m)^ +- (\S+)", section)
    try:
        params = load_params().download
    except StageError as error:
        raise ValueError(str(error)) from None
    return params.dataset, params.sources


def check_models() -> Result:
    models = sorted(path.parent for path in Path("serving/models").glob("*/*/model-settings.json"))
    return True, "models", ", ".join(map(str, models)) or "none packaged yet; make run does it"


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).is_file() else ""


def main() -> None:
    if sys.argv[1] == "data":
        passed, _, found = check_data()
        sys.exit(None if passed else f"error: {found}")
    results = [*check_machine(sys.argv[1]), *check_ports(), check_data(), check_models()]
    for passed, what, found in results:
        print(f"{'ok' if passed else 'fails':8} {what:10} {found}")
    if failed := sum(not passed for passed, _, _ in results):
        sys.exit(f"\n{failed} of these would fail")
    print("\nReady: make run")


if __name__ == "__main__":
    main()
