"""The image, built and run for real, by buildah without an engine.  Run: make test-image"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from processes import DEADLINE_SECONDS, await_ready, processes_in, wait_until
from scratch import ROOT, environment, make_project, run
from wire import MODELS, body, infer, offline, tensor

from serving.fashion.contract import LABELS
from serving.launch import Server, on_free_ports, server_of
from stages.data.processed import Images

IMAGE = "localhost/fashion-mnist-test"
BUILDAH = {
    "BUILDAH_ISOLATION": "chroot",
    "STORAGE_DRIVER": "vfs",
    "CONTAINER_TOOL": "buildah",
    "IMAGE_NAME": IMAGE,
}
# Prints name and version of each installed package.
PACKAGES = """
from importlib.metadata import distributions
for found in distributions():
    print(found.metadata["Name"], found.version)
"""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = 65532

if not os.environ.get("IMAGE"):
    pytest.skip("builds an image, minutes: make test-image", allow_module_level=True)
lacking = [tool for tool in ("buildah", "debootstrap", "unshare") if not shutil.which(tool)]
lacking += ["root"] if os.geteuid() else []
if lacking:
    pytest.skip(f"needs {', '.join(lacking)}", allow_module_level=True)


def buildah(*arguments: str) -> str:
    return run(Path("/"), "buildah", *arguments, expect=0, **BUILDAH).strip()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian 12 with Python 3.11 and this machine's certificates, or what BASE_IMAGE names."""
    if named := os.environ.get("BASE_IMAGE"):
        return named
    folder = tmp_path_factory.mktemp("base")
    packages = "--include=ca-certificates,python3,python3-venv"
    run(folder, "debootstrap", "--variant=minbase", packages, "bookworm", "root")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(folder / "root"), "/")
    if CERTIFICATES.exists():
        buildah("copy", "--quiet", container, str(CERTIFICATES), str(CERTIFICATES))
    buildah("commit", "--quiet", "--rm", container, f"{IMAGE}-base")
    shutil.rmtree(folder / "root")
    return f"{IMAGE}-base"


@pytest.fixture(scope="module")
def project(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with both models packaged."""
    folder = make_project(tmp_path_factory.mktemp("project") / "checkout")
    shutil.copytree(repository / "models", folder / "serving/models")
    return folder


@pytest.fixture(scope="module")
def image(project: Path, base: str) -> Iterator[str]:
    print(run(project, "make", "image", expect=0, **BUILDAH, BASE_IMAGE=base)[-2000:])
    yield f"{IMAGE}:v1"
    buildah("rmi", f"{IMAGE}:v1")


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """A container that nothing runs in, to look into."""
    name = buildah("from", "--pull-never", image)
    yield name
    buildah("rm", name)


@pytest.fixture(scope="module")
def config(container: str) -> dict[str, Any]:
    """What the image says of how it is run."""
    return json.loads(buildah("inspect", container))["Docker"]["config"]


@pytest.fixture(scope="module")
def root(container: str) -> Path:
    """The image's files."""
    return Path(buildah("mount", container))


def check_responses(server: Server, repository: Path, digits: tuple[Images, Images]) -> None:
    assert requests.get(f"{server.rest}/demo", timeout=60).ok
    images = digits[1].images[:50]
    for model in MODELS:
        labels = offline(repository, model, images)[LABELS].tolist()
        for protocol in ("rest", "grpc"):
            response = infer(server, protocol, model, body(tensor(images)))
            assert response.outputs == {LABELS: labels}, response.error


@contextmanager
def running(command: list[str], folder: Path, variables: dict[str, str]) -> Iterator[Server]:
    """What a command serves, once both models are ready; terminated, it leaves no process.

    variables: of the environment, with the ports.
    """
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**BUILDAH, **variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = server_of(variables, folder / "log", process)
    try:
        await_ready(server)
        yield server
        process.terminate()
        wait_until(lambda: not processes_in(process.pid), "the end of all processes")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.usefixtures("image")
def test_the_image_serves_both_models_by_its_own_command_as_its_own_user(
    project: Path, repository: Path, digits: tuple[Images, Images]
):
    before = buildah("containers", "--quiet")
    with running(["make", "image-run"], project, on_free_ports(project)) as server:
        check_responses(server, repository, digits)
        (mlserver,) = [
            process
            for process in processes_in(server.guard.pid)
            if process.cmdline()[:1] == ["/opt/fashion/python/bin/python"]
        ]
        assert mlserver.cmdline()[1:] == ["/opt/fashion/python/bin/mlserver", "start", "serving"]
        assert set(mlserver.uids()) == {USER}
    assert buildah("containers", "--quiet") == before


def test_it_serves_on_a_read_only_root_and_to_every_interface(
    root: Path,
    config: dict[str, Any],
    repository: Path,
    digits: tuple[Images, Images],
    tmp_path: Path,
):
    """As docker run --read-only --tmpfs /tmp does, in a mount namespace of its own."""
    variables = on_free_ports(tmp_path)
    own = [*config["Env"], *(f"{k}={v}" for k, v in variables.items() if k.endswith("_PORT"))]
    script = """
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp"
        mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev"
        root=$1; shift; user=$1; shift
        exec chroot --userspec="$user" "$root" env --ignore-environment --chdir=/opt/fashion "$@"
    """
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh"]
    command += [str(root), config["User"], *own, *config["Cmd"]]
    with running(command, tmp_path, variables) as server:
        check_responses(server, repository, digits)
        port = variables["MLSERVER_HTTP_PORT"]
        assert {
            connection.laddr.ip
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and str(connection.laddr.port) == port
        } == {"0.0.0.0"}
        check_health(config, root, port)
        (mlserver,) = psutil.Process(server.guard.pid).children()  # unshare itself ignores signals
        mlserver.terminate()
        assert server.guard.wait(DEADLINE_SECONDS) == 0


def check_health(config: dict[str, Any], root: Path, port: str) -> None:
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD-SHELL"
    for at, expect in ((port, 0), ("1", 1)):
        inside = ["env", "--chdir=/opt/fashion", f"MLSERVER_HTTP_PORT={at}", *config["Env"]]
        chroot = ("chroot", f"--userspec={config['User']}", str(root))
        run(Path("/"), *chroot, *inside, "/bin/sh", "-c", *command, expect=expect)


def test_it_holds_what_the_lock_names_and_nothing_of_training(container: str, root: Path):
    listed = buildah("run", container, "--", "python", "-c", PACKAGES).splitlines()
    held = {re.sub("[._]", "-", line.lower()) for line in listed}
    lock = (ROOT / "deploy/requirements.lock").read_text("utf-8")
    locked = re.findall(r"(?m)^([a-z0-9-]+)(?:\[[a-z]+\])?==([^ ]+)", lock)
    assert held <= {re.sub("[._]", "-", f"{name} {version}") for name, version in locked}
    inside = root / "opt/fashion"
    for name in ("dvc", "sklearnex", "nvidia", "pip", "pytest", "stages"):
        assert not list(inside.rglob(f"{name}/__init__.py")), name
    packages = [inside / f"serving/models/{model}/v1/features.npz" for model in MODELS]
    assert packages[0].samefile(packages[1])
    assert not [path for path in inside.rglob("*") if path.stat().st_uid == USER]


@pytest.mark.usefixtures("image")
def test_a_package_with_other_bytes_is_not_installed(project: Path, base: str):
    """Leaves `project` with a lock that cannot be installed."""
    lock = project / "deploy/requirements.lock"
    entry, other = r"(?m)^(aiofiles==.*\n)(    --hash=.*\n)+", f"    --hash=sha256:{'0' * 64}\n"
    lock.write_text(re.sub(entry, rf"\1{other}", lock.read_text("utf-8")), "utf-8")
    output = run(project, "deploy/image.sh", "build", expect=1, **BUILDAH, BASE_IMAGE=base)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in output
