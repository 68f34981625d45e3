"""Models reach a machine that never trained, by DVC.  Run: pytest tests/test_remotes.py"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import check_served, wait_until
from scratch import ROOT, deep, environment, install, run
from sftp import USER
from wire import MODELS

from stages.data.idx import PROCESSED, read_npz

PASSWORD = "correct horse"
BYTES_PER_SECOND = 2e6
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

    def killed_midway(self, verb: str, grows: Path, by: int) -> None:
        """Kill `dvc push` or `dvc pull` when this many more bytes are in a folder."""
        until = size(grows) + by
        with subprocess.Popen(
            ["dvc", verb],
            cwd=self.folder,
            env=environment(**self.variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            wait_until(lambda: process.poll() is not None or size(grows) > until, verb, poll=0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL, "was over before it was killed"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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


@pytest.fixture(params=["folder", pytest.param("ssh", marks=deep)])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of an empty remote, and where its files lie."""
    store = tmp_path / "store"
    store.mkdir()
    if request.param == "folder":
        yield str(store), store
        return
    program = str(ROOT / "tests/sftp.py")
    command = [sys.executable, program, str(store), PASSWORD, str(BYTES_PER_SECOND)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"ssh://127.0.0.1:{server.stdout.readline().strip()}/", store
        server.terminate()


def use(made: Machine, url: str) -> None:
    """Name the remote as the README says to."""
    (made.folder / ".dvc/config.local").unlink(missing_ok=True)
    made.dvc("remote", "add", "--force", "--default", "storage", url)
    made.dvc("remote", "modify", "storage", "verify", "true")
    log_in(made, url)


def log_in(made: Machine, url: str) -> None:
    if url.startswith("ssh"):
        made.dvc("remote", "modify", "--local", "storage", "user", USER)
        made.dvc("remote", "modify", "--local", "storage", "password", PASSWORD)


def test_models_that_were_pushed_are_served_where_nothing_was_trained(
    here: Machine, remote: tuple[str, Path], tmp_path: Path
):
    url, store = remote
    use(here, url)
    here.git("commit", "-qam", "Name a remote")
    if url.startswith("ssh"):
        here.killed_midway("push", store, by=1_000_000)
    here.dvc("push")
    assert "Everything is up to date" in here.dvc("push")
    assert "in sync" in here.dvc("status", "--cloud")

    other = machine(tmp_path / "other")
    run(tmp_path, "git", "clone", "-q", str(here.folder), str(other.folder))
    log_in(other, url)
    install(other.folder)
    run(other.folder, "make", "pull", expect=0, **other.variables)
    assert files(other.folder / PACKAGED) == files(here.folder / PACKAGED)
    assert not (other.folder / "data").exists()
    labels = check_served("make serve", other.folder / PACKAGED / "example.json", other.folder)
    right = read_npz(here.folder / PROCESSED / "test.npz").labels[0]
    assert labels == dict.fromkeys(MODELS, right)

    if url.startswith("ssh"):
        other.killed_midway("pull", other.folder / ".dvc/cache", by=500_000)
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
    use(here, str(store))
    here.dvc("push", "package")
    features = (here.folder / PACKAGED / "fashion-sklearn/v1/features.npz").read_bytes()
    (stored,) = [p for p in store.rglob("*") if p.is_file() and p.read_bytes() == features]
    stored.chmod(0o644)
    os.truncate(stored, len(features) // 2)
    other = machine(tmp_path / "other")
    run(tmp_path, "git", "clone", "-q", str(here.folder), str(other.folder))
    use(other, str(store))
    output = other.dvc("pull", "package", expect=1)
    assert "failed to pull data from the cloud" in output
    assert not (other.folder / PACKAGED).exists()
    assert features[: len(features) // 2] not in files(other.folder / ".dvc/cache").values()
