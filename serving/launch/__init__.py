"""Start an MLServer on free ports, wait until each model is ready, and always stop it.

The server runs under a guard (guard.py), so that it never outlives this process.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import requests

from serving.client import DIRECT
from serving.fashion.contract import NOT_SERVED
from serving.fashion.packaged import REPOSITORY, Model, models_in
from serving.launch import guard

HOST = "127.0.0.1"
START_SECONDS = 120.0
NOTICE_SECONDS = 1.0  # for the guard to see that its server has ended
POLL_SECONDS = 0.1
LOG_LINES = 15
SERVER_VARIABLES = "MLSERVER_", "FASHION_"  # prefixes of variables that this server does not get
MLSERVER = [sys.executable, "-c", "from mlserver.cli import main; main()", "start"]


class ServerError(RuntimeError):
    """A server that cannot be started, or that ended when it should not have."""


class Server(NamedTuple):
    """A running server. rest: its URL; grpc: host:port; guard: the process that ends it."""

    rest: str
    grpc: str
    log: Path
    guard: subprocess.Popen


@contextmanager
def running(repository: Path = REPOSITORY) -> Iterator[Server]:
    """Serve a repository on free ports of 127.0.0.1 for the time of a `with` block.

    Yields when every model is ready. Raises ServerError, with the end of the server's log, when a
    model is not ready in time or the server ends, during the block in place of the error that this
    caused there. Raises RepositoryError where no model is packaged.
    """
    models = models_in(repository, any_runtime=True)
    with tempfile.TemporaryDirectory(prefix="mlserver-") as folder, ExitStack() as stack:
        server = _start(repository.resolve(), Path(folder))
        stack.callback(_stop, server)
        _await_ready(server, models)
        try:
            yield server
        except Exception:
            with suppress(subprocess.TimeoutExpired):
                server.guard.wait(NOTICE_SECONDS)
            _check_alive(server, "during the requests")
            raise


def _start(repository: Path, folder: Path) -> Server:
    variables = on_free_ports(folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(SERVER_VARIABLES)}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, guard.__file__, *MLSERVER, str(repository)],
            cwd=folder,
            env=environment | variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return server_of(variables, log, process)


def on_free_ports(folder: Path) -> dict[str, str]:
    """Variables of a server with free ports, and with its files in `folder`."""
    ports = zip(("HTTP", "GRPC", "METRICS"), free_ports(3), strict=True)
    return {f"MLSERVER_{name}_PORT": str(port) for name, port in ports} | {
        "MLSERVER_HOST": HOST,
        "MLSERVER_METRICS_DIR": str(folder / "metrics"),
        "MLSERVER_ENVIRONMENTS_DIR": str(folder / "environments"),
    }


def server_of(variables: Mapping[str, str], log: Path, process: subprocess.Popen) -> Server:
    """A server that was started with these variables, see `on_free_ports`."""
    rest, grpc = variables["MLSERVER_HTTP_PORT"], variables["MLSERVER_GRPC_PORT"]
    return Server(f"http://{HOST}:{rest}", f"{HOST}:{grpc}", log, process)


def free_ports(count: int) -> list[int]:
    """Different free ports of 127.0.0.1."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind((HOST, 0))
        return [free.getsockname()[1] for free in sockets]


def _await_ready(server: Server, models: Sequence[Model]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for model in models:
        while not _is_ready(server, model):
            _check_alive(server, f"before {model.name} was ready")
            _check_served(server, model)
            if time.monotonic() > deadline:
                raise _failure(server, f"{model.name} was not ready after {START_SECONDS:g} s")
            time.sleep(POLL_SECONDS)


def _is_ready(server: Server, model: Model) -> bool:
    version = f"/versions/{model.version}" if model.version else ""
    address = f"{server.rest}/v2/models/{model.name}{version}/ready"
    with suppress(requests.RequestException):
        return requests.get(address, timeout=START_SECONDS, proxies=DIRECT).ok
    return False


def _check_alive(server: Server, when: str) -> None:
    if server.guard.poll() is not None:
        raise _failure(server, f"the server ended {when}")


def _check_served(server: Server, model: Model) -> None:
    message = NOT_SERVED.format(name=model.name, version=model.version)
    for line in _log_lines(server):
        if message in line:
            raise ServerError(line[line.index(message) :])


def _failure(server: Server, what: str) -> ServerError:
    return ServerError("\n  | ".join([what, "its log ends:", *_log_lines(server)[-LOG_LINES:]]))


def _log_lines(server: Server) -> list[str]:
    return server.log.read_text(encoding="utf-8", errors="replace").splitlines()


def _stop(server: Server) -> None:
    with suppress(subprocess.TimeoutExpired):
        server.guard.communicate(timeout=2 * guard.STOP_SECONDS)  # closes its input
    with suppress(ProcessLookupError):
        os.killpg(server.guard.pid, signal.SIGKILL)
    server.guard.wait()
