"""Models reach a machine that never trained, by DVC.  Run: pytest tests/test_remotes.py"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import check_served
from scratch import install, run
from wire import MODELS

from stages.data.processed import PROCESSED, read_npz

PACKAGED = "serving/models"


class Machine(NamedTuple):
    """A checkout, and what sets its DVC apart from that of another machine."""

    folder: Path
    variables: dict[str, str]

    def dvc(self, *command: str, expect: int | None = 0) -> str:
        return run(self.folder, "dvc", *command, expect=expect, **self.variables)

    def git(self, *command: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        return run(self.folder, "git", *identity, *command)


def machine(folder: Path) -> Machine:
    """With a home of its own, so that nothing but the remote is shared."""
    apart = {"HOME": str(folder / "home"), "DVC_SITE_CACHE_DIR": str(folder / "site")}
    (folder / "home").mkdir(parents=True)
    return Machine(folder / "checkout", apart)


@pytest.fixture(scope="module")
def here(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which the pipeline ran."""
    made = machine(tmp_path_factory.mktemp("here"))
    shutil.copytree(trained, made.folder)
    return made


def use(made: Machine, store: Path) -> None:
    """Name the remote as deploy/README.md says to."""
    made.dvc("remote", "add", "--force", "--default", "storage", str(store))
    made.dvc("remote", "modify", "storage", "verify", "true")


def test_models_that_were_pushed_are_served_where_nothing_was_trained(
    here: Machine, tmp_path: Path
):
    use(here, tmp_path / "store")
    here.git("commit", "-qam", "Name a remote")
    here.dvc("push")
    assert "Everything is up to date" in here.dvc("push")
    assert "in sync" in here.dvc("status", "--cloud")

    other = machine(tmp_path / "other")
    run(tmp_path, "git", "clone", "-q", str(here.folder), str(other.folder))
    install(other.folder)
    run(other.folder, "make", "pull", expect=0, **other.variables)
    assert files(other.folder / PACKAGED) == files(here.folder / PACKAGED)
    assert not (other.folder / "data").exists()
    labels = check_served("make serve", other.folder / PACKAGED / "example.json", other.folder)
    right = read_npz(here.folder / PROCESSED / "test.npz").labels[0]
    assert labels == dict.fromkeys(MODELS, right)

    other.dvc("pull")
    assert "up to date" in other.dvc("status")
    for folder in ("data", "models", "metrics"):
        assert files(other.folder / folder) == files(here.folder / folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_that_the_remote_has_altered_is_not_taken_for_the_right_one(
    here: Machine, tmp_path: Path
):
    store = tmp_path / "store"
    use(here, store)
    here.dvc("push", "package")
    features = (here.folder / PACKAGED / "fashion-sklearn/v1/features.npz").read_bytes()
    (stored,) = [p for p in store.rglob("*") if p.is_file() and p.read_bytes() == features]
    stored.chmod(0o644)
    os.truncate(stored, len(features) // 2)
    other = machine(tmp_path / "other")
    run(tmp_path, "git", "clone", "-q", str(here.folder), str(other.folder))
    use(other, store)
    output = other.dvc("pull", "package", expect=1)
    assert "failed to pull data from the cloud" in output
    assert not (other.folder / PACKAGED).exists()
    assert features[: len(features) // 2] not in files(other.folder / ".dvc/cache").values()
