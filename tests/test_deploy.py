"""What leads to an image: tools, locks, its health check.  Run: pytest tests/test_deploy.py"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scratch import ROOT, deep, environment, install, make_params, make_project, run, stand_in

from serving.launch import Server, free_ports

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text("utf-8").replace("\\\n", "")
PROGRAMS = ("sh", "sed", "dirname")  # all that the script needs but a container tool


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """What the script reads of a checkout with a model packaged; in bin/, the programs it finds."""
    settings = tmp_path / "serving/models/fashion-sklearn/v1/model-settings.json"
    settings.parent.mkdir(parents=True)
    settings.touch()
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    make_params(tmp_path)
    (tmp_path / "bin").mkdir()
    for program in PROGRAMS:
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    return tmp_path


def tool(project: Path, name: str, script: str) -> None:
    """Install a container tool, which runs this script."""
    stand_in(project / "bin" / name, script)


def image(project: Path, action: str, expect: int = 0, **more: str) -> str:
    path = str(project / "bin")
    return run(project, "deploy/image.sh", action, expect=expect, PATH=path, **more)


def pins(lock: Path) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes of each package."""
    entries = re.findall(
        r"(?m)^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)(?: ; .*?)? \\\n((?:    --hash=\S+(?: \\)?\n)+)",
        lock.read_text("utf-8"),
    )
    return {
        name: (version, set(re.findall(r"sha256:\w+", hashes))) for name, version, hashes in entries
    }


def test_the_images_lock_holds_the_versions_and_hashes_of_the_projects():
    project, serving = pins(ROOT / "requirements.lock"), pins(ROOT / "deploy/requirements.lock")
    assert {"mlserver", "httptools", "mlserver-sklearn", "mlserver-xgboost"} <= set(serving)
    assert not set(serving) & {"xgboost", "nvidia-nccl-cu12", "dvc", "scikit-learn-intelex"}
    assert serving.pop("xgboost-cpu")[0] == project["xgboost"][0]
    assert serving == {name: project[name] for name in serving}
    assert all(hashes for _, hashes in serving.values())


@deep
def test_the_bill_of_materials_names_what_the_lock_names(tmp_path: Path):
    project = install(make_project(tmp_path / "checkout"))
    run(project, "make", "sbom")
    bill = json.loads((project / "deploy/sbom.cdx.json").read_text("utf-8"))
    found = {part["name"]: part["version"] for part in bill["components"]}
    locked = pins(ROOT / "deploy/requirements.lock")
    assert found == {name: version for name, (version, _) in locked.items()}


def test_a_version_that_is_not_packaged_is_one_line(packaged: Path):
    tool(packaged, "docker", "exit 0")
    make_params(packaged, "package.version=v3")
    for action in ("build", "run"):
        assert image(packaged, action, expect=1) == (
            "error: serving/models/fashion-sklearn: no v3 packaged (package.version); "
            "package it with: dvc repro\n"
        )


def test_no_container_tool_is_one_line(packaged: Path):
    tool(packaged, "docker", "echo 'Is the daemon running?' >&2; exit 1")
    assert image(packaged, "build", expect=1) == (
        "error: no container tool: docker does not work (Is the daemon running?), podman is not "
        "installed, buildah is not installed; install or start docker, podman or buildah\n"
    )
    message = image(packaged, "build", expect=1, CONTAINER_TOOL="nerdctl")
    assert message.startswith("error: no container tool: nerdctl is not installed; ")


def test_the_first_tool_that_works_builds_with_a_health_check(packaged: Path):
    tool(packaged, "docker", "exit 1")
    tool(packaged, "podman", '[ $1 = info ] || echo "podman $*"')
    assert image(packaged, "build", BASE_IMAGE="example/python:3.12") == (
        "podman build --format=docker --build-arg=BASE_IMAGE=example/python:3.12 "
        "--file=deploy/Dockerfile --tag=fashion-mnist:v1 .\n"
    )
    tool(packaged, "docker", '[ $1 = info ] || echo "docker $*"')
    assert image(packaged, "build", IMAGE_NAME="registry.example.com/fashion") == (
        "docker build --file=deploy/Dockerfile --tag=registry.example.com/fashion:v1 .\n"
    )


def test_a_build_that_fails_is_an_error_after_the_words_of_the_tool(packaged: Path):
    tool(packaged, "docker", "[ $1 = info ] || { echo No space left; exit 3; }")
    assert image(packaged, "build", expect=1) == (
        "No space left\nerror: docker could not build fashion-mnist:v1; the lines above say why\n"
    )


def test_the_image_runs_on_the_loopback_and_can_write_nowhere(packaged: Path):
    tool(packaged, "docker", '[ $1 = info ] || echo "$*"')
    output = image(packaged, "run", MLSERVER_HTTP_PORT="9080", MLSERVER_GRPC_PORT="9081")
    page, command = output.splitlines()
    assert page.endswith("http://localhost:9080/demo")
    words = command.split()
    assert (*words[:2], words[-1]) == ("run", "--rm", "fashion-mnist:v1")
    assert {"--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"} <= set(words)
    assert [word for word in words if word.startswith("--publish")] == [
        "--publish=127.0.0.1:9080:8080",
        "--publish=127.0.0.1:9081:8081",
        "--publish=127.0.0.1:8082:8082",
    ]


def test_a_base_with_another_python_ends_the_build_with_a_message(monkeypatch: pytest.MonkeyPatch):
    (check,) = re.findall("RUN python3 -c '(.*)'", DOCKERFILE)
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    message = "error: BASE_IMAGE has Python 3.9; expected 3.11, 3.12 or 3.13"
    with pytest.raises(SystemExit, match=message):
        exec(check)


def healthy(port: str) -> bool:
    """What the health check of the image says of a server, as Docker runs it."""
    (command,) = re.findall(r"(?m)^HEALTHCHECK .*? CMD (.*)$", DOCKERFILE)
    variables = environment(MLSERVER_HTTP_PORT=port, http_proxy="http://127.0.0.1:1")
    check = ["/bin/sh", "-c", command]
    return not subprocess.run(check, env=variables, capture_output=True, check=False).returncode


def test_the_health_check_fails_unless_the_server_is_ready(server: Server):
    assert healthy(server.rest.rpartition(":")[2])
    assert not healthy(str(free_ports(1)[0]))
