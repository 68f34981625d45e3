"""Say what would keep this project from running here, and what to do: make doctor

Works before anything is installed, under any Python from 3.8. Argument: the versions that will do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035 (Python 3.8 has no other that takes [])

from serving.fashion.adapter.preflight import refusal

INSTALLED = ".venv/.installed"  # what make leaves there when it has
SOURCE_VARIABLE = "FASHION_MNIST_SOURCE"
SOURCE_SECONDS = 5.0
PUBLISHED = (
    f"make run would show make demo instead; set {SOURCE_VARIABLE} to a folder or base URL that "
    "holds the four files"
)
OWN = "make run would fail; name a folder or base URL that holds them in download.sources"
DISK_GB, INSTALLED_GB = 3.0, 1.7  # for all, and the part that is installed into .venv
PORTS = {"HTTP": 8080, "GRPC": 8081, "METRICS": 8082}  # MLServer's own defaults
SHOWN = 3  # packages named
OK, WARNING, FAILS = "ok", "warning", "fails"


class Finding(NamedTuple):
    """What a check came to. words: what was found, what would fail of it, and what to do."""

    state: str
    what: str
    words: str


def python(version: str, accepted: str) -> Finding:
    """accepted: as in 3.11|3.12."""
    found, versions = f"{version}, {sys.executable}", accepted.split("|")
    if version in versions:
        return Finding(OK, "Python", found)
    return Finding(
        FAILS,
        "Python",
        f"{found}: nothing can be installed, {' or '.join(versions)} is needed; "
        "install one, or name it: make run PYTHON=/path/to/python3.12",
    )


def git() -> Finding:
    """Whether there is git, and this is a repository of it, which DVC asks for."""
    if not shutil.which("git"):
        return Finding(FAILS, "git", "not found: DVC would not run; install git")
    asked = subprocess.run(
        ["git", "rev-parse", "--git-dir"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        said = asked.stderr.strip().split("\n")[0]
        words = f"{said}: DVC would not run; clone the project with git, or type: git init"
        return Finding(FAILS, "git", words)
    version = subprocess.check_output(["git", "--version"], text=True).split()[2]
    return Finding(OK, "git", version)


def disk(free: float, is_installed: bool) -> Finding:
    """free: GB."""
    needed = DISK_GB - INSTALLED_GB * is_installed
    if free >= needed:
        return Finding(OK, "disk", f"{free:,.1f} GB free, {needed:.1f} needed")
    return Finding(
        FAILS,
        "disk",
        f"{free:.1f} GB free, {needed:.1f} needed: make run would end with a full disk; "
        "free some space",
    )


def memory(installed: float, available: float, needed: float) -> Finding:
    """In MB; installed: what there is in all, or what a container may take of it."""
    found = f"{available:,.0f} MB available of {installed:,.0f}, training takes {needed:,.0f}"
    advice = "end other programs, or train on fewer images: preprocess.train_limit in params.yaml"
    if installed < needed:
        return Finding(FAILS, "memory", f"{found}: training would be killed; {advice}")
    if available < needed:
        return Finding(WARNING, "memory", f"{found}: training may be slow, or killed; {advice}")
    return Finding(OK, "memory", found)


def memory_here() -> tuple[float, float]:
    """MB in all and available, of this machine or as the container that this is may take."""
    total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = re.findall(r"MemAvailable: +(\d+) kB", read("/proc/meminfo"))
    available = int(told[0]) * 1024 if told else total
    limit = read("/sys/fs/cgroup/memory.max").strip()
    most = int(limit) if limit.isdigit() else total
    return min(total, most) / 1e6, min(available, most) / 1e6


def memory_needed() -> float:
    """MB that training took when it was last measured."""
    medians = json.loads(read("benchmarks/training.json"))["medians"]
    return max(m["peak_mb"] for way, m in medians.items() if way.startswith("ours"))


def read(path: str) -> str:
    """A file's text, empty where there is none."""
    return Path(path).read_text(encoding="utf-8") if Path(path).is_file() else ""


def port(name: str, default: int) -> Finding:
    """Whether the server could listen on the port that the environment or .env names."""
    settings = {**dict(re.findall(r"(?m)^(\w+)=(.*)$", read(".env"))), **os.environ}
    variable = f"MLSERVER_{name}_PORT"
    number = settings.get(variable, str(default))
    if not number.isdigit():
        words = f"{variable} is {number!r}: make serve would fail; name a whole number"
        return Finding(FAILS, f"port, {name}", words)
    host = settings.get("MLSERVER_HOST", "0.0.0.0")
    why = refusal(host, int(number), variable)
    if why:
        return Finding(FAILS, f"port {number}", f"make serve would fail: {why}")
    return Finding(OK, f"port {number}", f"free on {host}")


def data() -> Finding:
    """Whether the data set's files are here, or can be had from a source."""
    settings = read("params.yaml")
    chosen, last = (
        re.findall(r"(?m)^ +dataset: ([a-z-]+)", text) for text in (settings, read("dvc.lock"))
    )
    if chosen == ["digits"]:
        return Finding(OK, "data", "digits, bundled with scikit-learn")
    files = re.findall(r"(?m)^      - (data/raw/\S+\.gz):$", read("dvc.yaml"))
    if chosen == last[:1] and all(map(os.path.exists, files)):
        return Finding(OK, "data", "already in data/raw")
    sources = listed(settings, "sources")
    if chosen == ["own"]:
        return first_source(sources, listed(settings, "files"), OWN)
    named = [os.environ[SOURCE_VARIABLE]] if os.environ.get(SOURCE_VARIABLE) else []
    return first_source([*named, *sources], [os.path.basename(file) for file in files])


def listed(settings: str, key: str) -> list[str]:
    """The texts of a list in params.yaml, in lines or in brackets, as a user or DVC wrote it."""
    found = re.search(rf"(?m)^( +){key}: *(\[.*\])?.*\n((?:\1 *- .*\n)*)", settings)
    if not found:
        return []
    items = found[2][1:-1].split(",") if found[2] else re.findall(r"- (.*)", found[3])
    return [re.sub(r" +#.*", "", item).strip(" '\"") for item in items]


def first_source(sources: list[str], files: list[str], remedy: str = PUBLISHED) -> Finding:
    """The first source that has the files; sources before it that do not are a warning.

    remedy: what to do where there is none.
    """
    refusals: list[str] = []
    for source in sources:
        why = lacking(source, files)
        if not why:
            passed = f"; before it, {'; '.join(refusals)}" if refusals else ""
            return Finding(WARNING if refusals else OK, "data", f"from {source}{passed}")
        refusals.append(f"{source}: {why}")
    return Finding(FAILS, "data", f"{'; '.join(refusals)}: {remedy}")


def lacking(source: str, files: list[str]) -> str:
    """Why a folder does not hold the files, or a URL does not give the first; empty if it does."""
    if not source.startswith(("http://", "https://")):
        missing = [f for f in files if not Path(source).expanduser().joinpath(f).is_file()]
        if missing == files:
            return "none of the files there"
        return f"no {', '.join(missing)} there" if missing else ""
    url = f"{source.rstrip('/')}/{files[0]}"
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=SOURCE_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return getattr(reason, "strerror", None) or str(reason)


def packages() -> Finding:
    """Whether what is installed is what requirements.lock names."""
    if not os.path.exists(INSTALLED):
        words = f"not installed in .venv yet; make run does it, {INSTALLED_GB} GB"
        return Finding(WARNING, "packages", words)
    locked = dict(locked_here())
    wrong = [unlike for name, version in locked.items() if (unlike := difference(name, version))]
    if not wrong:
        return Finding(OK, "packages", f"the {len(locked)} of requirements.lock")
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Finding(
        FAILS,
        "packages",
        f"unlike requirements.lock: {', '.join(wrong[:SHOWN])}{more}: models may come out "
        "different, or not at all; type: rm -r .venv, then make run",
    )


def locked_here() -> Iterator[tuple[str, str]]:
    """Name and version of each package that requirements.lock has for this Python and system."""
    from packaging.requirements import Requirement  # noqa: PLC0415 (installed by make run)

    for line in re.findall(r"(?m)^(\w.*?==.*?) *\\$", read("requirements.lock")):
        package = Requirement(line)
        if package.marker is None or package.marker.evaluate():
            yield package.name, str(package.specifier).lstrip("=")


def difference(name: str, version: str) -> str:
    """How an installed package differs from the version; empty if it does not."""
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return "" if installed == version else f"{name} {installed} instead of {version}"


def models() -> Finding:
    """Whether there is something to serve. Only under a Python that the project runs with."""
    from serving.fashion.packaged import REPOSITORY, RepositoryError, models_in  # noqa: PLC0415

    try:
        named = ", ".join(f"{m.name} {m.version}" for m in models_in(REPOSITORY))
    except RepositoryError as error:
        return Finding(WARNING, "models", f"make serve would fail before make run: {error}")
    return Finding(OK, "models", named)


def findings(accepted: str) -> Iterator[Finding]:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    yield python(version, accepted)
    yield git()
    yield disk(shutil.disk_usage(".").free / 1e9, os.path.exists(INSTALLED))
    yield memory(*memory_here(), memory_needed())
    for name, default in PORTS.items():
        yield port(name, default)
    yield data()
    if version in accepted.split("|"):
        yield packages()
        yield models()


def main() -> None:
    failed = 0
    for state, what, words in findings(sys.argv[1]):
        print(f"{state:8} {what:10} {words}", flush=True)
        failed += state == FAILS
    print(f"\n{failed} of these would fail" if failed else "\nReady: make run", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
