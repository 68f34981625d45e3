"""Build the container image of the packaged models, and run it: `build` or `run`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from serving.fashion.adapter.preflight import refusal
from serving.fashion.packaged import REPOSITORY, RepositoryError, models_in
from stages.errors import StageError, run
from stages.params import Params, load_params

TOOLS = ("docker", "podman", "buildah")
DOCKERFILE = "deploy/Dockerfile"
PORTS = {"MLSERVER_HTTP_PORT": 8080, "MLSERVER_GRPC_PORT": 8081, "MLSERVER_METRICS_PORT": 8082}
HOST = "127.0.0.1"
REFUSAL = re.compile(rb"(?:#\d+ [\d.]+ )?error: (.*)")  # BuildKit puts step and seconds before it
PASSED = ("BASE_IMAGE", "PIP_INDEX_URL")  # to the build, where the environment has them


def check_packaged(params: Params) -> None:
    """Raise StageError unless all versions that params.yaml names are packaged."""
    try:
        packaged = {model.version for model in models_in(REPOSITORY)}
    except RepositoryError as error:
        raise StageError(str(error)) from None
    for version in [*params.package.previous, params.package.version]:
        if version not in packaged:
            raise StageError(
                f"params.yaml: package names {version}, but packaged is "
                f"{', '.join(sorted(packaged))}; package it with: dvc repro"
            )


def reference(params: Params) -> str:
    """The image's name and tag."""
    return f"{params.deploy.image}:{params.package.version}"


def container_tool() -> str:
    """The first tool that works, or the one that CONTAINER_TOOL names. Raises StageError."""
    named = os.environ.get("CONTAINER_TOOL")
    said = []
    for tool in (named,) if named else TOOLS:
        if not shutil.which(tool):
            said.append(f"{tool} is not installed")
            continue
        done = subprocess.run([tool, "info"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return tool
        words = done.stderr.strip().splitlines() or ["it does not say why"]
        said.append(f"{tool} does not work ({words[-1]})")
    raise StageError(
        f"no container tool: {', '.join(said)}; install or start one of {', '.join(TOOLS)}"
    )


def build(tool: str, image: str) -> None:
    """Build the image, as the tool shows it. Raises StageError, in the Dockerfile's own words."""
    arguments = [f"--build-arg={name}={os.environ[name]}" for name in PASSED if name in os.environ]
    health = [] if tool == "docker" else ["--format=docker"]  # the OCI's format has no health check
    command = [tool, "build", *health, *arguments, f"--file={DOCKERFILE}", f"--tag={image}", "."]
    refusal = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line.decode(errors="replace"))
            sys.stdout.flush()
            if found := REFUSAL.match(line):
                refusal = found[1].decode().strip()
    if process.returncode:
        raise StageError(refusal or f"{tool} could not build {image}; the lines above say why")


def serve(tool: str, image: str) -> int:
    """Serve the models on this machine's loopback until it is told to end; its exit code.

    MLSERVER_HTTP_PORT and the like choose other ports. Nothing but /tmp can be written to.
    """
    ports = {name: os.environ.get(name, str(default)) for name, default in PORTS.items()}
    for name, port in ports.items():
        if not port.isdecimal():
            raise StageError(f"{name} is {port!r}; expected a number of a port")
        if why := refusal(HOST, int(port), name):
            raise StageError(why)
    page = f"http://localhost:{ports['MLSERVER_HTTP_PORT']}/demo"
    print(f"Try it, once both models are ready: {page}", flush=True)
    if tool != "buildah":
        published = [f"--publish={HOST}:{ports[name]}:{inner}" for name, inner in PORTS.items()]
        hardened = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--init"]
        hardened.append("--security-opt=no-new-privileges")
        return _wait_for([tool, "run", "--rm", *hardened, *published, image])
    with container(image) as name:  # which has no network of its own to publish ports of
        own = {"MLSERVER_HOST": HOST} | ports
        variables = [f"--env={key}={value}" for key, value in own.items()]
        return _wait_for(["buildah", "run", *variables, name, "--", *command_of(name)])


def _wait_for(command: Sequence[str]) -> int:
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except (KeyboardInterrupt, SystemExit):  # in its own time, unlike subprocess.call
            process.terminate()
            process.wait()
            raise


@contextmanager
def container(image: str) -> Iterator[str]:
    """A container of buildah for the time of a `with` block, by name. Raises StageError."""
    made = subprocess.run(
        ["buildah", "from", "--pull-never", image], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise StageError(f"{image}: no such image; build it with: make image")
    name = made.stdout.strip()
    try:
        yield name
    finally:
        subprocess.run(["buildah", "rm", name], capture_output=True, check=False)


def command_of(name: str) -> list[str]:
    """What a container of buildah is made to run."""
    inspected = subprocess.check_output(["buildah", "inspect", name])
    return json.loads(inspected)["OCIv1"]["config"]["Cmd"]


def output_of(tool: str, image: str, command: Sequence[str]) -> str:
    """What a command prints in a container of the image. Raises StageError."""
    if tool != "buildah":
        return _output([tool, "run", "--rm", "--pull=never", image, *command])
    with container(image) as name:
        return _output(["buildah", "run", name, "--", *command])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no word of it"]
        raise StageError(f"{' '.join(command[:2])} failed: {words[-1]}; is the image built?")
    return done.stdout


def main() -> None:
    actions = {"build": build, "run": serve}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:  # noqa: PLR2004
        raise StageError(f"expected one of {', '.join(actions)}, got {' '.join(sys.argv[1:])}")
    params = load_params()
    check_packaged(params)
    sys.exit(actions[sys.argv[1]](container_tool(), reference(params)))


if __name__ == "__main__":
    run(main)
