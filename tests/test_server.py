"""A server that is started is always stopped.  Run: pytest tests/test_server.py"""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests
from processes import (
    DEADLINE_SECONDS,
    listening_addresses,
    processes_in,
    servers_of,
    wait_until,
)
from scratch import ROOT, environment, run, slow
from wire import MODELS, log_of

from serving import launch as server_module
from serving.fashion.adapter.preflight import check_start
from serving.launch import Server, ServerError, running


def test_a_start_ends_in_one_line_whatever_variables_are_set_and_nothing_is_left_behind(
    own_repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "1")  # of another server
    monkeypatch.setenv("MLSERVER_MODEL_NAME", "other")
    with running(own_repository) as server:
        for model in MODELS:
            assert requests.get(f"{server.rest}/v2/models/{model}/ready", timeout=10).ok
        assert len(processes_in(server.guard.pid)) == 2  # the guard, and the server
        assert listening_addresses(server.guard.pid) == {"127.0.0.1"}
        wait_until(lambda: "Serving" in log_of(server), "the line")
        (line,) = [x for x in log_of(server).splitlines() if "Serving" in x]
    assert line.endswith(
        f"Serving fashion-sklearn v1, fashion-xgboost v1: REST {server.rest}, gRPC {server.grpc}; "
        f"try them at http://localhost:{server.rest.rpartition(':')[2]}/demo"
    )
    assert not processes_in(server.guard.pid)
    assert not server.log.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGINT), slow(signal.SIGTERM)])
def test_no_server_outlives_the_process_that_started_it(
    own_repository: Path, tmp_path: Path, number: int
):
    program = (
        "import pathlib, sys, time; from serving.launch import running\n"
        f"with running(pathlib.Path({str(own_repository)!r})) as server:\n"
        "    print(server.guard.pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert starter.stdout is not None
    with starter, starter.stdout:
        group = int(starter.stdout.readline())
        assert servers_of(own_repository)
        starter.send_signal(number)
        starter.wait(DEADLINE_SECONDS)
    wait_until(lambda: not processes_in(group), "the end of the server's process group")


def infer_while_it_is_killed(server: Server) -> None:
    (mlserver,) = psutil.Process(server.guard.pid).children()
    mlserver.kill()
    server.guard.wait(DEADLINE_SECONDS)
    requests.get(server.rest, timeout=10)


def test_a_server_that_dies_is_reported_with_the_end_of_its_log(own_repository: Path):
    with (
        pytest.raises(ServerError, match="ended during the requests") as error,
        running(own_repository) as server,
    ):
        infer_while_it_is_killed(server)
    assert "its log ends:" in str(error.value)
    assert "Loaded model" in str(error.value)


def test_a_model_that_is_not_served_is_reported_with_the_reason(
    own_repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module.guard, "STOP_SECONDS", 2.0)
    (file,) = own_repository.rglob("model.joblib")
    file.write_bytes(b"no model")
    words = r"^fashion-sklearn v1 is not served: .* SHA-256.*$"
    with pytest.raises(ServerError, match=words), running(own_repository):
        pass
    assert not servers_of(own_repository)


def test_a_setting_of_another_type_is_reported_in_one_line(repository: Path):
    variables = {"MLSERVER_HTTP_PORT": "eighty", "MLSERVER_HOST": "127.0.0.1"}
    output = run(repository.parent, "mlserver", "start", "serving", expect=1, **variables)
    message = "error: MLServer's setting http_port is 'eighty': Input should be a valid integer"
    assert output.startswith(message)
    assert output.count("\n") == 1


def check(repository: Path, **settings: int) -> None:
    """Check the start of a server with these settings of MLServer's."""
    usual = {"host": "127.0.0.1", "parallel_workers": 0}
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    check_start(repository, False, True, SimpleNamespace(**usual | ports | settings))


def test_a_taken_port_is_reported_in_one_line(repository: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = (
            f"error: port {port} of 127.0.0.1: Address already in use; stop what listens there, "
            "or choose another: MLSERVER_HTTP_PORT=…"
        )
        with pytest.raises(SystemExit, match=f"^{message}$"):
            check(repository, http_port=port)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"http_port": 99999}, "port 99999 of 127.0.0.1: "),
        (
            {"http_port": 7, "grpc_port": 7, "metrics_port": 7},
            "MLServer's settings http_port, grpc_port, metrics_port are 7; expected different "
            "ports: MLSERVER_GRPC_PORT=… MLSERVER_METRICS_PORT=…",
        ),
        (
            {"parallel_workers": 2},
            "MLServer's setting parallel_workers is 2; expected 0: start more servers instead",
        ),
    ],
)
def test_settings_that_cannot_be_served_are_reported_in_one_line(
    repository: Path, settings: dict[str, int], message: str
):
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        check(repository, **settings)


def test_nothing_packaged_is_reported_in_one_line(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"no model packaged; package them with: dvc repro$"):
        check(tmp_path)
