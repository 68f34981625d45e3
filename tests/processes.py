"""Start servers and run the client as a user does; find processes that a test started."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import psutil
import pytest
from scratch import environment
from wire import log_of, post

from serving.client import ResponseError, RestClient
from serving.client.__main__ import main
from serving.launch import MLSERVER, Server, on_free_ports, server_of

DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.05


def wait_until(happened: Callable[[], object], what: str, poll: float = POLL_SECONDS) -> None:
    """Check each `poll` seconds whether something has happened; fail when it has not in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(poll)


def servers_of(repository: Path) -> list[psutil.Process]:
    """The guard and the server of a repository: their command lines name its folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(repository.resolve()) in (process.info["cmdline"] or [])
    ]


def processes_in(group: int) -> list[psutil.Process]:
    """The processes of a process group, but for those that only wait to be reaped."""
    return [
        process
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and _group_of(process) == group
    ]


def _group_of(process: psutil.Process) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return None


def listening_addresses(group: int) -> set[str]:
    """The addresses on which the processes of a group listen, those of IPv4 in their own form."""
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes_in(group)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


@contextmanager
def started(repository: Path, folder: Path, **more: str) -> Iterator[Server]:
    """A server as a user starts it, on free ports of 127.0.0.1. more: variables for it.

    Its guard is the server itself.
    """
    variables = on_free_ports(folder)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*MLSERVER, str(repository)],
            cwd=folder,
            env=environment(**(variables | more)),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield server_of(variables, log, process)
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


@contextmanager
def ready(repository: Path, folder: Path, model: str = "", **more: str) -> Iterator[Server]:
    """The same, once a model is ready, or all of them."""
    with started(repository, folder, **more) as server:
        await_ready(server, model)
        yield server


def await_ready(server: Server, model: str = "") -> None:
    wait_until(
        lambda: server.guard.poll() is not None or is_ready(server, model),
        f"{model or 'all models'} to be ready",
    )
    assert server.guard.poll() is None, log_of(server)


def is_ready(server: Server, model: str = "") -> bool:
    """Whether a model is ready, or all of them."""
    with suppress(ResponseError):
        return RestClient(server.rest).ready(model)
    return False


def run_client(*arguments: str) -> tuple[int | str | None, str]:
    """Run the client's program in this process: its exit code, or message, and what it printed."""
    with redirect_stdout(StringIO()) as printed, pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, printed.getvalue()


def check_served(command: str, example: Path, folder: Path) -> dict[str, int]:
    """Run a command that serves, as a user types it, and end it as Ctrl-C does.

    The class that each model predicts for the example.
    """
    ports = {k: v for k, v in on_free_ports(folder).items() if k.endswith("_PORT")}
    labels = {}
    with subprocess.Popen(
        ["bash", "-c", command.replace("&& ", "&& exec ")],
        cwd=folder,
        env=environment(**ports),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as served:
        server = server_of(ports, Path("/dev/null"), served)
        try:
            for model in ("fashion-sklearn", "fashion-xgboost"):
                await_ready(server, model)
                request = json.loads(example.read_text("utf-8"))
                (labels[model],) = post(server, model, request).outputs["predict"]
            assert listening_addresses(served.pid) == {"127.0.0.1"}
            os.killpg(served.pid, signal.SIGINT)
            served.wait(DEADLINE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(served.pid, signal.SIGKILL)
    return labels
