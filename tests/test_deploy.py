"""What leads to an image: tools, locks, mistakes.  Run: pytest tests/test_deploy.py"""

import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
from scratch import ROOT, make_project, run

from serving.launch import free_ports


@pytest.fixture
def packaged(own_repository: Path, tmp_path: Path) -> Path:
    """A checkout with both models packaged."""
    project = make_project(tmp_path / "checkout")
    shutil.copytree(own_repository / "models", project / "serving/models")
    return project


def stand_in(folder: Path, name: str, script: str) -> str:
    """A PATH with nothing on it but a stand-in for a container tool."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    (folder / name).chmod(0o755)
    return str(folder)


def image(project: Path, action: str, path: str, expect: int = 0, **more: str) -> str:
    return run(
        project, sys.executable, "-m", "deploy.image", action, expect=expect, PATH=path, **more
    )


def pins(lock: Path) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of each package, by name and the condition that it is for."""
    entries = re.findall(
        r"(?m)^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)( ; .*?)? \\\n((?:    --hash=\S+(?: \\)?\n)+)",
        lock.read_text("utf-8"),
    )
    return {
        name + marker: (version, set(re.findall(r"sha256:\w+", hashes)))
        for name, version, marker, hashes in entries
    }


def test_the_images_lock_holds_the_versions_and_hashes_of_the_projects():
    project, serving = pins(ROOT / "requirements.lock"), pins(ROOT / "deploy/requirements.lock")
    names = {name.split(" ; ")[0] for name in serving}
    assert {"mlserver", "httptools", "mlserver-sklearn", "mlserver-xgboost", "xgboost-cpu"} <= names
    assert not names & {"xgboost", "nvidia-nccl-cu12", "dvc", "scikit-learn-intelex", "pytest"}
    by_name = {name.split(" ; ")[0]: pin for name, pin in project.items()}
    assert serving.pop("xgboost-cpu")[0] == by_name["xgboost"][0]
    for name, (version, hashes) in serving.items():
        assert (version, hashes) == by_name[name.split(" ; ")[0]], name
        assert hashes


def test_nothing_packaged_is_told_in_one_line(tmp_path: Path):
    project = make_project(tmp_path / "checkout")
    for action in ("build", "run"):
        said = image(project, action, stand_in(tmp_path / "bin", "docker", "exit 0"), expect=1)
        assert said.count("\n") == 1
        assert said.endswith("serving: no model packaged; package them with: dvc repro\n")


def test_no_container_tool_is_told_in_one_line(packaged: Path, tmp_path: Path):
    path = stand_in(tmp_path / "bin", "docker", "echo 'Is the daemon running?' >&2; exit 1")
    assert image(packaged, "build", path, expect=1) == (
        "error: no container tool: docker does not work (Is the daemon running?), podman is not "
        "installed, buildah is not installed; install or start one of docker, podman, buildah\n"
    )
    said = image(packaged, "build", path, expect=1, CONTAINER_TOOL="nerdctl")
    assert said.startswith("error: no container tool: nerdctl is not installed; ")


def test_the_first_tool_that_works_builds_with_a_health_check(packaged: Path, tmp_path: Path):
    stand_in(tmp_path / "bin", "docker", "exit 1")
    path = stand_in(tmp_path / "bin", "podman", 'echo "podman $*"')
    said = image(packaged, "build", path, BASE_IMAGE="example/python:3.12")
    assert said == (
        "podman build --format=docker --build-arg=BASE_IMAGE=example/python:3.12 "
        "--file=deploy/Dockerfile --tag=fashion-mnist:v1 .\n"
    )
    path = stand_in(tmp_path / "bin", "docker", 'echo "docker $*"')
    assert image(packaged, "build", path).startswith("docker build --file=deploy/Dockerfile")


def test_a_refusal_of_the_build_comes_last_and_in_its_own_words(packaged: Path, tmp_path: Path):
    for line in ("error: BASE_IMAGE has no Python", "#7 0.31 error: BASE_IMAGE has no Python"):
        script = f"[ $1 = info ] || {{ echo '{line}'; echo More; exit 3; }}"
        said = image(packaged, "build", stand_in(tmp_path / "bin", "docker", script), expect=1)
        assert said.splitlines() == [line, "More", "error: BASE_IMAGE has no Python"]


def test_the_image_runs_on_loopback_and_can_write_nowhere(packaged: Path, tmp_path: Path):
    path = stand_in(tmp_path / "bin", "docker", 'echo "$*"')
    rest, grpc, metrics = free_ports(3)
    ports = {"HTTP": rest, "GRPC": grpc, "METRICS": metrics}
    variables = {f"MLSERVER_{name}_PORT": str(port) for name, port in ports.items()}
    page, command = image(packaged, "run", path, expect=0, **variables).splitlines()
    assert page.endswith(f"http://localhost:{rest}/demo")
    said = command.split()
    assert said[:2] == ["run", "--rm"]
    assert said[-1] == "fashion-mnist:v1"
    assert {"--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"} <= set(said)
    assert [word for word in said if word.startswith("--publish")] == [
        f"--publish=127.0.0.1:{rest}:8080",
        f"--publish=127.0.0.1:{grpc}:8081",
        f"--publish=127.0.0.1:{metrics}:8082",
    ]


def test_a_port_that_cannot_be_had_is_told_in_one_line(packaged: Path, tmp_path: Path):
    path = stand_in(tmp_path / "bin", "docker", "exit 0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = image(packaged, "run", path, expect=1, MLSERVER_HTTP_PORT=port)
    assert said.startswith(f"error: port {port} of 127.0.0.1: Address already in use; stop what")
    said = image(packaged, "run", path, expect=1, MLSERVER_HTTP_PORT="eighty")
    assert said == "error: MLSERVER_HTTP_PORT is 'eighty'; expected a number of a port\n"


def test_the_image_is_built_from_what_serves_alone():
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    for line in ignored:
        if line.startswith("!") and line != "!serving/models":
            assert (ROOT / line[1:]).exists(), line
